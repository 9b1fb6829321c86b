"""Facts of block accounting and of the prefix cache's keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from santacoder_router.core.blocks import BlockPool
from santacoder_router.core.prefix import Prefix, extend_prefix, is_same_prefix, root_prefix

ROOT = root_prefix(b"seed", b"")


def _chain(*blocks: tuple[int, ...]) -> list[Prefix]:
    prefixes = [ROOT]
    for ids in blocks:
        prefixes.append(extend_prefix(prefixes[-1], ids))
    return prefixes[1:]


def _counts(pool: BlockPool) -> tuple[int, int, int]:
    return pool.free_count, pool.cached_count, pool.held_count


def test_a_block_is_free_or_held_or_cached() -> None:
    pool = BlockPool(4)
    (first, second) = pool.take(2)
    assert _counts(pool) == (2, 0, 2)
    pool.register(_chain((1, 2))[0], first)
    pool.release([first, second])
    assert _counts(pool) == (3, 1, 0)
    pool.share([first])
    assert _counts(pool) == (3, 0, 1)


def test_a_shared_block_is_held_until_its_last_holder_lets_go() -> None:
    pool = BlockPool(1)
    blocks = pool.take(1)
    pool.share(blocks)
    pool.release(blocks)
    assert pool.held_count == 1
    pool.release(blocks)
    assert pool.free_count == 1


def test_more_blocks_than_there_are_is_an_error_and_takes_none() -> None:
    pool = BlockPool(2)
    with pytest.raises(ValueError, match="got 3; have 2"):
        pool.take(3)
    assert pool.free_count == 2


def test_free_blocks_are_taken_before_cached_ones() -> None:
    pool = BlockPool(2)
    blocks = pool.take(2)
    prefix = _chain((1,))[0]
    pool.register(prefix, blocks[0])
    pool.release(blocks)
    assert pool.take(1) == [blocks[1]]
    assert pool.find(prefix) == (blocks[0], prefix)


def test_the_least_recently_released_goes_first_and_a_tail_before_its_head() -> None:
    pool = BlockPool(4)
    older, newer = pool.take(2), pool.take(2)
    for prefix, block in zip(_chain((1,), (2,)) + _chain((3,), (4,)), older + newer, strict=True):
        pool.register(prefix, block)
    pool.release(newer)
    pool.release(older)
    assert [pool.take(1)[0] for _ in range(4)] == [newer[1], newer[0], older[1], older[0]]


def test_an_evicted_prefix_is_found_no_more() -> None:
    pool = BlockPool(1)
    prefix = _chain((1,))[0]
    pool.register(prefix, pool.take(1)[0])
    pool.release([0])
    pool.take(1)
    assert pool.find(prefix) is None


def test_a_held_block_is_not_evicted() -> None:
    pool = BlockPool(2)
    held, let_go = pool.take(1), pool.take(1)
    pool.register(_chain((1,))[0], held[0])
    pool.register(_chain((2,))[0], let_go[0])
    pool.release(let_go)
    assert pool.take(1) == let_go
    assert pool.available_count == 0


def test_the_first_block_registered_for_a_prefix_stays() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    prefix, again = _chain((1,))[0], _chain((1,))[0]
    pool.register(prefix, first)
    pool.register(again, second)
    assert pool.find(again) == (first, prefix)
    pool.release([second])
    assert pool.free_count == 1


def test_a_forgotten_block_is_free_at_once_or_when_let_go() -> None:
    pool = BlockPool(2)
    held, cached = pool.take(2)
    prefixes = _chain((1,), (2,))
    pool.register(prefixes[0], held)
    pool.register(prefixes[1], cached)
    pool.release([cached])
    for prefix in prefixes:
        pool.forget(prefix)
        pool.forget(prefix)
    assert _counts(pool) == (1, 0, 1)
    pool.release([held])
    assert _counts(pool) == (2, 0, 0)


@pytest.mark.fault("R14")
def test_a_clash_of_digests_is_no_hit() -> None:
    pool = BlockPool(2)
    block = pool.take(1)[0]
    mine = Prefix(b"clash", ROOT, b"12")
    pool.register(mine, block)
    assert pool.find(Prefix(b"clash", ROOT, b"12")) == (block, mine)
    assert pool.find(Prefix(b"clash", ROOT, b"13")) is None
    assert pool.find(Prefix(b"clash", root_prefix(b"seed", b"tenant"), b"12")) is None


@pytest.mark.fault("R14")
def test_a_clash_of_an_earlier_blocks_digests_is_no_hit() -> None:
    pool = BlockPool(2)
    block = pool.take(1)[0]
    pool.register(Prefix(b"child", Prefix(b"clash", ROOT, b"1"), b"5"), block)
    assert pool.find(Prefix(b"child", Prefix(b"clash", ROOT, b"2"), b"5")) is None


def test_a_prefix_depends_on_seed_cache_key_and_every_earlier_id() -> None:
    digests = {
        extend_prefix(extend_prefix(root_prefix(seed, key), first), (7, 8)).digest
        for seed in (b"", b"seed")
        for key in (b"", b"tenant")
        for first in ((1, 2), (2, 1), (258, 0))
    }
    assert len(digests) == 12


def test_prefixes_are_compared_by_ids_and_cache_key() -> None:
    assert is_same_prefix(_chain((1,), (2,))[-1], _chain((1,), (2,))[-1])
    assert not is_same_prefix(_chain((1,), (2,))[-1], _chain((3,), (2,))[-1])
    assert not is_same_prefix(_chain((1,))[-1], ROOT)


@given(st.lists(st.integers(0, 5), max_size=60))
def test_no_sequence_of_calls_loses_a_block(choices: list[int]) -> None:
    pool = BlockPool(5)
    tables: list[list[int]] = []
    for number, choice in enumerate(choices):
        if choice <= 1 and pool.available_count > choice:
            tables.append(pool.take(choice + 1))
            pool.register(extend_prefix(ROOT, (number,)), tables[-1][0])
        elif choice == 2 and tables:
            tables.append(tables[0][:1])
            pool.share(tables[-1])
        elif tables:
            pool.release(tables.pop())
        held = {block for table in tables for block in table}
        assert pool.held_count == len(held)
        assert pool.free_count + pool.cached_count + len(held) == pool.total_count
