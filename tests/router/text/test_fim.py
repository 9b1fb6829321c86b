"""Infill prompts have the two layouts that SantaCoder was trained on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from santacoder_router.text.fim import Sentinels, lay_out, sentinel_count
from santacoder_router.text.prompt import FimOrder, PromptIds
from santacoder_router.text.tokenizer import Tokenizer

SENTINELS = Sentinels(prefix=101, middle=102, suffix=103)


def test_psm_is_prefix_suffix_middle() -> None:
    prompt = PromptIds((1, 2), (3, 4), FimOrder.PSM)
    assert lay_out(prompt, SENTINELS) == (101, 1, 2, 103, 3, 4, 102)


def test_spm_is_variant_2_prefix_after_the_middle_sentinel() -> None:
    prompt = PromptIds((1, 2), (3, 4), FimOrder.SPM)
    assert lay_out(prompt, SENTINELS) == (101, 103, 3, 4, 102, 1, 2)


def test_spm_with_a_longer_prefix_only_appends() -> None:
    shorter = lay_out(PromptIds((1, 2), (3,), FimOrder.SPM), SENTINELS)
    longer = lay_out(PromptIds((1, 2, 9), (3,), FimOrder.SPM), SENTINELS)
    assert longer[: len(shorter)] == shorter


@pytest.mark.parametrize("order", FimOrder)
def test_an_empty_part_still_has_its_sentinel(order: FimOrder) -> None:
    for prompt in (PromptIds((), (3,), order), PromptIds((1,), (), order)):
        assert {101, 102, 103} <= set(lay_out(prompt, SENTINELS))


@pytest.mark.parametrize("order", [None, *FimOrder])
def test_the_sentinels_cost_what_sentinel_count_says(order: FimOrder | None) -> None:
    ids = lay_out(PromptIds((1, 2), () if order is None else (3,), order), SENTINELS)
    assert len(ids) - sentinel_count(order) == (2 if order is None else 3)


def test_a_plain_prompt_is_its_ids_with_or_without_sentinels() -> None:
    assert lay_out(PromptIds((5, 6)), SENTINELS) == lay_out(PromptIds((5, 6)), None) == (5, 6)


def test_an_infill_prompt_cannot_be_laid_out_without_sentinels() -> None:
    with pytest.raises(ValueError, match="needs sentinels"):
        lay_out(PromptIds((1,), (2,), FimOrder.PSM), None)


@given(prefix=st.text(alphabet="<fim-prefxdlsu>|ot"), suffix=st.sampled_from(["<fim-middle>", "x"]))
@pytest.mark.parametrize("order", FimOrder)
def test_text_that_spells_sentinels_adds_none(
    tokenizer: Tokenizer, order: FimOrder, prefix: str, suffix: str
) -> None:
    sentinels = tokenizer.sentinels
    assert sentinels is not None
    before, after = tokenizer.encode(f"<fim-suffix>{prefix}", suffix)
    ids = lay_out(PromptIds(tuple(before), tuple(after), order), sentinels)
    for sentinel in (sentinels.prefix, sentinels.middle, sentinels.suffix):
        assert ids.count(sentinel) == 1
