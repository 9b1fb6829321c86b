"""Incomplete and damaged model folders end in one line that names the file and the fault."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
import torch
from checkpoint_refusal import refusal
from checkpoints import make_checkpoint, read_tensors, write_tensors

from santacoder_shard.checkpoint import open_checkpoint

FC = "transformer.h.0.mlp.c_fc.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "m", "b")


@pytest.mark.fault("D1")
@pytest.mark.parametrize("kept", [0, 4, 8, 100, 0.3, 0.9, -1])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, kept: float) -> None:
    file_format = "bin" if name.endswith("bin") else "safetensors"
    folder = make_checkpoint(tmp_path / "m", "b", file_format=file_format)  # type: ignore[arg-type]
    size = (folder / name).stat().st_size
    cut = int(size * kept) if isinstance(kept, float) else kept if kept >= 0 else size + kept
    os.truncate(folder / name, cut)
    assert refusal(folder).startswith(f"{name}: is cut short")


@pytest.mark.fault("D1")
def test_a_longer_file_is_refused(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as stream:
        stream.write(b"\0")
    assert refusal(folder).startswith("model.safetensors: has bytes after its last tensor")


@pytest.mark.fault("D4")
def test_missing_tensors_are_listed_five_and_counted(folder: Path) -> None:
    tensors = read_tensors(folder)
    for name in [name for name in tensors if "h.1." in name]:
        del tensors[name]
    write_tensors(folder, tensors)
    message = refusal(folder)
    assert message.startswith("model.safetensors: lacks tensors: transformer.h.1.ln_1.weight, ")
    assert message.endswith(" and 7 more")
    assert message.count("transformer.h.1") == 5


@pytest.mark.fault("D4")
@pytest.mark.parametrize("name", [FC, "transformer.h.0.attn.c_attn.weight"])
def test_a_missing_tensor_that_tells_the_layout_is_named(folder: Path, name: str) -> None:
    tensors = read_tensors(folder)
    del tensors[name]
    write_tensors(folder, tensors)
    message = refusal(folder)
    assert message.startswith("model.safetensors: ")
    assert name in message


@pytest.mark.fault("D4")
def test_a_missing_embedding_is_named(folder: Path) -> None:
    tensors = read_tensors(folder)
    del tensors["transformer.wte.weight"]
    write_tensors(folder, tensors)
    assert refusal(folder) == "model.safetensors: lacks tensors: transformer.wte.weight"


@pytest.mark.fault("D4")
def test_extra_tensors_are_listed_five_and_counted(folder: Path) -> None:
    extra = {f"transformer.h.{layer}.ln_1.weight": torch.ones(64) for layer in range(2, 9)}
    write_tensors(folder, read_tensors(folder) | extra)
    message = refusal(folder)
    assert "holds tensors of no known meaning: 'transformer.h.2.ln_1.weight', " in message
    assert message.endswith(" and 2 more")


@pytest.mark.fault("D5")
@pytest.mark.parametrize(
    "name",
    [
        FC,
        "transformer.wte.weight",
        "transformer.wpe.weight",
        "transformer.h.1.attn.c_attn.weight",
        "transformer.h.1.mlp.c_proj.weight",
        "transformer.h.1.ln_2.bias",
    ],
)
def test_a_wrong_shape_says_what_came_and_what_is_needed(folder: Path, name: str) -> None:
    tensors = read_tensors(folder)
    needed = tuple(tensors[name].shape)
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    write_tensors(folder, tensors)
    message = refusal(folder)
    assert message.startswith(f"model.safetensors: {name}: wrong shape; got ({needed[0] + 1},")
    assert str(needed) in message.partition("allowed")[2]


@pytest.mark.fault("D5")
def test_one_transposed_weight_is_a_wrong_shape(folder: Path) -> None:
    tensors = read_tensors(folder)
    name = "transformer.h.1.mlp.c_fc.weight"
    tensors[name] = tensors[name].T.contiguous()
    write_tensors(folder, tensors)
    assert f"{name}: wrong shape; got (64, 256); allowed (256, 64)" in refusal(folder)


def test_tensors_of_no_known_layout_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "b")
    tensors = read_tensors(folder)
    transposed = {
        name: tensor.T.contiguous() if ".h." in name and tensor.dim() == 2 else tensor
        for name, tensor in tensors.items()
    }
    write_tensors(folder, transposed)
    assert "no known layout stores multi-query c_attn tensors in [in, out]" in refusal(folder)


def test_two_kinds_of_attention_tensors_are_refused(folder: Path) -> None:
    extra = {"transformer.h.0.attn.attn.weight": torch.ones(96, 64)}
    write_tensors(folder, read_tensors(folder) | extra)
    assert "must hold one of" in refusal(folder)


@pytest.mark.fault("D5")
def test_a_wrong_element_type_is_named(folder: Path) -> None:
    tensors = read_tensors(folder)
    tensors[FC] = tensors[FC].double()
    write_tensors(folder, tensors)
    assert f"{FC}: wrong element type; got float64" in refusal(folder)


def test_no_weights_at_all_is_said(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights; needs model.safetensors or pytorch_model.bin" in refusal(folder)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").endswith("nowhere: is not a folder")


@pytest.mark.fault("D14")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refusal(folder) == f"{name}: is not a regular file"


@pytest.mark.fault("D14")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_to_nothing_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "gone")
    assert refusal(folder).startswith(f"{name}: cannot be read: No such file")


@pytest.mark.fault("D14")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    assert refusal(folder) == f"{name}: is a link that leaves the model's folder"


@pytest.mark.fault("D14")
def test_a_link_within_the_folder_and_one_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    snapshot = make_checkpoint(tmp_path / "models--x" / "snapshots" / ("0" * 40), "b")
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("../../blobs") / path.name)
    open_checkpoint(snapshot)
    (snapshot / "model.safetensors").unlink()
    (blobs / "model.safetensors").rename(snapshot / "weights")
    (snapshot / "model.safetensors").symlink_to("weights")
    open_checkpoint(snapshot)


@pytest.mark.fault("D13")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_disk_that_fails_is_named_with_its_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened = io.open

    def failing(path: object, *arguments: object, **options: object) -> object:
        if str(path).endswith(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(io, "open", failing)
    assert refusal(folder) == f"{name}: cannot be read: Input/output error"
