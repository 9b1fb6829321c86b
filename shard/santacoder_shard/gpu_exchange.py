"""What the ranks of a group exchange in a step on the GPU; alone, nothing.

Ranks give their parts in float32, and every rank adds them in rank order: two ranks' parts are the
two segments of one rank's sum, so that two ranks give the bits of one.
"""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from santacoder_shard.gpu_buffers import StepBuffers
from santacoder_shard.kernels.exchange.triton_kernel import add_parts_kernel
from santacoder_shard.kernels.linear.launch import Product, Rows
from santacoder_shard.parallel import Parallel


class GpuExchange:
    """Launches only, so it can be captured; every rank makes the same calls in the same order."""

    def __init__(self, parallel: Parallel, buffers: StepBuffers) -> None:
        self._parallel, self._buffers = parallel, buffers
        self.is_alone = parallel.size == 1

    def add(self, product: Product, rows: Rows, bias: Tensor) -> None:
        """hidden += product(rows) + bias, summed over the ranks. Alone, the product does it all."""
        buffers = self._buffers
        if self.is_alone:
            product(rows, buffers.hidden)
            return
        product(rows, buffers.part)
        self._add_parts(rows.row_count, bias)

    def add_embedded(self, row_count: int) -> None:
        """hidden += the token's row, which one rank has, all others having zeros."""
        if not self.is_alone:
            self._add_parts(row_count, None)

    def gather_logits(self, count: int) -> None:
        """Every rank's columns side by side, on every rank."""
        if self.is_alone:
            return
        buffers, size = self._buffers, self._parallel.size
        width = buffers.local_logits.shape[1]
        gathered = buffers.gathered_logits[: size * count * width].view(size, count, width)
        self._parallel.gather_into(gathered, buffers.local_logits[:count])
        buffers.logits[:count].view(count, size, width).copy_(gathered.transpose(0, 1))

    def _add_parts(self, row_count: int, bias: Tensor | None) -> None:
        buffers, size = self._buffers, self._parallel.size
        width = buffers.hidden.shape[1]
        parts = buffers.parts[: size * row_count * width].view(size, row_count, width)
        self._parallel.gather_into(parts, buffers.part[:row_count])
        # No overlap: what is before it is the library's, and does not say when it has ended.
        launch: Any = add_parts_kernel[(row_count,)]
        launch(
            parts,
            buffers.hidden if bias is None else bias,
            buffers.hidden,
            row_count,
            SIZE=width,
            BLOCK=triton.next_power_of_2(width),
            RANKS=size,
            HAS_BIAS=bias is not None,
        )
