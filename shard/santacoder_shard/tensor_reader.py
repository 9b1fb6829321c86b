"""Reads pieces of stored tensors, and only those pieces. It knows no layout and no ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from santacoder_shard import pickled_tensors
from santacoder_shard.errors import CheckpointError
from santacoder_shard.tensor_info import TensorInfo


@dataclass(frozen=True, slots=True)
class Piece:
    """Indices `start` up to `stop` of one dimension of a stored tensor."""

    name: str
    dimension: int
    start: int
    stop: int


class TensorReader:
    """Opens weight files when first needed and closes them all at the end of the `with`."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self._tensors = tensors
        self._slicers: dict[Path, Callable[[str], Any]] = {}
        self._open_files = contextlib.ExitStack()

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._slicers.clear()
        self._open_files.close()

    def read(self, piece: Piece) -> torch.Tensor:
        """The piece as a CPU tensor that may lie in the mapped file: copy it to keep it."""
        path = self._tensors[piece.name].path
        try:
            if path not in self._slicers:
                self._slicers[path] = self._open(path)
            stored = self._slicers[path](piece.name)
            window = slice(piece.start, piece.stop)
            part = stored[window] if piece.dimension == 0 else stored[:, window]
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path.name}: {piece.name}: cannot be read: {error}") from error
        return torch.as_tensor(part)

    def file_name(self, name: str) -> str:
        """The name of the file that holds a tensor."""
        return self._tensors[name].path.name

    def _open(self, path: Path) -> Callable[[str], Any]:
        """A function from a tensor's name to what can be sliced without reading it whole."""
        if path.suffix == ".safetensors":
            opened = self._open_files.enter_context(safe_open(path, framework="pt", device="cpu"))
            slicer: Callable[[str], Any] = opened.get_slice
            return slicer
        return pickled_tensors.load(path).__getitem__
