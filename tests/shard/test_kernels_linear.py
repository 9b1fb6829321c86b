"""A product's rows have the same bits at every row count, on oneDNN and on plain torch alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from santacoder_shard.kernels.linear import pack_linear
from santacoder_shard.kernels.linear.choose import Linear
from santacoder_shard.kernels.linear.onednn import OnednnLinear, is_available
from santacoder_shard.kernels.linear.reference import LinearActivation, ReferenceLinear

# [out, in] of SantaCoder's products on 1 rank and on 4, and those of small models.
SHAPES = [
    (2304, 2048),
    (2048, 2048),
    (8192, 2048),
    (2048, 8192),
    (768, 2048),
    (2048, 512),
    (3072, 512),
    (320, 256),
    (256, 1024),
    (96, 64),
    (48, 32),
]
MOST_ROWS = 512


@pytest.fixture(autouse=True, params=[1, 2], ids=["one_thread", "two_threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def operands(out_size: int, in_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(out_size * in_size)
    return (
        torch.randn(MOST_ROWS, in_size, generator=generator),
        torch.randn(out_size, in_size, generator=generator),
        torch.randn(out_size, generator=generator),
    )


def assert_same_bits(linear: Linear, rows: torch.Tensor, counts: Iterator[int]) -> None:
    whole = linear(rows)
    for count in counts:
        start = count % 3
        part = linear(rows[start : start + count])
        assert torch.equal(part, whole[start : start + count]), f"{count} rows"


def row_counts(out_size: int, in_size: int) -> Iterator[int]:
    """The first ones, more of them for small shapes, and those near the places of a change."""
    is_small = out_size * in_size < 200_000
    places = (64, 128, 192, 256, 384) if is_small else (64, 128, 256)
    near_places = [place + offset for place in places for offset in (-1, 0, 1)]
    return iter([*range(1, 131 if is_small else 41), *near_places, 300, 509])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_onednn_gives_a_row_the_same_bits_at_every_row_count(shape: tuple[int, int]) -> None:
    rows, weight, bias = operands(*shape)
    assert is_available(weight)
    assert_same_bits(OnednnLinear(weight, bias, "gelu_tanh"), rows, row_counts(*shape))


@pytest.mark.parametrize("shape", [(2304, 2048), (256, 1024), (96, 64)], ids=str)
def test_plain_torch_gives_a_row_the_same_bits_at_every_row_count(shape: tuple[int, int]) -> None:
    rows, weight, bias = operands(*shape)
    assert_same_bits(ReferenceLinear(weight, bias, "gelu_erf"), rows[:80], iter(range(1, 78, 4)))


@pytest.mark.parametrize("activation", ["none", "gelu_tanh", "gelu_erf"])
@pytest.mark.parametrize("row_count", [1, 5, 64])
def test_both_agree_with_float64(activation: LinearActivation, row_count: int) -> None:
    rows, weight, bias = operands(320, 256)
    rows = rows[:row_count]
    exact = functional.linear(rows.double(), weight.double(), bias.double())
    if activation != "none":
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        exact = functional.gelu(exact, approximate=approximate)
    for linear in (OnednnLinear, ReferenceLinear):
        ours = linear(weight, bias, activation)(rows)
        assert torch.allclose(ours.double(), exact, rtol=1e-5, atol=1e-4), linear


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_weight_is_multiplied_in_float32(dtype: torch.dtype) -> None:
    rows, weight, bias = operands(48, 32)
    half, half_bias = weight.to(dtype), bias.to(dtype)
    ours = pack_linear(half, half_bias)(rows)
    assert torch.allclose(ours, rows @ half.float().T + half_bias.float(), rtol=0, atol=1e-4)


def test_without_onednn_plain_torch_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    _, weight, bias = operands(48, 32)
    assert pack_linear(weight, bias).name == OnednnLinear(weight, bias).name
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pack_linear(weight, bias).name == ReferenceLinear.name
