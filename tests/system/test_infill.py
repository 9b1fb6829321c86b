"""Infill over the wire: sentinels go in by id, text stays text, and models without it refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import TokenizerFamily, make_checkpoint, tokenizer_json
from running_service import serving
from system.cases import TOKEN_COUNT, prompt_ids

from santacoder_client import Client, Completion, FailedPrecondition, InvalidRequest

PREFIX = "def add(a, b):\n    return "
SUFFIX = "\n\nprint(add(1, 2))\n"
SPELLINGS: dict[TokenizerFamily, str] = {
    "santacoder": "<fim-{}>",
    "starcoder": "<fim_{}>",
    "old": "<fim-{}>",
}
NEW_TOKEN_COUNT = 24


def sentinel(client: Client, spelling: str, part: str) -> int:
    """The id that the server names for a sentinel."""
    [found] = [
        token.token_id
        for token in client.model().special_tokens
        if token.text == spelling.format(part)
    ]
    return found


def laid_out(
    client: Client, spelling: str, order: str, prefix: list[int], suffix: list[int]
) -> list[int]:
    """An infill prompt put together by hand, as the model was trained on it."""
    first, last, middle = (
        sentinel(client, spelling, part) for part in ("prefix", "suffix", "middle")
    )
    if order == "psm":
        return [first, *prefix, last, *suffix, middle]
    return [first, last, *suffix, middle, *prefix]


def from_ids(client: Client, prompt: list[int]) -> Completion:
    return client.complete(
        prompt, max_new_tokens=NEW_TOKEN_COUNT, ignore_eos=True, cache_salt="by hand"
    )


def from_text(client: Client, prefix: str, suffix: str, order: str) -> Completion:
    return client.infill(
        prefix, suffix, fim_order=order, max_new_tokens=NEW_TOKEN_COUNT, ignore_eos=True
    )


@pytest.fixture(scope="module", params=["santacoder", "starcoder", "old"])
def family(request: pytest.FixtureRequest) -> TokenizerFamily:
    """Hyphens, underscores, and a tokenizer of before the specials, which is given SantaCoder's."""
    name: TokenizerFamily = request.param
    return name


