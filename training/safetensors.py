"""Reading and writing .safetensors: 8 bytes of header length, a JSON header, the bytes."""
import json
import struct

import torch

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64, "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "I8": torch.int8}
NAMES = {v: k for k, v in TYPES.items()}


def load(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, info in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            a, b = info["data_offsets"]
            raw = torch.frombuffer(bytearray(data[8 + n + a:8 + n + b]), dtype=torch.uint8) if b > a else torch.empty(0, dtype=torch.uint8)
            out[name] = raw.view(TYPES[info["dtype"]]).reshape(info["shape"])
    return out


def dump(tensors):
    """→ the bytes of the file. Header padded with spaces to a multiple of 8."""
    header, parts, at = {}, [], 0
    for name, t in tensors.items():
        raw = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)
