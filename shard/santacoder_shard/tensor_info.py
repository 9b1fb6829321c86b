"""What is known of a stored tensor before its values are read; it knows no file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A stored tensor's file, element type and shape."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
