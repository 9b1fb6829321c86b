"""Attention of a step on the GPU: which kernel serves how many rows, and its launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
from torch import Tensor

from santacoder_shard.geometry import Geometry
from santacoder_shard.gpu_buffers import StepBuffers, StepRows
from santacoder_shard.kernels.attention import triton_kernel as attention

if TYPE_CHECKING:
    from santacoder_shard.kernels.attention.single_rows import SingleRows

# Up to here splits are spread over the device; above, the rows alone fill it.
SPREAD_ROW_LIMIT = 32
TILE_ROWS = 4
LOG2_E = 1.4426950408889634


class GpuAttention:
    """Of the query in the buffers over one layer's cache; launches only, so it can be captured.

    heads: this rank's. single_rows: what serves single rows up to its limit, if the GPU has it.
    """

    def __init__(
        self,
        geometry: Geometry,
        heads: int,
        kv_heads: int,
        buffers: StepBuffers,
        overlap: bool,
        single_rows: SingleRows | None,
    ) -> None:
        self._heads, self._buffers, self._single_rows = heads, buffers, single_rows
        self._shape: dict[str, Any] = {
            "KV_HEADS": kv_heads,
            "GROUP": heads // kv_heads,
            "HEAD": geometry.head_size,
            "OVERLAP": overlap,
        }
        self._group_block = triton.next_power_of_2(heads // kv_heads)
        self._log2_scale = LOG2_E * geometry.head_size**-0.5
        self._launch: dict[str, Any] = {"launch_pdl": True} if overlap else {}

    def __call__(self, keys: Tensor, values: Tensor, rows: StepRows, is_decode: bool) -> None:
        """The rows' context. `is_decode`: each row is of a sequence of its own."""
        single_rows, buffers = self._single_rows, self._buffers
        if not is_decode:
            self._fold(keys, values, rows, TILE_ROWS)
        elif single_rows is not None and rows.count <= single_rows.row_limit:
            state = (rows, buffers.slots, self._log2_scale, buffers.context)
            single_rows(buffers.query, (keys, values), *state)
        elif rows.count <= SPREAD_ROW_LIMIT:
            self._spread(keys, values, rows)
        else:
            self._fold(keys, values, rows, tile_rows=1)

    def _places(self, rows: StepRows) -> tuple[Tensor, Tensor, Tensor]:
        return self._buffers.positions, rows.slots, self._buffers.slots.tables

    def _spread(self, keys: Tensor, values: Tensor, rows: StepRows) -> None:
        buffers, shape = self._buffers, self._shape
        splits = buffers.split_moments.shape[1]
        attention.split_kernel[(rows.count, shape["KV_HEADS"], splits)](
            buffers.query,
            keys,
            values,
            *self._places(rows),
            buffers.split_contexts,
            buffers.split_moments,
            self._log2_scale,
            buffers.slots.tables.shape[1],
            **shape,
            BLOCK_M=max(16, self._group_block),
            num_warps=4,
            **self._launch,
        )
        attention.merge_kernel[(rows.count, self._heads)](
            buffers.split_contexts,
            buffers.split_moments,
            buffers.positions,
            buffers.context,
            splits,
            HEADS=self._heads,
            HEAD=shape["HEAD"],
            OVERLAP=shape["OVERLAP"],
            num_warps=1,
            **self._launch,
        )

    def _fold(self, keys: Tensor, values: Tensor, rows: StepRows, tile_rows: int) -> None:
        buffers = self._buffers
        block_m = max(16, tile_rows * self._group_block)
        # Each sequence may end in a tile that is not full.
        tile_limit = triton.cdiv(rows.count, tile_rows) + len(buffers.slots.tokens)
        attention.fold_kernel[(min(rows.count, tile_limit), self._shape["KV_HEADS"])](
            buffers.query,
            keys,
            values,
            *self._places(rows),
            rows.tiles,
            buffers.context,
            self._log2_scale,
            buffers.slots.tables.shape[1],
            rows.count,
            **self._shape,
            GROUP_BLOCK=self._group_block,
            TILE_ROWS=tile_rows,
            BLOCK_M=block_m,
            num_warps=8 if block_m > 64 else 4,
            num_stages=3 if block_m == 64 else 2,
            **self._launch,
        )
