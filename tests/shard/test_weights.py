"""Every layout fills the same canonical parameters, whole or in slices that join to the whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import pytest
import torch
from checkpoints import (
    CONV1D,
    LAYOUTS,
    Layout,
    canonical_tensors,
    make_checkpoint,
    read_tensors,
    write_tensors,
)

from santacoder_shard import pickled_tensors
from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.errors import CheckpointError, ParallelSizeError
from santacoder_shard.recipes import make_recipes
from santacoder_shard.tensor_reader import Piece, TensorReader
from santacoder_shard.weights import choose_dtype, load_model, read_parameter

CPU = torch.device("cpu")
Parameters = dict[str, torch.Tensor]


def load(folder: Path, rank: int = 0, size: int = 1) -> Parameters:
    """The parameters of one rank, fp32 on the CPU."""
    model = load_model(open_checkpoint(folder), rank, size, torch.float32, CPU)
    return dict(model.named_parameters())


def expected_parameters(folder: Path) -> Parameters:
    """The canonical parameters, from the fixture's own reading of the file."""
    tensors = canonical_tensors(folder)
    config = json.loads((folder / "config.json").read_text())
    heads, width = config["n_head"], config["n_embd"]
    names = {
        "transformer.wte.weight": "token_embedding",
        "transformer.wpe.weight": "position_embedding",
    }
    parts = {
        "attn_c_attn": "attn_qkv",
        "attn_c_proj": "attn_proj",
        "mlp_c_fc": "mlp_fc",
        "mlp_c_proj": "mlp_proj",
    }
    result: Parameters = {}
    for name, tensor in tensors.items():
        target = names.get(name) or name.removeprefix("transformer.").replace("h.", "layers.")
        if name not in names:
            *layer, module, kind = target.split(".")
            number, module = layer[:2], "_".join([*layer[2:], module])
            target = ".".join([*number, f"{parts.get(module, module)}_{kind}"])
        if target.split(".")[-1].startswith("attn_qkv") and tensor.shape[0] == 3 * width:
            by_head = tensor.view(heads, 3, width // heads, -1)
            tensor = by_head.transpose(0, 1).reshape(tensor.shape)
        result[target] = tensor
    return result


def join(ranks: list[Parameters], whole: Parameters, kv_heads_split: bool) -> Parameters:
    """Put slices back together by the rules of tensor parallelism, and check what must be equal."""
    result: Parameters = {}
    for name, tensor in whole.items():
        parts = [rank[name] for rank in ranks]
        last = name.split(".")[-1]
        if last in ("token_embedding", "mlp_fc_weight", "mlp_fc_bias"):
            result[name] = torch.cat(parts)
        elif last in ("attn_proj_weight", "mlp_proj_weight"):
            result[name] = torch.cat(parts, dim=1)
        elif last in ("attn_qkv_weight", "attn_qkv_bias"):
            result[name] = join_qkv(parts, tensor.shape[0], kv_heads_split)
        else:
            assert all(torch.equal(part, parts[0]) for part in parts), name
            result[name] = parts[0]
    return result


def join_qkv(parts: list[torch.Tensor], whole_rows: int, kv_heads_split: bool) -> torch.Tensor:
    if kv_heads_split:
        by_kind = [part.chunk(3) for part in parts]
        return torch.cat([torch.cat(rows) for rows in zip(*by_kind, strict=True)])
    kv_rows = (len(parts) * parts[0].shape[0] - whole_rows) // (len(parts) - 1)
    shared = [part[-kv_rows:] for part in parts]
    assert all(torch.equal(rows, shared[0]) for rows in shared)
    return torch.cat([*(part[:-kv_rows] for part in parts), shared[0]])


def assert_equal(actual: Parameters, expected: Parameters) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_loads_into_the_canonical_form_whole_and_in_slices(
    tmp_path: Path, layout: Layout, file_format: Literal["safetensors", "bin"], shards: int
) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, shards=shards, file_format=file_format)
    expected = expected_parameters(folder)
    assert_equal(load(folder), expected)
    for size in (2, 4):
        ranks = [load(folder, rank, size) for rank in range(size)]
        assert_equal(join(ranks, expected, layout in ("a'", "b'")), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_heads_of_unequal_number_and_size_are_not_confused(tmp_path: Path, layout: Layout) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, heads=6, embd=48, inner=120, vocabulary=402)
    expected = expected_parameters(folder)
    ranks = [load(folder, rank, 3) for rank in range(3)]
    assert_equal(join(ranks, expected, layout in ("a'", "b'")), expected)


