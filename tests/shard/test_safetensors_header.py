"""Damaged and hostile safetensors headers end in one line, quickly."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_refusal import refusal
from checkpoints import make_checkpoint, read_tensors, write_tensors

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.errors import CheckpointError

FC = "transformer.h.0.mlp.c_fc.weight"
Header = dict[str, Any]


def edit_header(path: Path, edit: Callable[[Header], Header]) -> None:
    """Rewrite a safetensors header and leave the values as they are."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.dumps(edit(json.loads(data[8 : 8 + size]))).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])


def write_header(path: Path, header: bytes, values: bytes = b"") -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "m", "b")


@pytest.mark.fault("D7")
def test_a_header_key_that_appears_twice_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + size].rstrip()
    entry = json.dumps({FC: json.loads(header)[FC]})[1:-1].encode()
    write_header(path, header[:-1] + b"," + entry + b"}", data[8 + size :])
    assert refusal(folder) == f"model.safetensors: header: the key '{FC}' appears twice"


@pytest.mark.fault("D8")
@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"[" * 4_000_000, "header: is nested too deeply"),
        (b" " * ((4 << 20) + 1), "its header is too large"),
        (
            json.dumps(
                {
                    str(number): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
                    for number in range(5000)
                }
            ).encode(),
            "too many tensors; got 5000; allowed up to 4096",
        ),
        (b"{" + b",".join(b'"x":1' for _ in range(600_000)) + b"}", "appears twice"),
    ],
    ids=["deep", "large", "many", "one key often"],
)
def test_a_header_bomb_is_refused_quickly(folder: Path, header: bytes, problem: str) -> None:
    write_header(folder / "model.safetensors", header)
    started = time.perf_counter()
    assert problem in refusal(folder)
    assert time.perf_counter() - started < 20.0


@pytest.mark.fault("D3")
@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"dtype": "F12"}, "dtype is not supported; got 'F12'"),
        ({"dtype": ["F32"]}, "dtype is not supported"),
        ({"shape": [256, -64]}, "shape is damaged"),
        ({"shape": [256.0, 64]}, "shape is damaged"),
        ({"shape": "x" * 10_000}, "shape is damaged"),
        ({"shape": [1, 1, 1, 256, 64]}, "shape is damaged"),
        ({"shape": [256, 63]}, "data_offsets hold 65536 bytes; needs 64512"),
        ({"data_offsets": [0]}, "data_offsets are damaged"),
        ({"data_offsets": [0, 1 << 60]}, "data_offsets hold"),
        ({"data_offsets": [8, 65544]}, "of the values; needs"),
    ],
)
def test_a_damaged_header_entry_is_named(folder: Path, entry: Header, problem: str) -> None:
    path = folder / "model.safetensors"
    edit_header(path, lambda header: header | {FC: header[FC] | entry})
    message = refusal(folder)
    assert message.startswith("model.safetensors: ")
    assert problem in message


@pytest.mark.fault("D3")
def test_no_flipped_byte_of_a_header_ends_in_a_traceback(folder: Path) -> None:
    path = folder / "model.safetensors"
    sound = path.read_bytes()
    (size,) = struct.unpack("<Q", sound[:8])
    for place in range(0, 8 + size, 7):
        damaged = bytearray(sound)
        damaged[place] ^= 0x20
        path.write_bytes(damaged)
        try:
            open_checkpoint(folder)
        except CheckpointError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("size", [0x0280, 0x0480, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_is_read(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    tensors = read_tensors(folder)
    write_tensors(folder, {name: tensors[name] for name in ("transformer.ln_f.weight",)})
    data = path.read_bytes()
    (old_size,) = struct.unpack("<Q", data[:8])
    write_header(path, data[8 : 8 + old_size].ljust(size), data[8 + old_size :])
    assert "must hold one of" in refusal(folder)


@pytest.mark.fault("D10")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_renamed_to_safetensors_is_said_to_be_one(folder: Path, zipped: bool) -> None:
    path = folder / "model.safetensors"
    torch.save(read_tensors(folder), path, _use_new_zipfile_serialization=zipped)
    assert refusal(folder) == "model.safetensors: is a pickle, not safetensors"
