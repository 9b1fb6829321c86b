"""Layer norm and product, and the K and V write: right values, bits free of the row count."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from santacoder_shard.kernels.linear import pack_linear
from santacoder_shard.kernels.norm_linear import norm_linear
from santacoder_shard.kernels.norm_linear.reference import Norm
from santacoder_shard.kernels.norm_qkv import norm_qkv


def random_norm(size: int) -> Norm:
    generator = torch.Generator().manual_seed(size)
    weight, bias = torch.randn(2, size, generator=generator)
    return Norm(weight, bias, 1e-5)


@pytest.mark.parametrize("size", [32, 100, 256, 2048])
def test_a_normed_row_has_the_same_bits_at_every_row_count(size: int) -> None:
    norm = random_norm(size)
    rows = torch.randn(512, size, generator=torch.Generator().manual_seed(1)) * 3 + 1
    whole = norm_linear(rows, norm, Identity())
    for count in (*range(1, 40), 255, 256, 511):
        assert torch.equal(norm_linear(rows[-count:], norm, Identity()), whole[-count:])


def test_norm_and_product_agree_with_float64() -> None:
    norm = random_norm(64)
    generator = torch.Generator().manual_seed(2)
    rows, weight = torch.randn(9, 64, generator=generator), torch.randn(48, 64, generator=generator)
    normed = functional.layer_norm(
        rows.double(), (64,), norm.weight.double(), norm.bias.double(), 1e-5
    )
    ours = norm_linear(rows, norm, pack_linear(weight))
    assert torch.allclose(ours.double(), normed @ weight.double().T, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kv_head_count", [1, 4])
def test_keys_and_values_go_to_their_places_and_nowhere_else(kv_head_count: int) -> None:
    head_count, head_size = 4, 8
    query_size, kv_size = head_count * head_size, kv_head_count * head_size
    norm = random_norm(32)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(query_size + 2 * kv_size, 32, generator=generator)
    hidden = torch.randn(3, 32, generator=generator)
    keys = torch.zeros(5, 16, kv_head_count, head_size)
    values = torch.zeros_like(keys)
    places = torch.tensor([40, 3, 79])
    query = norm_qkv(hidden, norm, pack_linear(weight), keys, values, places)

    fused = norm_linear(hidden, norm, pack_linear(weight))
    parts = torch.split(fused, [query_size, kv_size, kv_size], dim=1)
    assert torch.equal(query, parts[0].view(3, head_count, head_size))
    for cache, part in ((keys, parts[1]), (values, parts[2])):
        rows = cache.view(80, kv_size)
        assert torch.equal(rows[places], part)
        untouched = torch.ones(80, dtype=torch.bool).index_fill(0, places, False)
        assert not rows[untouched].any()


class Identity:
    """Hands the normed rows back, so that the norm is seen alone."""

    name = "identity"

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return rows
