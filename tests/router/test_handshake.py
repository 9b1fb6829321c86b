"""Which ranks make a group, and which group may take over from another."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from santacoder_router.handshake import (
    CAPACITIES,
    Description,
    GroupMixed,
    GroupRefused,
    agree,
    check_successor,
)

NUMBERS: dict[str, Any] = {
    field.name: {"int": 8, "str": "same", "bool": True, "bytes": b"", "tuple[int, ...]": (1,)}[
        str(field.type)
    ]
    for field in dataclasses.fields(Description)
}


def rank(number: int, size: int = 2, **fields: Any) -> Description:
    own = {"protocol_version": 1, "rank": number, "tensor_parallel_size": size}
    return Description(**{**NUMBERS, **own, **fields})


def test_a_group_has_rank_0s_words_and_the_smallest_capacities() -> None:
    first = rank(0, block_count=100, slot_count=4, tokenizer_json=b"{}")
    group = agree([first, rank(1, block_count=90, slot_count=6)])
    assert (group.block_count, group.slot_count, group.tokenizer_json) == (90, 4, b"{}")


@pytest.mark.fault("X6")
@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"protocol_version": 2}, "protocol version 2"),
        ({"tensor_parallel_size": 4}, "group of 4"),
        ({"rank": 0}, "answers as rank 0"),
        ({"slot_count": 0}, "slot_count"),
    ],
)
def test_a_rank_that_can_never_fit_is_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(GroupRefused, match=word):
        agree([rank(0), rank(1, **fields)])


SHARED = sorted(
    set(NUMBERS)
    - set(CAPACITIES)
    - {"rank", "tokenizer_json", "protocol_version", "tensor_parallel_size"}
)


@pytest.mark.fault("S24", "D17")
@pytest.mark.parametrize("name", SHARED)
def test_ranks_that_differ_make_no_group(name: str) -> None:
    other: Any = {int: 9, str: "other", bool: False, tuple: (2,)}[type(NUMBERS[name])]
    with pytest.raises(GroupMixed, match=name):
        agree([rank(0), rank(1, **{name: other})])


def test_a_group_of_the_same_model_under_a_greater_epoch_takes_over() -> None:
    check_successor(rank(0, epoch=1), rank(0, epoch=2, block_count=9))


@pytest.mark.fault("S24")
@pytest.mark.parametrize(
    "fields",
    [
        {"epoch": 1},
        {"epoch": 0},
        {"epoch": 2, "checkpoint_fingerprint": "other"},
        {"epoch": 2, "numerics_id": "other"},
        {"epoch": 2, "block_count": 7},
    ],
)
def test_another_group_does_not_take_over(fields: dict[str, Any]) -> None:
    with pytest.raises(GroupMixed):
        check_successor(rank(0, epoch=1), rank(0, **fields))
