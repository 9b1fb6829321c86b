"""The KV cache takes the bytes it says; copies and clearing touch the blocks that they name."""

from __future__ import annotations

import pytest
import torch
from engine_driver import small_geometry

from santacoder_shard.kv_cache import KVCache, block_bytes, block_count_within

CPU = torch.device("cpu")


def marked_cache() -> KVCache:
    """Every block of every layer holds its own number."""
    cache = KVCache(small_geometry(), 1, 6, torch.float32, CPU)
    for keys, values in cache.layers:
        for block in range(6):
            keys[block] = block + 1
            values[block] = -block - 1
    return cache


def marks(cache: KVCache) -> list[list[int]]:
    """The numbers of blocks 0 to 5, once for every layer's K and negated V."""
    return [
        [int(torch.unique(tensor[block]).item()) * sign for block in range(6)]
        for keys, values in cache.layers
        for tensor, sign in ((keys, 1), (values, -1))
    ]


@pytest.mark.parametrize(("kv_head_count", "size"), [(1, 1), (1, 4), (4, 1), (4, 2)])
def test_as_many_blocks_fit_a_budget_as_their_tensors_take(kv_head_count: int, size: int) -> None:
    geometry = small_geometry(kv_head_count=kv_head_count)
    cache = KVCache(geometry, size, 9, torch.float16, CPU)
    taken = sum(tensor.nbytes for layer in cache.layers for tensor in layer)
    assert taken == 10 * block_bytes(geometry, size, torch.float16)
    assert block_count_within(taken, geometry, size, torch.float16) == 9
    assert block_count_within(taken - 1, geometry, size, torch.float16) == 8
    assert block_count_within(5, geometry, size, torch.float16) == 0


def test_copies_read_every_source_before_they_write() -> None:
    cache = marked_cache()
    cache.copy_blocks(((0, 4), (4, 5), (2, 0)))
    assert marks(cache) == [[3, 2, 3, 4, 1, 5]] * 4


def test_clearing_zeroes_the_named_blocks_even_where_they_hold_nan() -> None:
    cache = marked_cache()
    cache.layers[1][1][3, 5] = torch.nan
    cache.clear_blocks((3, 1))
    assert marks(cache) == [[1, 0, 3, 0, 5, 6]] * 4


def test_the_block_after_the_last_that_can_be_granted_is_zero() -> None:
    cache = marked_cache()
    assert cache.scratch_block == cache.block_count == 6
    assert not any(tensor[6].any() for layer in cache.layers for tensor in layer)
