"""The paged KV cache: blocks of 16 tokens, all layers. It does not know who owns a block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from santacoder_shard.geometry import Geometry
from santacoder_shard.gpu_transfer import to_device

BLOCK_SIZE = 16


def block_bytes(geometry: Geometry, parallel_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block, K and V of all layers, on one rank."""
    elements = geometry.local_kv_head_count(parallel_size) * geometry.head_size * BLOCK_SIZE
    return 2 * geometry.layer_count * elements * dtype.itemsize


def block_count_within(
    budget_bytes: int, geometry: Geometry, parallel_size: int, dtype: torch.dtype
) -> int:
    """How many blocks the router may be given within `budget_bytes` on one rank; 0 if none fits."""
    with_scratch = budget_bytes // block_bytes(geometry, parallel_size, dtype)
    return max(0, with_scratch - 1)


class KVCache:
    """keys, values [layers, block_count + 1, 16, kv_heads, head_size]; the last block is zero."""

    def __init__(
        self,
        geometry: Geometry,
        parallel_size: int,
        block_count: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        kv_head_count = geometry.local_kv_head_count(parallel_size)
        shape = (geometry.layer_count, block_count + 1, BLOCK_SIZE, kv_head_count)
        self._keys = torch.zeros(*shape, geometry.head_size, dtype=dtype, device=device)
        self._values = torch.zeros_like(self._keys)
        self.block_count = block_count
        self.scratch_block = block_count
        self.layers: tuple[tuple[Tensor, Tensor], ...] = tuple(
            zip(self._keys.unbind(), self._values.unbind(), strict=True)
        )

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy blocks (source, target); every source is read before any target is written."""
        if not copies:
            return
        sources, targets = to_device(numpy.array(copies).T, self._keys)
        for cache in (self._keys, self._values):
            cache.index_copy_(1, targets, cache.index_select(1, sources))

    def clear_blocks(self, block_ids: Sequence[int]) -> None:
        """Zero blocks: a masked value weighs 0, but 0 times a NaN left there would be NaN."""
        if not block_ids:
            return
        index = torch.tensor(block_ids, device=self._keys.device)
        for cache in (self._keys, self._values):
            cache.index_fill_(1, index, 0.0)
