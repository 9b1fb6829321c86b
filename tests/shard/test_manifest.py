"""SHA256SUMS: a flipped bit is told by name, and files that were checked are not read again."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_refusal import refusal
from checkpoints import make_checkpoint

from santacoder_shard import manifest
from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.errors import CheckpointError
from santacoder_shard.launch import main

pytestmark = pytest.mark.fault("D2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "m")


def write_manifest(folder: Path) -> None:
    """As README says, with the tool that everybody has."""
    names = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".json", ".safetensors")
    )
    done = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    (folder / "SHA256SUMS").write_bytes(done.stdout)


def flip_bit(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x04
    path.write_bytes(data)


def test_sound_files_are_taken_and_a_folder_without_a_manifest_too(folder: Path) -> None:
    assert manifest.verify(folder) == ""
    write_manifest(folder)
    assert len(manifest.verify(folder)) == 64
    assert open_checkpoint(folder).path == folder


@pytest.mark.parametrize("place", [-1, -1000, -50_000])
def test_one_flipped_bit_of_a_weight_is_told_by_its_file(folder: Path, place: int) -> None:
    write_manifest(folder)
    flip_bit(folder / "model.safetensors", place)
    message = refusal(folder)
    assert message.startswith("model.safetensors: is not the file that SHA256SUMS names; got SHA-")


def test_without_the_manifest_nobody_sees_it(folder: Path) -> None:
    """The control: it is the manifest, and nothing else, that tells."""
    flip_bit(folder / "model.safetensors", -1000)
    open_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_every_file_that_is_loaded_is_held_to_it(folder: Path, name: str) -> None:
    write_manifest(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    assert refusal(folder).startswith(f"{name}: is not the file that SHA256SUMS names")


def test_the_launcher_says_it_before_anything_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(folder)
    flip_bit(folder / "model.safetensors", -1)
    assert main([f"--model={folder}"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: model.safetensors: is not the file that ")


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "lacks files that are loaded: config.json, model.safetensors, "),
    "a line less": (lambda sound: sound[: sound.index(b"\n") + 1], "lacks files that are loaded"),
    "no digests": (lambda _: b"hello\n", "line 1: is not a line of sha256sum; got 'hello'"),
    "no text": (lambda sound: b"\xff" + sound, "is not text"),
    "a path": (lambda sound: sound + b"0" * 64 + b"  ../x\n", "is not a line of sha256sum"),
    "twice": (
        lambda sound: sound + b"0" * 64 + b"  config.json\n",
        "line 4: names 'config.json' twice",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_manifest_that_is_wrong_is_one_line(folder: Path, damage: str) -> None:
    write_manifest(folder)
    change, message = DAMAGES[damage]
    path = folder / "SHA256SUMS"
    path.write_bytes(change(path.read_bytes()))
    assert message in refusal(folder)


def test_what_was_checked_is_not_read_again_until_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(folder)
    known = manifest.verify(folder)
    read: list[str] = []
    digest: Callable[..., Any] = hashlib.file_digest

    def watched(stream: Any, name: str) -> Any:
        read.append(Path(stream.name).name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", watched)
    assert manifest.verify(folder, known) == known
    assert read == []
    os.utime(folder / "config.json")
    assert manifest.verify(folder, known) != known
    assert set(read) == {"config.json", "model.safetensors", "tokenizer.json"}
    flip_bit(folder / "model.safetensors", -1)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is not the file"):
        manifest.verify(folder, known)


def test_another_folder_with_equal_files_is_read_for_itself(folder: Path, tmp_path: Path) -> None:
    write_manifest(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert manifest.verify(copy) != manifest.verify(folder)
