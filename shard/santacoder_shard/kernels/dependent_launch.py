"""How kernels of a chain overlap on Hopper: the next one starts while this one still runs.

A kernel waits for what the kernels before it have written (`wait_for_last`), and says when the next
may start (`let_next_start`). Every program waits, so that a chain stays in order over any number of
links. With OVERLAP false, as in Triton's interpreter and on older devices, both do nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def let_next_start(OVERLAP: tl.constexpr):
    """Allow the next kernel of the stream to be launched."""
    if OVERLAP:
        gdc_launch_dependents()


@triton.jit
def wait_for_last(OVERLAP: tl.constexpr):
    """Return when the kernel before this one, and so all before it, has ended."""
    if OVERLAP:
        gdc_wait()
