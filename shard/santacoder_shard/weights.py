"""Fills one rank's model from a checkpoint of any layout, reading only that rank's slices.

Layout differences end here: what leaves is the canonical form that model.py names. It refuses to
know how layouts and files differ.
"""

from __future__ import annotations

import torch
from accelerate import init_empty_weights

from santacoder_shard.checkpoint import Checkpoint
from santacoder_shard.errors import CheckpointError
from santacoder_shard.model import SantaCoder
from santacoder_shard.recipes import Recipe, make_recipes
from santacoder_shard.tensor_reader import TensorReader

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_dtype(requested: str, device_type: str, stored: torch.dtype) -> torch.dtype:
    """The weights' element type for `--dtype` (auto, float32, float16, bfloat16).

    auto is float32 on a CPU. On a GPU it is the file's own half precision, and float16 for float32.
    """
    if requested != "auto":
        return DTYPES[requested]
    if device_type == "cpu":
        return torch.float32
    return torch.bfloat16 if stored == torch.bfloat16 else torch.float16


def load_model(
    checkpoint: Checkpoint, rank: int, size: int, dtype: torch.dtype, device: torch.device
) -> SantaCoder:
    """The model of rank `rank` of `size`, its weights in private memory on `device`.

    Raises ParallelSizeError if the sizes do not divide, CheckpointError if values are unusable.
    """
    recipes = make_recipes(checkpoint.layout, checkpoint.geometry, rank, size)
    with init_empty_weights():
        model = SantaCoder(checkpoint.geometry, size, dtype)
    tensors: dict[str, torch.Tensor] = {}
    with TensorReader(checkpoint.tensors) as reader:
        for name, parameter in model.named_parameters():
            tensor = read_parameter(reader, recipes[name], parameter.shape, dtype)
            tensors[name] = tensor.to(device)
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(False).eval()


def read_parameter(
    reader: TensorReader, recipe: Recipe, shape: torch.Size, dtype: torch.dtype
) -> torch.Tensor:
    """Copy a recipe's pieces into a new CPU tensor of `shape`; it does not keep the file mapped."""
    target = torch.empty(shape, dtype=dtype)
    row = 0
    for piece in recipe.pieces:
        part = reader.read(piece)
        if recipe.twin is not None and not torch.equal(part, reader.read(recipe.twin)):
            raise CheckpointError(
                f"{reader.file_name(piece.name)}: {piece.name} and {recipe.twin.name} differ; "
                "the head must be tied to the embedding"
            )
        part = part.T if recipe.is_transposed else part
        target[row : row + part.shape[0]].copy_(part)
        row += part.shape[0]
    if not _is_finite(target):
        raise _not_finite(reader, recipe, dtype)
    return target


def _is_finite(tensor: torch.Tensor) -> bool:
    # The extremes carry NaN along and need no second tensor of this size.
    lowest, highest = torch.aminmax(tensor)
    return bool(torch.isfinite(lowest) and torch.isfinite(highest))


def _not_finite(reader: TensorReader, recipe: Recipe, dtype: torch.dtype) -> CheckpointError:
    for piece in recipe.pieces:
        if not _is_finite(reader.read(piece)):
            return CheckpointError(
                f"{reader.file_name(piece.name)}: {piece.name}: holds NaN or infinity"
            )
    piece, wanted = recipe.pieces[0], str(dtype).removeprefix("torch.")
    return CheckpointError(
        f"{reader.file_name(piece.name)}: {piece.name}: does not fit {wanted}; use --dtype float32"
    )
