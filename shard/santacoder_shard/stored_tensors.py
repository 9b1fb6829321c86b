"""Lists the tensors in weight files, and holds an index to them; it reads no values."""

from __future__ import annotations

from collections.abc import Mapping

from santacoder_shard import pickled_tensors, safetensors_header, strict_json
from santacoder_shard.errors import CheckpointError, first_few
from santacoder_shard.tensor_info import TensorInfo
from santacoder_shard.weight_files import WeightFiles


def list_tensors(files: WeightFiles) -> dict[str, TensorInfo]:
    """Every stored tensor by its stored name; checks each file's structure and the index."""
    tensors: dict[str, TensorInfo] = {}
    for path in files.paths:
        strict_json.check_regular(path)
        read = safetensors_header if path.suffix == ".safetensors" else pickled_tensors
        for name, info in read.list_tensors(path).items():
            if name in tensors:
                raise CheckpointError(f"{path.name}: {name}: is also in {tensors[name].path.name}")
            tensors[name] = info
    if files.weight_map is not None:
        _check_index(files.main.name, files.weight_map, tensors)
    return tensors


def _check_index(
    where: str, weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo]
) -> None:
    # The index's total_size is not compared: writers count tied tensors once or twice.
    for name, file_name in weight_map.items():
        if name not in tensors:
            raise CheckpointError(f"{where}: weight_map.{name}: {file_name} lacks this tensor")
        if tensors[name].path.name != file_name:
            raise CheckpointError(
                f"{where}: weight_map.{name}: says {file_name}; it is in {tensors[name].path.name}"
            )
    extra = [name for name in tensors if name not in weight_map]
    if extra:
        raise CheckpointError(f"{where}: weight_map: lacks stored tensors: {first_few(extra)}")
