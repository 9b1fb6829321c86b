"""Products of few rows on Hopper: the sizes that `few_rows.cu` is compiled for, and its launch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from santacoder_shard.cuda_program import CudaKernel
from santacoder_shard.kernels.linear.launch import ProductShape

# More rows gain nothing over `triton_kernel.py`. A block normalizes these itself.
ROW_COUNTS = (1, 2, 4)
_WIDE = 8192
_BARRIER_BYTES, _STAGE_LIMIT = 256, 16


class Block(NamedTuple):
    """What a block takes of a multiprocessor, which should hold one of each kind at a time.

    Of 228 KiB of shared memory 1 KiB a block is the system's.
    """

    threads: int
    registers: int
    producer_warps: int
    shared_bytes: int
    least_shared_bytes: int
    whole_rows_bytes: int


# Two of these do not fit for their shared memory.
DEEP_BLOCK = Block(256, 96, 4, 150 << 10, 115 << 10, 34 << 10)
# Two of these do not fit for their registers: more than 32 for each of 1,024 threads.
BROAD_BLOCK = Block(1024, 40, 8, 76 << 10, 0, 9 << 10)


class FewRows:
    """The kernel for at most `row_limit` rows of one shape; with `is_raw` they are normalized."""

    def __init__(
        self,
        shape: ProductShape,
        row_limit: int,
        is_raw: bool,
        weight_dtype: torch.dtype,
        out_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        # A layer's products alternate: attn_qkv and mlp_fc in the one kind, those that add to the
        # residual stream in the other.
        block = BROAD_BLOCK if shape.residual else DEEP_BLOCK
        units = _units(shape)
        tile_count = shape.out_size // (units * 16)
        self._grid = _block_count(tile_count, shape.segment_count, device)
        self._threads = block.threads
        rows_bytes = row_limit * (shape.in_size * 2 + 16)
        is_whole = is_raw or rows_bytes <= block.whole_rows_bytes
        chunk = next(k for k in (128 if units > 2 else 256, 128, 64, 32) if _splits(shape, k))
        pieces = (units * 16 + (0 if is_whole else row_limit)) * shape.segment_count
        stage_bytes = pieces * (chunk * 2 + 16)
        # Behind the ring: whole rows, then what warps exchange: sums for the norm, or of a segment.
        other_bytes = _BARRIER_BYTES + (rows_bytes if is_whole else 0)
        other_bytes += max(64 * row_limit, units * -(-row_limit // 8) * 512)
        steps = shape.segment_size // chunk * -(-tile_count // self._grid)
        room = (block.shared_bytes - other_bytes) // stage_bytes
        stages = max(2, min(_STAGE_LIMIT, steps, room))
        definitions = {
            "IN": shape.in_size,
            "OUT": shape.out_size,
            "SEGMENTS": shape.segment_count,
            "UNITS": units,
            "CHUNK": chunk,
            "STAGES": stages,
            "THREADS": block.threads,
            "REGISTERS": block.registers,
            "PRODUCER_WARPS": block.producer_warps,
            "ROWS": row_limit,
            "WHOLE": int(is_whole),
            "NORM": int(is_raw),
            "HAS_BIAS": int(shape.has_bias),
            "GELU_TANH": int(shape.activation == "gelu_tanh"),
            "RESIDUAL": int(shape.residual),
            "FLOAT_OUT": int(out_dtype == torch.float32),
            "KV_SIZE": shape.kv_size,
            "BFLOAT16": int(weight_dtype == torch.bfloat16),
        }
        shared_bytes = max(other_bytes + stages * stage_bytes, block.least_shared_bytes)
        self._kernel = CudaKernel("linear/few_rows.cu", "few_rows", definitions, shared_bytes)

    def __call__(self, arguments: tuple[Any, ...]) -> None:
        """Launch with the arguments that `few_rows.cu` names."""
        self._kernel((self._grid, 1, 1), self._threads, arguments)


class CudaFewRowKernels:
    """The kernels of a model, compiled when first wanted: layers of one shape share them."""

    def __init__(self, weight_dtype: torch.dtype, device: torch.device) -> None:
        self._weight_dtype, self._device = weight_dtype, device
        self._kernels: dict[tuple[Any, ...], FewRows] = {}

    def row_limit(self, shape: ProductShape) -> int:
        """How many rows of this shape these kernels take, 0 for none."""
        wanted_in = 32 * shape.segment_count
        fits = shape.in_size % wanted_in == 0 and shape.out_size % 16 == 0
        if not fits or shape.activation == "gelu_erf":
            return 0
        return ROW_COUNTS[-1]

    def kernel(
        self, shape: ProductShape, row_count: int, is_raw: bool, out_dtype: torch.dtype
    ) -> FewRows:
        """The kernel for so many rows; at most `row_limit`. Raises CudaError."""
        limit = next(count for count in ROW_COUNTS if row_count <= count)
        key = (shape, limit, is_raw, out_dtype)
        if key not in self._kernels:
            self._kernels[key] = FewRows(
                shape, limit, is_raw, self._weight_dtype, out_dtype, self._device
            )
        return self._kernels[key]


def _units(shape: ProductShape) -> int:
    """How many times 16 columns a block takes: as many blocks as there are multiprocessors, or so.

    More blocks than that would be left over to a second round.
    """
    if shape.residual:
        return 1
    units = 4 if shape.out_size >= _WIDE else 2
    return next(count for count in (units, 2, 1) if shape.out_size % (16 * count) == 0)


def _splits(shape: ProductShape, chunk: int) -> bool:
    return shape.segment_size % chunk == 0


def _block_count(tile_count: int, segment_count: int, device: torch.device) -> int:
    """A block a tile, or, where that would be many, a block a multiprocessor that takes several."""
    device_count = torch.cuda.get_device_properties(device).multi_processor_count
    # Warps that pass on a segment's sums end with their tile.
    if segment_count > 1:
        return tile_count
    return min(tile_count, device_count)
