"""A strict pass over a safetensors header: caps, no name twice, no gaps. It reads no values."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, TypeGuard

import torch

from santacoder_shard import strict_json
from santacoder_shard.errors import CheckpointError
from santacoder_shard.tensor_info import TensorInfo

HEADER_LIMIT_BYTES = 4 << 20
TENSOR_LIMIT = 4096
DIMENSION_LIMIT = 4
# The first bytes of a zip archive (torch.save) and of the older bare pickles.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def list_tensors(path: Path) -> dict[str, TensorInfo]:
    """The tensors in the header of `path`; a CheckpointError if it is damaged or cut short."""
    header, data_bytes = _read_header(path)
    header.pop("__metadata__", None)
    if len(header) > TENSOR_LIMIT:
        raise CheckpointError(
            f"{path.name}: too many tensors; got {len(header)}; allowed up to {TENSOR_LIMIT}"
        )
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        tensors[name], span = _parse_entry(path, name, entry)
        spans.append((*span, name))
    _check_tiling(path, spans, data_bytes)
    return tensors


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header's object and how many bytes of values follow it."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            if len(start) < 8:
                raise CheckpointError(f"{path.name}: is cut short; got {file_bytes} bytes")
            (header_bytes,) = struct.unpack("<Q", start)
            if header_bytes > HEADER_LIMIT_BYTES:
                # Not before: a sound header of 1,152 bytes starts like a pickle.
                if start.startswith(PICKLE_STARTS):
                    raise CheckpointError(f"{path.name}: is a pickle, not safetensors")
                raise CheckpointError(
                    f"{path.name}: is not safetensors, or its header is too large; "
                    f"got {header_bytes} bytes; allowed up to {HEADER_LIMIT_BYTES}"
                )
            if 8 + header_bytes > file_bytes:
                raise CheckpointError(
                    f"{path.name}: is cut short in its header; "
                    f"got {file_bytes} bytes; needs at least {8 + header_bytes}"
                )
            data = stream.read(header_bytes)
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {error.strerror}") from error
    return strict_json.parse_object(data, f"{path.name}: header"), file_bytes - 8 - header_bytes


def _parse_entry(path: Path, name: str, entry: object) -> tuple[TensorInfo, tuple[int, int]]:
    where = f"{path.name}: {name[:100]!r}"
    fields = entry if isinstance(entry, dict) else {}
    dtype = fields.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where}: dtype is not supported; got {dtype!r:.40}")
    shape, offsets = fields.get("shape"), fields.get("data_offsets")
    if not _is_counts(shape) or len(shape) > DIMENSION_LIMIT:
        raise CheckpointError(f"{where}: shape is damaged; got {shape!r:.60}")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where}: data_offsets are damaged; got {offsets!r:.60}")
    info = TensorInfo(path, DTYPES[dtype], tuple(shape))
    wanted_bytes = math.prod(shape) * info.dtype.itemsize
    if offsets[1] - offsets[0] != wanted_bytes:
        raise CheckpointError(
            f"{where}: data_offsets hold {offsets[1] - offsets[0]} bytes; needs {wanted_bytes}"
        )
    return info, (offsets[0], offsets[1])


def _is_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_tiling(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """The values lie one after another and end with the file."""
    position = 0
    for start, stop, name in sorted(spans):
        if start != position:
            raise CheckpointError(
                f"{path.name}: {name!r}: starts at byte {start} of the values; needs {position}"
            )
        position = stop
    if position != data_bytes:
        problem = "is cut short" if position > data_bytes else "has bytes after its last tensor"
        raise CheckpointError(
            f"{path.name}: {problem}; got {data_bytes} bytes of values; needs {position}"
        )