@pytest.fixture(scope="module")
def family_client(
    family: TokenizerFamily,
    client: Client,
    run_folders: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    if family == "santacoder":
        yield client
        return
    folder = tmp_path_factory.mktemp("family") / family
    make_checkpoint(folder, family=family, positions=256)
    with serving(folder, run_folders) as service, Client(service.target) as connected:
        yield connected
        service.stop()


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_infill_equals_a_prompt_of_ids_put_together_by_hand(
    family_client: Client, family: TokenizerFamily, order: str
) -> None:
    ids = [family_client.tokenize(text) for text in (PREFIX, SUFFIX)]
    by_hand = laid_out(family_client, SPELLINGS[family], order, *ids)
    infill = from_text(family_client, PREFIX, SUFFIX, order)
    assert infill.token_ids == from_ids(family_client, by_hand).token_ids
    assert infill.usage.prompt_token_count == len(by_hand)
    assert infill.accepted.fim_order == order


def test_psm_is_the_default_and_the_orders_differ(client: Client) -> None:
    default = client.infill(PREFIX, SUFFIX, max_new_tokens=NEW_TOKEN_COUNT, ignore_eos=True)
    psm, spm = (from_text(client, PREFIX, SUFFIX, order) for order in ("psm", "spm"))
    assert default.token_ids == psm.token_ids
    assert psm.token_ids != spm.token_ids


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_a_part_may_be_empty(client: Client, order: str) -> None:
    for prefix, suffix in ((PREFIX, ""), ("", SUFFIX)):
        ids = [client.tokenize(text) for text in (prefix, suffix)]
        by_hand = laid_out(client, SPELLINGS["santacoder"], order, *ids)
        infill = from_text(client, prefix, suffix, order)
        assert infill.token_ids == from_ids(client, by_hand).token_ids


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_text_that_spells_sentinels_stays_text(
    family_client: Client, family: TokenizerFamily, order: str
) -> None:
    names = [SPELLINGS[family].format(part) for part in ("prefix", "suffix", "middle", "pad")]
    specials = {token.token_id for token in family_client.model().special_tokens}
    assert {token.text for token in family_client.model().special_tokens} >= {*names}
    spelled = "x = '" + "".join(names) + "<|endoftext|>'"
    ids = family_client.tokenize(spelled)
    assert not specials & set(ids)
    assert family_client.detokenize(ids) == spelled
    by_hand = laid_out(family_client, SPELLINGS[family], order, ids, ids)
    infill = from_text(family_client, spelled, spelled, order)
    assert infill.token_ids == from_ids(family_client, by_hand).token_ids
    plain = family_client.complete(spelled, max_new_tokens=NEW_TOKEN_COUNT, ignore_eos=True)
    assert plain.token_ids == from_ids(family_client, ids).token_ids


def without_sentinels(folder: Path) -> Path:
    """A tokenizer that has an end of text, and no more specials."""
    content = json.loads(tokenizer_json("santacoder"))
    content["added_tokens"] = content["added_tokens"][:1]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("cause", ["switched off", "no sentinels"])
def test_where_there_is_no_infill_it_is_refused_and_completion_goes_on(
    tmp_path: Path, run_folders: Path, cause: str
) -> None:
    folder = make_checkpoint(tmp_path / "m")
    if cause == "no sentinels":
        without_sentinels(folder)
    extra = ["--fim=off"] if cause == "switched off" else []
    with (
        serving(folder, run_folders, *extra) as service,
        Client(service.target) as client,
    ):
        assert not client.model().infill_supported
        for order in ("psm", "spm"):
            with pytest.raises(FailedPrecondition) as caught:
                client.infill(PREFIX, SUFFIX, fim_order=order)
            assert caught.value.reason == "FIM_UNSUPPORTED"
        assert len(from_ids(client, prompt_ids(61, 10)).token_ids) == NEW_TOKEN_COUNT


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_keep_nearest_keeps_the_text_at_the_cursor_and_counts_what_it_drops(
    client: Client, order: str
) -> None:
    context = client.model().limits.context_token_count
    prefix, suffix = (client.detokenize(prompt_ids(seed, 1500)) for seed in (62, 63))
    prefix_ids, suffix_ids = client.tokenize(prefix), client.tokenize(suffix)
    done = client.infill(
        prefix,
        suffix,
        fim_order=order,
        truncate="keep_nearest",
        max_new_tokens=NEW_TOKEN_COUNT,
        ignore_eos=True,
    )
    usage = done.usage
    assert usage.dropped_prefix_token_count > 0
    assert usage.dropped_suffix_token_count > 0
    assert usage.prompt_token_count + NEW_TOKEN_COUNT == context
    kept_prefix = prefix_ids[usage.dropped_prefix_token_count :]
    kept_suffix = suffix_ids[: len(suffix_ids) - usage.dropped_suffix_token_count]
    by_hand = laid_out(client, SPELLINGS["santacoder"], order, kept_prefix, kept_suffix)
    assert usage.prompt_token_count == len(by_hand)
    assert done.token_ids == from_ids(client, by_hand).token_ids


def test_a_prompt_too_long_is_refused_with_both_counts_by_default(client: Client) -> None:
    long = prompt_ids(64, 3000)
    assert max(long) < TOKEN_COUNT
    with pytest.raises(InvalidRequest) as caught:
        client.complete(long)
    assert caught.value.reason == "CONTEXT_LENGTH"
    assert caught.value.metadata["prompt_token_count"] == "3000"
    assert caught.value.metadata["context_token_count"] == "2048"
    kept = client.complete(long, truncate="keep_nearest", max_new_tokens=8, ignore_eos=True)
    assert kept.usage.dropped_prefix_token_count == 3000 - (2048 - 8)
    end = client.complete(long[-2040:], max_new_tokens=8, ignore_eos=True, cache_salt="end")
    assert kept.token_ids == end.token_ids
