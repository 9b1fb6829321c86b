"""Pickles that hold more than tensors are refused, and nothing of them runs."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_refusal import refusal
from checkpoints import make_checkpoint, read_tensors


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.trace}",))


def hostile_archive(path: Path, trace: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A real torch archive whose pickle carries one thing more."""
    torch.save(tensors | {"transformer.extra": Hostile(trace)}, path)


@pytest.mark.fault("D10")
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a", file_format="bin")
    path, trace = folder / "pytorch_model.bin", tmp_path / "trace"
    hostile_archive(path, trace, read_tensors(folder))
    message = refusal(folder)
    assert message.startswith("pytorch_model.bin: holds more than tensors and was not run")
    assert "model.safetensors" in message
    assert not trace.exists()
    # The file does what it threatens where it is trusted.
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.fault("D10")
def test_a_bare_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a", file_format="bin")
    trace = tmp_path / "trace"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(trace)))
    assert refusal(folder).startswith("pytorch_model.bin: is cut short or not written by torch")
    assert not trace.exists()


@pytest.mark.fault("D10")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([torch.ones(2)], "must hold a mapping of names to tensors"),
        ({"model": {"transformer.wte.weight": torch.ones(2)}}, "'model': is not a plain tensor"),
        ({3: torch.ones(2)}, "3: is not a plain tensor"),
        ({"x": torch.ones(2, 2).to_sparse()}, "'x': is not a plain tensor"),
        ({"x": torch.ones(2, device="meta")}, "'x': is not a plain tensor"),
    ],
    ids=["list", "nested", "number", "sparse", "meta"],
)
def test_a_pickle_of_something_else_is_refused(
    tmp_path: Path, content: object, problem: str
) -> None:
    folder = make_checkpoint(tmp_path / "m", "a", file_format="bin")
    torch.save(content, folder / "pytorch_model.bin")
    assert refusal(folder) == f"pytorch_model.bin: {problem}"


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a", file_format="bin")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("archive/data.pkl", b"\x80\x02garbage")
        stream.writestr("archive/version", b"3\n")
    (folder / "pytorch_model.bin").write_bytes(archive.getvalue())
    assert refusal(folder).startswith("pytorch_model.bin: ")
