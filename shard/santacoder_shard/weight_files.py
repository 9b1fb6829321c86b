"""Finds the weight files of a folder; it refuses to open them, and needs no torch.

One file, or several with an index; safetensors where there is a choice: it needs no unpickling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from santacoder_shard import strict_json
from santacoder_shard.errors import CheckpointError

INDEX_LIMIT_BYTES = 4 << 20
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_SUFFIX = ".index.json"


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files to read, and which file an index says each tensor is in (None without an index)."""

    main: Path
    """The one weight file, or the index."""
    paths: tuple[Path, ...]
    weight_map: Mapping[str, str] | None


def find_weight_files(folder: Path) -> WeightFiles:
    """Choose the folder's weight files; a CheckpointError if none are there or the index is bad."""
    for single in SINGLE_FILES:
        path = folder / single
        if path.is_symlink() or path.exists():
            return WeightFiles(path, (path,), None)
        index = folder / (single + INDEX_SUFFIX)
        if index.is_symlink() or index.exists():
            return _read_index(index)
    wanted = " or ".join(SINGLE_FILES)
    raise CheckpointError(f"{folder}: holds no weights; needs {wanted}, or one with {INDEX_SUFFIX}")


def _read_index(index: Path) -> WeightFiles:
    where = index.name
    content = strict_json.parse_object(strict_json.read_file(index, INDEX_LIMIT_BYTES), where)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{where}: weight_map: must map tensor names to file names")
    suffix = index.name.removesuffix(INDEX_SUFFIX).rpartition(".")[2]
    for name, file_name in weight_map.items():
        # A name with a folder in it could leave the checkpoint.
        entry = f"{where}: weight_map.{name:.100}"
        plain = isinstance(file_name, str) and Path(file_name).name == file_name
        if not plain or not file_name.endswith(f".{suffix}"):
            raise CheckpointError(f"{entry}: must be a .{suffix} file here; got {file_name!r:.60}")
        if not _is_there(index.parent / file_name):
            raise CheckpointError(f"{entry}: points to {file_name:.60}: not found")
    paths = tuple(index.parent / name for name in sorted(set(weight_map.values())))
    return WeightFiles(index, paths, weight_map)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long is nobody's
        return False
