"""The model is the one that transformers knows, in logits and greedy ids; its parameters' names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import Layout, make_checkpoint, oracle
from engine_driver import EngineDriver, prompt_ids, random_model, small_geometry

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.geometry import Geometry
from santacoder_shard.model import SantaCoder
from santacoder_shard.weights import load_model

ATTENTION_AND_ACTIVATION: list[tuple[Layout, str]] = [
    ("b", "gelu_pytorch_tanh"),
    ("b", "gelu"),
    ("b'", "gelu_pytorch_tanh"),
    ("b'", "gelu"),
]


@pytest.mark.parametrize(("layout", "activation"), ATTENTION_AND_ACTIVATION)
def test_logits_are_those_of_transformers_and_64_greedy_ids_are_equal(
    tmp_path: Path, layout: Layout, activation: str
) -> None:
    folder = make_checkpoint(tmp_path, layout, activation=activation)
    checkpoint = open_checkpoint(folder)
    model = load_model(checkpoint, 0, 1, torch.float32, torch.device("cpu"))
    driver = EngineDriver(model, 1, blocks_per_sequence=8, token_count=checkpoint.token_count)
    prompt = prompt_ids(21, seed=1, token_count=300)
    ids = driver.generate(0, prompt, 64)

    judge = oracle(folder)
    expected_ids: list[int] = []
    with torch.inference_mode():
        for _ in range(64):
            logits = judge(torch.tensor([[*prompt, *expected_ids]])).logits[0, -1]
            ours = driver.all_logits(0)[len(expected_ids)]
            assert torch.allclose(ours, logits, rtol=0, atol=1e-4)
            expected_ids.append(int(logits[: checkpoint.token_count].argmax()))
    assert ids == expected_ids
    assert len(set(ids)) > 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_give_the_logits_of_the_same_values_in_float32(
    dtype: torch.dtype,
) -> None:
    half, wide = random_model(small_geometry()), random_model(small_geometry())
    half.dtype = dtype
    for narrow, full in zip(half.parameters(), wide.parameters(), strict=True):
        narrow.data = narrow.to(dtype)
        full.data = narrow.float()
    drivers = [EngineDriver(model, 1, blocks_per_sequence=8) for model in (half, wide)]
    for driver in drivers:
        driver.generate(0, prompt_ids(100, seed=5), 1)
    # K and V are kept in half precision, and nothing else is.
    ours, theirs = (driver.all_logits(0) for driver in drivers)
    assert torch.allclose(ours, theirs, rtol=0, atol=0.02 if dtype == torch.float16 else 0.2)


@pytest.mark.parametrize(("kv_head_count", "kv_rows"), [(1, 2 * 16), (4, 2 * 16 * 2)])
def test_a_rank_of_two_holds_the_slices_that_the_loader_fills(
    kv_head_count: int, kv_rows: int
) -> None:
    with torch.device("meta"):
        model = SantaCoder(small_geometry(kv_head_count=kv_head_count), 2, torch.float16)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    layer = {
        name.removeprefix("layers.1."): shape
        for name, shape in shapes.items()
        if name.startswith("layers.1.")
    }
    assert {name: shape for name, shape in shapes.items() if "layers" not in name} == {
        "token_embedding": (64, 64),
        "position_embedding": (512, 64),
        "ln_f_weight": (64,),
        "ln_f_bias": (64,),
    }
    assert layer == {
        "ln_1_weight": (64,),
        "ln_1_bias": (64,),
        "attn_qkv_weight": (32 + kv_rows, 64),
        "attn_qkv_bias": (32 + kv_rows,),
        "attn_proj_weight": (64, 32),
        "attn_proj_bias": (64,),
        "ln_2_weight": (64,),
        "ln_2_bias": (64,),
        "mlp_fc_weight": (128, 64),
        "mlp_fc_bias": (128,),
        "mlp_proj_weight": (64, 128),
        "mlp_proj_bias": (64,),
    }
    assert {value.dtype for value in model.parameters()} == {torch.float16}
    assert all(value.is_meta for value in model.parameters())


def test_packing_lets_go_of_the_weights_that_it_reordered() -> None:
    model = SantaCoder(small_geometry(), 1, torch.float32)
    model.pack()
    kept = {name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()}
    assert "token_embedding" in kept
    assert not {"attn_qkv_weight", "attn_proj_weight", "mlp_fc_weight", "mlp_proj_weight"} & kept


@pytest.mark.parametrize("size", [0, 3, 8])
def test_a_parallel_size_that_does_not_divide_the_heads_is_refused_in_one_line(size: int) -> None:
    refusal = small_geometry().refusal(size)
    assert refusal == f"tp: must divide the model's attention heads (4); got {size}"


def test_a_single_kv_head_is_whole_on_every_rank_and_several_are_split() -> None:
    multi_query, multi_head = small_geometry(), small_geometry(kv_head_count=4)
    assert [multi_query.local_kv_head_count(size) for size in (1, 2, 4)] == [1, 1, 1]
    assert [multi_head.local_kv_head_count(size) for size in (1, 2, 4)] == [4, 2, 1]
    assert isinstance(multi_query, Geometry) and multi_query.refusal(4) is None
