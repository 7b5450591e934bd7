"""Which number type is fast here. bfloat16 doubles the speed on a GPU and on CPUs with its instructions; elsewhere it is emulated, 70 times slower than
float32 (measured on a Zen 3). So it is measured, once a process, rather than guessed from a version or a name."""
import contextlib
import functools
import time

import torch


@functools.lru_cache(maxsize=None)
def is_bfloat16_fast(kind):
    """True when a product of matrices is faster in bfloat16 than in float32 on a device of this kind ("cpu", "cuda")."""
    if kind != "cpu":
        return True
    took = []
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(256, 256, dtype=dtype)
        a @ a                                                                # the first one chooses a kernel
        start = time.perf_counter()
        a @ a
        took.append(time.perf_counter() - start)
    return took[1] < took[0]


def autocast(device):
    """The context of a forward pass: bfloat16 for products where that is fast."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if is_bfloat16_fast(kind) else contextlib.nullcontext()
