"""A product on the GPU, ready to launch: weight, what goes before and after it, and its tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
from torch import Tensor

from santacoder_shard.kernels.linear.tiles import Tile, choose_tile
from santacoder_shard.kernels.linear.triton_kernel import linear_kernel
from santacoder_shard.kernels.norm.triton_kernel import MOMENT_WARPS
from santacoder_shard.kernels.norm_linear.reference import Norm


class Rows(NamedTuple):
    """The first `row_count` of `values` [R, in]; with `is_raw` the product normalizes them first.

    values: in the weight's type, or float32 with `is_raw`.
    """

    values: Tensor
    row_count: int
    is_raw: bool = False


class CachePlaces(NamedTuple):
    """Where K and V go: a layer's cache, and int64 [R] places in it, below 0 for nowhere."""

    keys: Tensor
    values: Tensor
    places: Tensor


class Product:
    """activation(rows W^T + bias); with `residual` it is added to `out`, float32.

    With `kv_size` the last 2 * kv_size columns are K and V, and go to the cache.
    weight [out, in] in half precision or float32, bias float32 [out] or none.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        norm: Norm | None = None,
        *,
        overlap: bool,
        segments: int = 1,
        residual: bool = False,
        activation: str = "none",
        kv_size: int = 0,
    ) -> None:
        self._norm = norm
        self._weight, self._bias, self._segments = weight, bias, segments
        self._overlap = overlap
        self._out_size, self._in_size = weight.shape
        self._shape: dict[str, Any] = {
            "IN": self._in_size,
            "OUT": self._out_size,
            "SEGMENTS": segments,
            "HAS_BIAS": bias is not None,
            "ACTIVATION": activation,
            "RESIDUAL": residual,
            "KV_SIZE": kv_size,
            "NORM_BLOCK": triton.next_power_of_2(self._in_size),
            "OVERLAP": overlap,
        }

    def tile(self, row_count: int) -> Tile:
        """The tile for so many rows."""
        segment_size = self._in_size // self._segments
        tile = choose_tile(row_count, self._out_size, segment_size, self._segments)
        # Tiles are chosen for two bytes an element; what takes four has room for half as many.
        return tile._replace(k=max(16, tile.k * 2 // self._weight.element_size()))

    def __call__(self, rows: Rows, out: Tensor, cache: CachePlaces | None = None) -> None:
        """Write `out` [R, out], or add to it; columns for the cache go to `cache` instead."""
        tile = self.tile(rows.row_count)
        if rows.is_raw:
            # Their float32 tiles take twice the room of what they become.
            tile = tile._replace(k=min(tile.k, 128), warps=MOMENT_WARPS)
        # A pointer that the kernel does not use; it wants one in every place.
        none = self._weight
        norm, places = self._norm, cache or CachePlaces(none, none, none)
        grid = (triton.cdiv(rows.row_count, tile.rows) * triton.cdiv(self._out_size, tile.columns),)
        linear_kernel[grid](
            rows.values,
            self._weight,
            none if self._bias is None else self._bias,
            out,
            rows.row_count,
            none if norm is None else norm.weight,
            none if norm is None else norm.bias,
            0.0 if norm is None else norm.epsilon,
            *places,
            **self._shape,
            NORM_ROWS=rows.row_count if rows.is_raw else 0,
            BLOCK_M=tile.rows,
            BLOCK_N=tile.columns,
            BLOCK_K=tile.k,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **({"launch_pdl": True} if self._overlap else {}),
        )
