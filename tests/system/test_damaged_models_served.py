"""A service whose model's files are wrong ends with exit code 3 and one line that says what is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint, read_tensors, write_tensors
from running_service import Service

BIAS = "transformer.h.1.mlp.c_fc.bias"
SECOND_FILE = "model-00002-of-00002.safetensors"


def missing_tensor(folder: Path) -> str:
    tensors = read_tensors(folder)
    del tensors[BIAS]
    write_tensors(folder, tensors)
    return f"lacks tensors: {BIAS}"


def extra_tensor(folder: Path) -> str:
    write_tensors(folder, read_tensors(folder) | {"transformer.h.1.rotary": torch.zeros(4)})
    return "'transformer.h.1.rotary'"


def wrong_shape(folder: Path) -> str:
    tensors = read_tensors(folder)
    tensors[BIAS] = tensors[BIAS][:-1].clone()
    write_tensors(folder, tensors)
    return f"{BIAS}: wrong shape"


def truncated_file(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return "model.safetensors: "


def index_pointing_nowhere(folder: Path) -> str:
    tensors = read_tensors(folder)
    (folder / "model.safetensors").unlink()
    write_tensors(folder, tensors, shards=2)
    (folder / SECOND_FILE).unlink()
    return SECOND_FILE


def wrong_config(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_head": 0}))
    return "config.json: n_head"


def empty_folder(folder: Path) -> str:
    for path in folder.iterdir():
        path.unlink()
    return "config.json: "


def missing_folder(folder: Path) -> str:
    empty_folder(folder)
    folder.rmdir()
    return f"model: is not a folder; got '{folder}'"


DAMAGES: tuple[Callable[[Path], str], ...] = (
    missing_tensor,
    extra_tensor,
    wrong_shape,
    truncated_file,
    index_pointing_nowhere,
    wrong_config,
    empty_folder,
    missing_folder,
)


@pytest.mark.fault("D1", "D4", "D5", "D6", "D15")
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_exit_code_3_and_one_line_that_names_it(
    tmp_path: Path, run_folders: Path, damage: Callable[[Path], str]
) -> None:
    folder = make_checkpoint(tmp_path / "m", vocabulary=400)
    named = damage(folder)
    before = set(run_folders.iterdir())
    service = Service(folder, run_folders)
    code, out, err = service.end()
    service.close()
    assert (code, out) == (3, ""), err
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert named in line
    assert "Traceback" not in err
    assert set(run_folders.iterdir()) <= before


@pytest.mark.fault("D4")
def test_two_ranks_that_both_see_the_damage_end_as_one_does(
    tmp_path: Path, run_folders: Path
) -> None:
    folder = make_checkpoint(tmp_path / "m")
    named = missing_tensor(folder)
    service = Service(folder, run_folders, "--tp=2")
    code, out, err = service.end()
    service.close()
    assert (code, out) == (3, ""), err
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert named in line
    assert "Traceback" not in err