class RecordingReader(TensorReader):
    """Counts the values that were asked for."""

    value_count = 0

    def read(self, piece: Piece) -> torch.Tensor:
        part = super().read(piece)
        self.value_count += part.numel()
        return part


@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rank_reads_its_slices_and_nothing_more(
    tmp_path: Path, layout: Layout, file_format: Literal["safetensors", "bin"]
) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, file_format=file_format, head="wte")
    checkpoint = open_checkpoint(folder)
    parameters = load(folder, 1, 4)
    recipes = make_recipes(checkpoint.layout, checkpoint.geometry, 1, 4)
    reader = RecordingReader(checkpoint.tensors)
    with reader:
        for name, parameter in parameters.items():
            read_parameter(reader, recipes[name], parameter.shape, torch.float32)
    assert reader.value_count == sum(parameter.numel() for parameter in parameters.values())
    whole_count = sum(tensor.numel() for tensor in expected_parameters(folder).values())
    assert reader.value_count < whole_count / 2


@pytest.mark.fault("D11")
@pytest.mark.parametrize("file_format", ["safetensors", "bin"])
def test_weights_do_not_change_when_their_file_does(
    tmp_path: Path, file_format: Literal["safetensors", "bin"]
) -> None:
    folder = make_checkpoint(tmp_path / "m", "b", file_format=file_format)
    actual = load(folder)
    expected = {name: tensor.clone() for name, tensor in actual.items()}
    for path in open_checkpoint(folder).files:
        with path.open("r+b") as stream:
            stream.write(bytes(path.stat().st_size))
    assert_equal(actual, expected)


def test_a_pickle_is_mapped_and_not_read_whole(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a", file_format="bin")
    path = folder / "pytorch_model.bin"
    tensors = pickled_tensors.load(path)
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    # What was not read yet is what the file holds now.
    assert not tensors["transformer.wte.weight"].any()


@pytest.mark.parametrize("head", ["wte", "lm_head", "both"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_either_of_the_tied_tensors_will_do(
    tmp_path: Path, layout: Layout, head: Literal["wte", "lm_head", "both"]
) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, head=head)
    assert ("lm_head.weight" in read_tensors(folder)) == (head != "wte")
    assert torch.equal(
        load(folder)["token_embedding"], expected_parameters(folder)["token_embedding"]
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_tied_tensors_that_differ_are_refused(tmp_path: Path, rank: int) -> None:
    folder = make_checkpoint(tmp_path / "m", "c0")
    tensors = read_tensors(folder)
    tensors["lm_head.weight"][rank * 200] += 1.0
    write_tensors(folder, tensors)
    message = "model.safetensors: transformer.wte.weight and lm_head.weight differ"
    with pytest.raises(CheckpointError, match=message):
        load(folder, rank, 2)


def test_weights_are_cast_to_the_type_asked_for(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_checkpoint(tmp_path / "m", "c"))
    whole = dict(load_model(checkpoint, 0, 1, torch.float32, CPU).named_parameters())
    for dtype in (torch.float16, torch.bfloat16):
        model = load_model(checkpoint, 0, 1, dtype, CPU)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, whole[name].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_load_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = make_checkpoint(tmp_path / "m", "b", dtype=dtype)
    assert_equal(load(folder), expected_parameters(folder))


@pytest.mark.fault("D9")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layout", ["a", "b"])
def test_a_value_that_is_no_number_is_refused(tmp_path: Path, layout: Layout, value: float) -> None:
    folder = make_checkpoint(tmp_path / "m", layout)
    tensors = read_tensors(folder)
    tensors["transformer.h.1.mlp.c_fc.weight"][3, 5] = value
    write_tensors(folder, tensors)
    message = r"model.safetensors: transformer.h.1.mlp.c_fc.weight: holds NaN or infinity"
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_a_value_that_overflows_float16_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "b")
    tensors = read_tensors(folder)
    tensors["transformer.ln_f.bias"][0] = 1e5
    write_tensors(folder, tensors)
    load(folder)
    with pytest.raises(CheckpointError, match=r"ln_f.bias: does not fit float16"):
        load_model(open_checkpoint(folder), 0, 1, torch.float16, CPU)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"heads": 4}, r"attention heads \(4\); got 3"),
        ({"heads": 6, "embd": 48, "inner": 100}, r"inner size \(100\); got 3"),
        ({"heads": 6, "embd": 48, "inner": 96}, r"vocabulary size \(400\); got 3"),
    ],
)
def test_a_size_that_does_not_divide_the_model_is_refused(
    tmp_path: Path, sizes: dict[str, int], named: str
) -> None:
    folder = make_checkpoint(tmp_path / "m", "b", **sizes)  # type: ignore[arg-type]
    with pytest.raises(ParallelSizeError, match=named):
        load(folder, 0, 3)


