"""What a folder is, told from its files: layouts apart, configs not trusted, equal files equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import (
    LAYOUTS,
    Layout,
    make_checkpoint,
    read_tensors,
    tokenizer_json,
    write_tensors,
)

from santacoder_shard.checkpoint import Checkpoint, open_checkpoint
from santacoder_shard.errors import CheckpointError


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(tensors: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_its_sizes_read(tmp_path: Path, layout: Layout) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, heads=4, embd=32, inner=96, positions=64)
    checkpoint = open_checkpoint(folder)
    geometry = checkpoint.geometry
    assert checkpoint.layout.letter == layout
    assert (geometry.layer_count, geometry.head_count, geometry.head_size) == (2, 4, 8)
    assert geometry.kv_head_count == (4 if layout in ("a'", "b'") else 1)
    assert (geometry.embedding_size, geometry.inner_size) == (32, 96)
    assert (geometry.context_token_count, geometry.vocabulary_size) == (64, 400)
    assert geometry.activation == ("gelu_erf" if layout == "d" else "gelu_tanh")
    assert (checkpoint.path, checkpoint.name, checkpoint.revision) == (folder, "m", "")


def test_two_layouts_that_share_one_config_are_told_apart(tmp_path: Path) -> None:
    original = make_checkpoint(tmp_path / "a", "a")
    optimized = make_checkpoint(tmp_path / "c", "c")
    config = (original / "config.json").read_bytes()
    assert config == (optimized / "config.json").read_bytes()
    assert open_checkpoint(original).layout.is_conv1d
    assert not open_checkpoint(optimized).layout.is_conv1d


@pytest.mark.parametrize("layout", ["a", "b", "c", "c0", "d"])
def test_the_tensors_and_not_the_config_say_multi_query(tmp_path: Path, layout: Layout) -> None:
    folder = make_checkpoint(tmp_path / "m", layout)
    edit_config(folder, attention_head_type="multihead", multi_query=False, architectures=["X"])
    checkpoint = open_checkpoint(folder)
    assert (checkpoint.layout.letter, checkpoint.geometry.kv_head_count) == (layout, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_square_mlp_does_not_hide_the_layout(tmp_path: Path, layout: Layout) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, inner=64)
    assert open_checkpoint(folder).layout.letter == layout


def test_a_file_whose_every_weight_is_square_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "c0", heads=2, inner=64)
    with pytest.raises(CheckpointError, match=r"mlp.c_fc.weight is square"):
        open_checkpoint(folder)


def test_the_mask_named_like_a_bias_is_no_stand_in_for_it(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "c")
    tensors = read_tensors(folder)
    tensors["transformer.h.0.attn.bias"] = tensors.pop("transformer.h.0.attn.attn.bias")
    write_tensors(folder, tensors)
    with pytest.raises(CheckpointError, match=r"lacks tensors: transformer.h.0.attn.attn.bias"):
        open_checkpoint(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stored_masks_are_ignored_in_every_layout(tmp_path: Path, layout: Layout) -> None:
    folder = make_checkpoint(tmp_path / "m", layout)
    tensors = read_tensors(folder)
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 128, 128, dtype=torch.uint8)
    tensors["transformer.h.1.attn.masked_bias"] = torch.tensor(-1e4)
    write_tensors(folder, tensors)
    assert open_checkpoint(folder).layout.letter == layout


@pytest.mark.parametrize("name", ["attn.rotary", "attn.bias2", "attn.c_attn.masked_bias"])
def test_other_names_like_a_mask_are_not_ignored(tmp_path: Path, name: str) -> None:
    folder = make_checkpoint(tmp_path / "m", "b")
    extra = {f"transformer.h.0.{name}": torch.zeros(4)}
    write_tensors(folder, read_tensors(folder) | extra)
    with pytest.raises(CheckpointError, match=rf"no known meaning: 'transformer.h.0.{name}'"):
        open_checkpoint(folder)


def test_the_end_of_text_comes_from_the_tokenizer_and_not_the_config(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a")
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 50256
    assert open_checkpoint(folder).end_of_text_id == 384


def test_remote_code_in_the_folder_is_never_run(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a")
    trace = tmp_path / "trace"
    for name in ("configuration_gpt2_mq.py", "modeling_gpt2_mq.py"):
        (folder / name).write_text(f"open({str(trace)!r}, 'w').close()")
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    assert open_checkpoint(folder).layout.letter == "a"
    assert not trace.exists()


def test_infill_is_off_for_the_revision_without_it(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a")
    assert open_checkpoint(folder, "example/santacoder", "main").fim_supported
    refused = open_checkpoint(folder, "example/santacoder", "no-fim")
    assert (refused.name, refused.revision) == ("example/santacoder", "no-fim")
    assert not refused.fim_supported


def test_infill_is_off_without_sentinels_and_on_for_an_old_tokenizer(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "b", family="old")
    assert open_checkpoint(folder).fim_supported
    content = json.loads(tokenizer_json("santacoder"))
    content["added_tokens"] = content["added_tokens"][:1]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert not open_checkpoint(folder).fim_supported


def test_safetensors_are_preferred_to_pickles(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "b", file_format="bin")
    make_checkpoint(folder, "b", shards=2)
    assert {path.suffix for path in open_checkpoint(folder).files} == {".safetensors"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["a", "b"])
def test_the_stored_element_type_is_that_of_the_embedding(
    tmp_path: Path, layout: Layout, dtype: torch.dtype
) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, dtype=dtype)
    assert open_checkpoint(folder).stored_dtype == dtype


def fingerprint(folder: Path) -> str:
    checkpoint: Checkpoint = open_checkpoint(folder)
    return checkpoint.fingerprint


@pytest.mark.parametrize("shards", [1, 2])
def test_a_fingerprint_is_of_the_files_and_not_of_the_place(tmp_path: Path, shards: int) -> None:
    folder = make_checkpoint(tmp_path / "m", "b", shards=shards)
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert fingerprint(folder) == fingerprint(tmp_path / "elsewhere")
    assert len(bytes.fromhex(fingerprint(folder))) == 32


def test_a_fingerprint_changes_with_weights_config_and_names(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "b")
    seen = {fingerprint(folder)}
    edit_config(folder, layer_norm_epsilon=1e-6)
    seen.add(fingerprint(folder))
    tensors = read_tensors(folder)
    tensors["transformer.ln_f.bias"][7] += 1e-3
    write_tensors(folder, tensors)
    seen.add(fingerprint(folder))
    write_tensors(
        folder,
        without(tensors, "transformer.wte.weight")
        | {"lm_head.weight": tensors["transformer.wte.weight"]},
    )
    seen.add(fingerprint(folder))
    assert len(seen) == 4
