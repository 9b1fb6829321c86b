"""An index that does not fit its files ends in one line that names the entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_refusal import refusal
from checkpoints import make_checkpoint, read_tensors
from safetensors.torch import save_file

FC = "transformer.h.0.mlp.c_fc.weight"


@pytest.fixture(params=["safetensors", "bin"])
def sharded(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return make_checkpoint(tmp_path / "s", "b", shards=3, file_format=request.param)


def index_of(folder: Path) -> Path:
    return next(folder.glob("*.index.json"))


def edit_index(folder: Path, **changes: object) -> str:
    """Point tensors elsewhere; None takes the entry out. Returns the index's name."""
    index = json.loads(index_of(folder).read_text())
    index["weight_map"] |= changes
    for name in [name for name, value in changes.items() if value is None]:
        del index["weight_map"][name]
    index_of(folder).write_text(json.dumps(index))
    return index_of(folder).name


@pytest.mark.fault("D6")
def test_an_index_that_points_nowhere_names_entry_and_file(sharded: Path) -> None:
    shard = json.loads(index_of(sharded).read_text())["weight_map"][FC]
    (sharded / shard).unlink()
    message = refusal(sharded)
    assert message.startswith(f"{index_of(sharded).name}: weight_map.transformer.")
    assert message.endswith(f": points to {shard}: not found")


@pytest.mark.fault("D6")
def test_an_index_entry_in_the_wrong_file_is_named(sharded: Path) -> None:
    weight_map = json.loads(index_of(sharded).read_text())["weight_map"]
    right = weight_map[FC]
    wrong = next(name for name in weight_map.values() if name != right)
    name = edit_index(sharded, **{FC: wrong})
    assert refusal(sharded) == f"{name}: weight_map.{FC}: says {wrong}; it is in {right}"


@pytest.mark.fault("D6")
def test_an_index_entry_of_no_tensor_is_named(sharded: Path) -> None:
    file_name = json.loads(index_of(sharded).read_text())["weight_map"][FC]
    name = edit_index(sharded, **{"transformer.h.9.x": file_name})
    expected = f"{name}: weight_map.transformer.h.9.x: {file_name} lacks this tensor"
    assert refusal(sharded) == expected


@pytest.mark.fault("D6")
def test_a_tensor_that_the_index_lacks_is_named(sharded: Path) -> None:
    name = edit_index(sharded, **{FC: None})
    assert refusal(sharded) == f"{name}: weight_map: lacks stored tensors: {FC}"


@pytest.mark.fault("D6")
@pytest.mark.parametrize(
    "value", ["../outside", "/etc/passwd", "sub/model.safetensors", "config.json", "", ".", 3, []]
)
def test_an_index_cannot_leave_the_folder(sharded: Path, value: object) -> None:
    name = edit_index(sharded, **{FC: value})
    assert refusal(sharded).startswith(f"{name}: weight_map.{FC}: must be a .")


@pytest.mark.parametrize("stem", ["x" * 300, "zero\0byte", "gone"])
def test_a_name_that_no_file_can_have_is_not_found(sharded: Path, stem: str) -> None:
    suffix = index_of(sharded).name.removesuffix(".index.json").rpartition(".")[2]
    name = edit_index(sharded, **{FC: f"{stem}.{suffix}"})
    message = refusal(sharded)
    assert message.startswith(f"{name}: weight_map.{FC}: points to ")
    assert message.endswith(": not found")


@pytest.mark.fault("D6")
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_a_damaged_index_is_named(sharded: Path, text: str) -> None:
    index_of(sharded).write_text(text)
    assert refusal(sharded).startswith(f"{index_of(sharded).name}: ")


def test_a_tensor_in_two_files_is_named(sharded: Path) -> None:
    files = sorted(sharded.glob("*-of-*"))
    both = read_tensors(sharded)
    keep = index_of(sharded).read_bytes()
    weight_map = json.loads(keep)["weight_map"]
    owner = sharded / weight_map[FC]
    other = next(path for path in files if path != owner)
    part = {name: both[name].clone() for name, file in weight_map.items() if file == other.name}
    if other.suffix == ".bin":
        torch.save(part | {FC: both[FC].clone()}, other)
    else:
        save_file(part | {FC: both[FC].clone()}, other)
    assert f"{FC}: is also in " in refusal(sharded)
