"""A product on the GPU, ready to launch: weight, what goes before and after it, and its kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from santacoder_shard.kernels.linear.tiles import Tile, choose_tile
from santacoder_shard.kernels.linear.triton_kernel import described_linear_kernel, linear_kernel
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


@dataclass(frozen=True, slots=True)
class ProductShape:
    """The sizes of a product, and what goes before and after it. Sums are cut into segments."""

    in_size: int
    out_size: int
    segment_count: int
    has_bias: bool
    activation: str
    residual: bool
    kv_size: int

    @property
    def segment_size(self) -> int:
        """How many products a segment adds."""
        return self.in_size // self.segment_count


class FewRowKernels(Protocol):
    """Kernels for few rows, which may be normalized on the way."""

    def row_limit(self, shape: ProductShape) -> int:
        """How many rows of this shape these kernels take, 0 for none."""

    def kernel(
        self, shape: ProductShape, row_count: int, is_raw: bool, out_dtype: torch.dtype
    ) -> Callable[[tuple[Any, ...]], None]:
        """The kernel for so many rows; called with the arguments that `few_rows.cu` names."""


class Product:
    """activation(rows W^T + bias); with `residual` it is added to `out`, float32.

    With `kv_size` the last 2 * kv_size columns are K and V, and go to the cache. With `few_rows`
    few rows are left to `few_rows.cu`, which gives the same bits sooner; `can_describe`: on a GPU
    that takes descriptors, of half precision.
    weight [out, in] in half precision or float32, bias float32 [out] or none.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        norm: Norm | None = None,
        *,
        overlap: bool,
        few_rows: FewRowKernels | None = None,
        can_describe: bool = False,
        segments: int = 1,
        residual: bool = False,
        activation: str = "none",
        kv_size: int = 0,
    ) -> None:
        self._norm, self._weight, self._bias = norm, weight, bias
        self._overlap, self._few_rows = overlap, few_rows
        out_size, in_size = weight.shape
        # A descriptor wants lines that begin at multiples of 16 bytes.
        self._can_describe = can_describe and in_size % 8 == 0
        self._shape = ProductShape(
            in_size, out_size, segments, bias is not None, activation, residual, kv_size
        )

    def takes_raw(self, row_count: int) -> bool:
        """Whether it can normalize so many rows itself."""
        return self._norm is not None and self._are_few(row_count)

    def _are_few(self, row_count: int) -> bool:
        return self._few_rows is not None and row_count <= self._few_rows.row_limit(self._shape)

    def tile(self, row_count: int) -> Tile:
        """The tile for so many rows, where `triton_kernel.py` serves them."""
        shape = self._shape
        sizes = (row_count, shape.out_size, shape.segment_size, shape.segment_count)
        tile = choose_tile(*sizes, self._can_describe)
        # Tiles are chosen for two bytes an element; what takes four has room for half as many.
        return tile._replace(k=max(16, tile.k * 2 // self._weight.element_size()))

    def __call__(self, rows: Rows, out: Tensor, cache: CachePlaces | None = None) -> None:
        """Write `out` [R, out], or add to it; columns for the cache go to `cache` instead."""
        # A pointer that the kernel does not use; it wants one in every place.
        none = self._weight
        norm, places = self._norm, cache or CachePlaces(none, none, none)
        bias = none if self._bias is None else self._bias
        if self._few_rows is not None and self._are_few(rows.row_count):
            kernel = self._few_rows.kernel(self._shape, rows.row_count, rows.is_raw, out.dtype)
            norm_arguments = (none, none, 0.0) if norm is None else norm
            kernel((rows.values, none, bias, out, rows.row_count, *norm_arguments, *places))
            return
        shape, tile = self._shape, self.tile(rows.row_count)
        row_tiles = triton.cdiv(rows.row_count, tile.rows)
        kernel, operands = linear_kernel, (rows.values, self._weight)
        if tile.is_described:
            kernel, operands = described_linear_kernel, _described(*operands, tile)
        kernel[(row_tiles * triton.cdiv(shape.out_size, tile.columns),)](
            *operands,
            bias,
            out,
            rows.row_count,
            *places,
            IN=shape.in_size,
            OUT=shape.out_size,
            SEGMENTS=shape.segment_count,
            HAS_BIAS=shape.has_bias,
            ACTIVATION=shape.activation,
            RESIDUAL=shape.residual,
            KV_SIZE=shape.kv_size,
            OVERLAP=self._overlap,
            BLOCK_M=tile.rows,
            BLOCK_N=tile.columns,
            BLOCK_K=tile.k,
            num_warps=tile.warps,
            num_stages=tile.stages,
            **({"launch_pdl": True} if self._overlap else {}),
        )


def _described(rows: Tensor, weight: Tensor, tile: Tile) -> tuple[TensorDescriptor, ...]:
    return (
        TensorDescriptor.from_tensor(rows, [tile.rows, tile.k]),
        TensorDescriptor.from_tensor(weight, [tile.columns, tile.k]),
    )