@pytest.mark.parametrize("layout", CONV1D)
def test_conv1d_slices_lie_in_the_other_dimension(tmp_path: Path, layout: Layout) -> None:
    checkpoint = open_checkpoint(make_checkpoint(tmp_path / "m", layout))
    recipes = make_recipes(checkpoint.layout, checkpoint.geometry, 1, 2)
    (fc,) = recipes["layers.0.mlp_fc_weight"].pieces
    (proj,) = recipes["layers.0.mlp_proj_weight"].pieces
    assert (fc.dimension, fc.start, fc.stop) == (1, 128, 256)
    assert (proj.dimension, proj.start, proj.stop) == (0, 128, 256)


@pytest.mark.parametrize(
    ("layout", "runs"),
    [
        ("b", [(32, 64), (64, 80), (80, 96)]),
        ("b'", [(96, 112), (144, 160), (112, 128), (160, 176), (128, 144), (176, 192)]),
        ("a'", [(32, 64), (96, 128), (160, 192)]),
    ],
)
def test_attention_rows_of_a_rank_are_q_then_k_then_v(
    tmp_path: Path, layout: Layout, runs: list[tuple[int, int]]
) -> None:
    checkpoint = open_checkpoint(make_checkpoint(tmp_path / "m", layout))
    recipe = make_recipes(checkpoint.layout, checkpoint.geometry, 1, 2)["layers.0.attn_qkv_bias"]
    joined: list[tuple[int, int]] = []
    for piece in recipe.pieces:
        joined.append((piece.start, piece.stop))
    assert merge(joined) == merge(runs)


def merge(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for start, stop in runs:
        if result and result[-1][1] == start:
            start = result.pop()[0]
        result.append((start, stop))
    return result


@pytest.mark.parametrize(
    ("requested", "device", "stored", "chosen"),
    [
        ("auto", "cpu", torch.float16, torch.float32),
        ("auto", "cpu", torch.bfloat16, torch.float32),
        ("auto", "cuda", torch.float32, torch.float16),
        ("auto", "cuda", torch.float16, torch.float16),
        ("auto", "cuda", torch.bfloat16, torch.bfloat16),
        ("float32", "cuda", torch.float16, torch.float32),
        ("bfloat16", "cpu", torch.float32, torch.bfloat16),
    ],
)
def test_the_element_type_follows_the_flag_then_device_and_file(
    requested: str, device: str, stored: torch.dtype, chosen: torch.dtype
) -> None:
    assert choose_dtype(requested, device, stored) == chosen
