"""Which number type is fast here. bfloat16 doubles the speed on a GPU and on CPUs with its instructions; elsewhere it is emulated, 30 to 70 times slower than
float32 (measured on a Zen 3). So it is measured, once a process, rather than guessed from a version or a name."""
import contextlib
import functools
import time

import torch
import torch.nn.functional as F


@functools.lru_cache(maxsize=None)
def is_bfloat16_fast(kind):
    """True when products of matrices and convolutions are both faster in bfloat16 than in float32 on a device of this kind ("cpu", "cuda")."""
    if kind != "cpu":
        return True

    def is_faster(work, *shapes):
        """Whether bfloat16 is the faster, by the best of some runs."""
        times = {}
        for dtype in (torch.float32, torch.bfloat16):
            inputs = [torch.ones(shape, dtype=dtype) for shape in shapes]
            for _ in range(6):                                               # the first chooses a kernel
                start = time.perf_counter()
                work(*inputs)
                times[dtype] = min(times.get(dtype, 1e9), time.perf_counter() - start)
        return times[torch.bfloat16] < times[torch.float32]

    with torch.no_grad():
        return is_faster(torch.matmul, (256, 256), (256, 256)) and is_faster(lambda x, w: F.conv2d(x, w, padding=1), (2, 32, 32, 32), (32, 32, 3, 3))


def autocast(device):
    """The context of a forward pass: bfloat16 for products where that is fast."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if is_bfloat16_fast(kind) else contextlib.nullcontext()
