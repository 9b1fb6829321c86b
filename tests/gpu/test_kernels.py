"""Each kernel of a step against float64 on fresh random operands, and its bits at every row count.

The real widths, in half precision, summed and rounded as `shard/NUMERICS.md` has it. Tolerances
are what the arithmetic may lose:

- A product's sum of K terms is float32: below 2^-15 of the sum of magnitudes for K up to 8192, as
  rounding errors of 2^-24 a term go both ways. Its result is rounded to 11 bits: 2^-11 of itself.
- GELU's slope is at most 1.13, so the sum's error grows by so much.
- A norm is float32 and then rounded: 2^-11 of itself, and 1e-5 for what is near zero.
- Attention's weights are at most 1 and rounded to 11 bits, as is the result: together 2^-10 of the
  greatest value that is averaged.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from gpu_driver import GpuDriver, device, real_model
from gpu_kernels import PRODUCTS, Kernels
from torch import Tensor
from torch.nn import functional

ROW_LIMIT = 256
ROW_COUNTS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 100, 128, 129, 255, 256)
# Of prompts; the head has none of them.
MANY_ROWS = (257, 500, 640, 1024, 1900, 2048)
POSITIONS = (0, 1, 15, 16, 62, 63, 64, 65, 127, 128, 300, 511, 512, 1000, 1983, 2047)


@pytest.fixture(scope="module", params=[1, 16], ids=["multi_query", "multi_head"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    model = real_model(1, kv_head_count=request.param)
    width = 128 if request.param == 1 else 64
    return Kernels(GpuDriver(model, ROW_LIMIT, width, tokens_per_step=MANY_ROWS[-1]), model)


@pytest.fixture
def generator() -> Iterator[torch.Generator]:
    generator = torch.Generator(device())
    # Fresh in every run; the seed is said if a test fails.
    print(f"seed {generator.seed()}")
    yield generator


def random_rows(generator: torch.Generator, count: int, size: int) -> Tensor:
    return torch.randn(count, size, device=device(), generator=generator)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        (name, count)
        for name in PRODUCTS
        for count in (ROW_COUNTS if name == "head" else (*ROW_COUNTS, *MANY_ROWS))
    ],
)
def test_a_product_is_that_of_float64(
    kernels: Kernels, generator: torch.Generator, name: str, count: int
) -> None:
    weight, bias = kernels.parameters(name)
    rows = random_rows(generator, count, weight.shape[1]).half()
    before = random_rows(generator, count, kernels.width)
    ours = kernels.product(name, rows, before).double()
    exact = functional.linear(
        rows.double(), weight.double(), None if bias is None else bias.double()
    )
    magnitude = rows.double().abs() @ weight.double().abs().T
    allowed = 2**-15 * magnitude
    if name == "mlp_fc":
        exact = functional.gelu(exact, approximate="tanh")
        allowed = 1.13 * allowed
    if name in ("attn_proj", "mlp_proj"):
        exact = exact + before.double()
    excess = (ours - exact).abs() - allowed - 2**-11 * exact.abs()
    assert float(excess.max()) <= 0


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_products_row_has_the_same_bits_at_every_row_count(
    kernels: Kernels, generator: torch.Generator, name: str
) -> None:
    weight, _ = kernels.parameters(name)
    counts = ROW_COUNTS if name == "head" else (*ROW_COUNTS, *MANY_ROWS)
    rows = random_rows(generator, counts[-1], weight.shape[1]).half()
    before = random_rows(generator, counts[-1], kernels.width)
    whole = kernels.product(name, rows, before)
    for count in counts:
        part = kernels.product(name, rows[-count:], before[-count:])
        assert torch.equal(part, whole[-count:]), f"{count} rows"


@pytest.mark.parametrize("count", ROW_COUNTS)
def test_a_norm_is_that_of_float64(
    kernels: Kernels, generator: torch.Generator, count: int
) -> None:
    hidden = random_rows(generator, count, kernels.width) * 3 + 1
    layer = kernels.model.layers[0]
    weight, bias = (layer.get_parameter(f"ln_1_{kind}").double() for kind in ("weight", "bias"))
    exact = functional.layer_norm(hidden.double(), (kernels.width,), weight, bias, 1e-5)
    excess = (kernels.norm(hidden).double() - exact).abs() - 2**-11 * exact.abs() - 1e-5
    assert float(excess.max()) <= 0


def test_a_norm_on_the_way_to_a_product_has_the_bits_of_one_before_it(
    kernels: Kernels, generator: torch.Generator
) -> None:
    hidden = random_rows(generator, ROW_LIMIT, kernels.width) * 3 + 1
    whole = kernels.norm_and_product(hidden)
    normal = kernels.norm(hidden)
    assert torch.equal(kernels.product("attn_qkv", normal, hidden)[:, : whole.shape[1]], whole)
    for count in ROW_COUNTS:
        part = kernels.norm_and_product(hidden[-count:])
        assert torch.equal(part, whole[-count:]), f"{count} rows"


@pytest.mark.parametrize("count", [1, 8, 16, 17, 33, 64, 129, 256])
def test_attention_of_single_rows_is_that_of_float64(
    kernels: Kernels, generator: torch.Generator, count: int
) -> None:
    kernels.fill_cache(generator)
    positions = positions_within(kernels, count)
    slots = torch.arange(count, device=device(), dtype=torch.int32).flip(0)
    query = random_rows(generator, count, kernels.width).half()
    ours = kernels.attention(query, slots, positions, is_decode=True)
    for row in range(min(count, 40)):
        assert_attends(kernels, ours[row], query[row], int(slots[row]), int(positions[row]))


@pytest.mark.parametrize("first", [0, 5, 60, 700])
@pytest.mark.parametrize("count", [1, 7, 16, 100, 256])
def test_attention_of_a_chunk_is_that_of_float64_and_of_single_rows(
    kernels: Kernels, generator: torch.Generator, first: int, count: int
) -> None:
    kernels.fill_cache(generator)
    positions = torch.arange(first, first + count, device=device(), dtype=torch.int32)
    query = random_rows(generator, count, kernels.width).half()
    slots = torch.full_like(positions, 3)
    ours = kernels.attention(query, slots, positions, is_decode=False)
    for row in {0, 1, count // 2, count - 1} & set(range(count)):
        assert_attends(kernels, ours[row], query[row], 3, first + row)
        one = slice(row, row + 1)
        single = kernels.attention(query[one], slots[one], positions[one], is_decode=True)
        assert torch.equal(single[0], ours[row]), f"row {row}"


def test_attention_of_a_row_has_the_same_bits_among_any_number(
    kernels: Kernels, generator: torch.Generator
) -> None:
    kernels.fill_cache(generator)
    positions = positions_within(kernels, ROW_LIMIT)
    slots = torch.arange(ROW_LIMIT, device=device(), dtype=torch.int32)
    query = random_rows(generator, ROW_LIMIT, kernels.width).half()
    whole = kernels.attention(query, slots, positions, is_decode=True)
    for count in ROW_COUNTS:
        part = kernels.attention(query[-count:], slots[-count:], positions[-count:], is_decode=True)
        assert torch.equal(part, whole[-count:]), f"{count} rows"


def positions_within(kernels: Kernels, count: int) -> Tensor:
    """The places of a change, again and again, as far as a slot's blocks reach."""
    room = kernels.room
    places = [POSITIONS[row % len(POSITIONS)] % room for row in range(count)]
    return torch.tensor(places, dtype=torch.int32, device=device())


def assert_attends(kernels: Kernels, ours: Tensor, query: Tensor, slot: int, position: int) -> None:
    """ours, query [heads * head size]."""
    keys, values = kernels.cached(slot, position + 1)
    heads = query.double().view(keys.shape[1], -1, keys.shape[2])
    scores = torch.einsum("kgd,nkd->kgn", heads, keys) * keys.shape[2] ** -0.5
    exact = torch.einsum("kgn,nkd->kgd", scores.softmax(-1), values)
    error = (ours.double().view(exact.shape) - exact).abs().max()
    assert float(error) <= 2**-10 * float(values.abs().max()), f"position {position}"
