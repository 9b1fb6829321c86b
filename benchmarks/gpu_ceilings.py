"""What the GPU's memory gives: the rate of a copy, both directions counted, and of reading alone.

Every floor is one of these rates away from a number of bytes.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from gpu_parts import Settings

BYTE_COUNT = 4 << 30
BLOCK = 4096
BLOCKS_PER_PROGRAM = 16
WARM_UP_COUNT = 3
REPEAT_COUNT = 30


@triton.jit  # type: ignore[untyped-decorator]
def _read_kernel(source, sums, BLOCK: tl.constexpr, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """A program sums up COUNT blocks and writes one number, so that all of them must be read."""
    first = tl.program_id(0).to(tl.int64) * BLOCK * COUNT
    total = tl.zeros([BLOCK], tl.float32)
    for index in range(COUNT):
        total += tl.load(source + first + index * BLOCK + tl.arange(0, BLOCK))
    tl.store(sums + tl.program_id(0), tl.sum(total, 0))


def measure(_settings: Settings) -> dict[str, float]:
    """Both rates in TB/s, medians."""
    source = torch.randn(BYTE_COUNT // 4, device="cuda")
    target = torch.empty_like(source)
    program_count = source.numel() // (BLOCK * BLOCKS_PER_PROGRAM)
    sums = torch.empty(program_count, device="cuda")

    def read() -> None:
        _read_kernel[(program_count,)](source, sums, BLOCK, BLOCKS_PER_PROGRAM, num_warps=8)

    copy_seconds = median_seconds(lambda: target.copy_(source))
    return {
        "copy_TBps": 2 * BYTE_COUNT / copy_seconds / 1e12,
        "read_TBps": BYTE_COUNT / median_seconds(read) / 1e12,
    }


def facts(_settings: Settings) -> dict[str, object]:
    """The device and the libraries, by name."""
    if not torch.cuda.is_available():
        return {"device": "", "device_count": 0, "versions": {"torch": torch.__version__}}
    import transformers

    return {
        "device": torch.cuda.get_device_name(),
        "device_count": torch.cuda.device_count(),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "triton": triton.__version__,
            "transformers": transformers.__version__,
        },
    }


def median_seconds(run: Callable[[], object], repeat_count: int = REPEAT_COUNT) -> float:
    """Time on the device of what `run` queues; each by itself, after a few that do not count."""
    seconds: list[float] = []
    for number in range(WARM_UP_COUNT + repeat_count):
        begin, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        begin.record()
        run()
        end.record()
        end.synchronize()
        if number >= WARM_UP_COUNT:
            seconds.append(begin.elapsed_time(end) / 1000)
    return statistics.median(seconds)
