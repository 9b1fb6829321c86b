"""Reads pytorch_model.bin files of tensors alone; it refuses to run anything that they hold.

The original SantaCoder checkpoint ships nothing else. Values stay in the file until they are used.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch

from santacoder_shard.errors import CheckpointError
from santacoder_shard.tensor_info import TensorInfo


def load(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of `path`, mapped from the file; tied tensors share a storage."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path.name}: is cut short or not written by torch.save; "
            "needs a zip archive of tensors, or model.safetensors"
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path.name}: holds more than tensors and was not run; "
            "needs a file of tensors alone, or model.safetensors"
        ) from error
    except Exception as error:
        # A damaged archive can make the reader raise anything; none of it is ours.
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path.name}: is damaged: {reason:.120}") from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path.name}: must hold a mapping of names to tensors")
    for name, tensor in tensors.items():
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not isinstance(name, str) or not plain or tensor.device.type != "cpu":
            raise CheckpointError(f"{path.name}: {name!r:.100}: is not a plain tensor")
    return dict(tensors)


def list_tensors(path: Path) -> dict[str, TensorInfo]:
    """The tensors of `path` without their values."""
    return {
        name: TensorInfo(path, tensor.dtype, tuple(tensor.shape))
        for name, tensor in load(path).items()
    }
