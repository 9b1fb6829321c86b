"""Attention of single rows on Hopper: sizes that `single_rows.cu` is compiled for, its launch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from santacoder_shard.cuda_program import CudaKernel
from santacoder_shard.geometry import Geometry
from santacoder_shard.gpu_buffers import SlotState, StepRows

THREADS = 128
_SPLIT = 64


class Spread(NamedTuple):
    """Up to `row_limit` rows, of one KV head, take `cluster` blocks each.

    These bring `buffers` splits ahead.
    """

    row_limit: int
    cluster: int
    buffers: int


# Few rows want blocks; more fill the device by themselves, and want to be brought ahead.
SPREADS = (Spread(16, 8, 2), Spread(132, 1, 5), Spread(256, 1, 2))


class SingleRows:
    """For one geometry and type of the cache; compiled when first wanted. Raises CudaError."""

    row_limit = SPREADS[-1].row_limit

    def __init__(self, geometry: Geometry, kv_heads: int, heads: int, dtype: torch.dtype) -> None:
        self._kv_heads, self._group = kv_heads, heads // kv_heads
        self._head_size, self._dtype = geometry.head_size, dtype
        self._split_limit = -(-geometry.context_token_count // _SPLIT)
        self._kernels: dict[Spread, CudaKernel] = {}

    def is_supported(self) -> bool:
        """Whether a tile of 16 query heads holds a group, and a warp has dimensions enough."""
        return self._group <= 16 and self._head_size in (64, 128)

    def __call__(
        self,
        query: Tensor,
        cache: tuple[Tensor, Tensor],
        rows: StepRows,
        slots: SlotState,
        log2_scale: float,
        out: Tensor,
    ) -> None:
        """out [rows, heads * head_size]: attention of `query`, like it, over one layer's cache."""
        head_rows = rows.count * self._kv_heads
        spread = next((one for one in SPREADS if head_rows <= one.row_limit), SPREADS[-1])
        if spread not in self._kernels:
            self._kernels[spread] = self._compile(spread)
        row_words = (rows.slots, rows.tokens, rows.positions, rows.limits)
        slot_words = (slots.positions, slots.ended, slots.tables, slots.tables.shape[1])
        self._kernels[spread](
            (spread.cluster, self._kv_heads, rows.count),
            THREADS,
            (query, *cache, *row_words, *slot_words, log2_scale, out),
            spread.cluster,
        )

    def _compile(self, spread: Spread) -> CudaKernel:
        definitions = {
            "KV_HEADS": self._kv_heads,
            "GROUP": self._group,
            "HEAD": self._head_size,
            "SPLIT_LIMIT": self._split_limit,
            "CLUSTER": spread.cluster,
            "BUFFERS": spread.buffers,
            "BFLOAT16": int(self._dtype == torch.bfloat16),
        }
        piece_bytes = self._head_size * 2 + 16
        split_bytes = 2 * _SPLIT * piece_bytes
        # A split's result: contexts and moments of 16 heads, float32.
        result_bytes = 16 * (self._head_size + 2) * 4
        results = -(-self._split_limit // spread.cluster) if spread.cluster > 1 else 1
        own_bytes = 16 * (piece_bytes + _SPLIT * 2 + 16) + 4 * 16 * 4
        shared_bytes = spread.buffers * split_bytes + own_bytes + results * result_bytes
        return CudaKernel("attention/single_rows.cu", "single_rows", definitions, shared_bytes)
