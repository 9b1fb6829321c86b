"""A prompt that is too long keeps what is nearest to the cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from santacoder_router.text.prompt import FimOrder, PromptIds
from santacoder_router.text.truncation import keep_nearest

LENGTHS = st.integers(0, 60)


@given(prefix=LENGTHS, suffix=LENGTHS, token_count=LENGTHS)
def test_the_end_of_the_prefix_and_the_start_of_the_suffix_are_kept_and_losses_counted(
    prefix: int, suffix: int, token_count: int
) -> None:
    prompt = PromptIds(tuple(range(prefix)), tuple(range(100, 100 + suffix)), FimOrder.SPM)
    cut = keep_nearest(prompt, token_count)
    assert cut.prompt.prefix == prompt.prefix[cut.dropped_prefix_count :]
    assert cut.prompt.suffix == prompt.suffix[: suffix - cut.dropped_suffix_count]
    assert cut.prompt.order is FimOrder.SPM
    # All of the room is used, and no more.
    kept = len(cut.prompt.prefix) + len(cut.prompt.suffix)
    assert kept == min(prefix + suffix, token_count)
    assert cut.dropped_prefix_count + cut.dropped_suffix_count == prefix + suffix - kept


def test_the_suffix_gets_a_quarter_where_both_are_long() -> None:
    cut = keep_nearest(PromptIds(tuple(range(50)), tuple(range(50)), FimOrder.PSM), 40)
    assert (len(cut.prompt.prefix), len(cut.prompt.suffix)) == (30, 10)


def test_the_suffix_gets_what_a_short_prefix_leaves() -> None:
    cut = keep_nearest(PromptIds((1, 2), tuple(range(50)), FimOrder.PSM), 40)
    assert (len(cut.prompt.prefix), len(cut.prompt.suffix)) == (2, 38)


def test_the_prefix_gets_what_a_short_suffix_leaves() -> None:
    cut = keep_nearest(PromptIds(tuple(range(50)), (1, 2), FimOrder.PSM), 40)
    assert (len(cut.prompt.prefix), len(cut.prompt.suffix)) == (38, 2)


def test_a_plain_prompt_keeps_its_end() -> None:
    cut = keep_nearest(PromptIds((1, 2, 3, 4, 5)), 2)
    assert cut.prompt == PromptIds((4, 5))
    assert (cut.dropped_prefix_count, cut.dropped_suffix_count) == (3, 0)


def test_a_negative_room_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="negative: -1"):
        keep_nearest(PromptIds((1,)), -1)
