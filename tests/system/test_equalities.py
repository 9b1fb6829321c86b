"""A request's answer is the same whoever else is served, and however it is carried out.

Ids and log probabilities are compared bit for bit on one rank; across ranks, ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running_service import Service, serving
from system.cases import CROWD_SIZE, OPTIONS, a_crowd, complete, prompt_ids, said

from santacoder_client import Client, Completion

STEP_TOKENS = 16
CACHE_TOKENS = 2048
PROMPT = prompt_ids(1, 50)


@pytest.fixture(scope="module")
def in_a_crowd(service: Service, client: Client) -> dict[str, Completion]:
    """Each kind of request among 31 others."""
    with a_crowd(client):
        answers = {kind: complete(client, PROMPT, OPTIONS[kind]) for kind in OPTIONS}
        # Were there fewer, neighbours would have ended: their answers must be longer.
        service.wait_metric("santacoder_router_running_requests", CROWD_SIZE - 1)
    return answers


@pytest.fixture(scope="module")
def cramped(model_folder: Path, run_folders: Path) -> Iterator[Service]:
    """Steps of 16 tokens, and a KV cache that holds one request of full length."""
    limits = (f"--tokens-per-step={STEP_TOKENS}", f"--kv-cache-tokens={CACHE_TOKENS}")
    with serving(model_folder, run_folders, *limits) as running:
        yield running
        running.stop()


@pytest.fixture(scope="module")
def cramped_client(cramped: Service) -> Iterator[Client]:
    with Client(cramped.target) as connected:
        yield connected


@pytest.mark.parametrize("kind", OPTIONS)
def test_alone_equals_among_31_others(
    client: Client, in_a_crowd: dict[str, Completion], kind: str
) -> None:
    assert said(complete(client, PROMPT, OPTIONS[kind])) == said(in_a_crowd[kind])


def test_each_of_32_requests_at_once_equals_itself_alone(client: Client) -> None:
    prompts = [prompt_ids(number, 3 + 17 * number) for number in range(CROWD_SIZE)]
    options = list(itertools.islice(itertools.cycle(OPTIONS.values()), CROWD_SIZE))
    with ThreadPoolExecutor(CROWD_SIZE) as threads:
        at_once = list(threads.map(lambda *case: complete(client, *case), prompts, options))
    alone = [complete(client, *case) for case in zip(prompts, options, strict=True)]
    assert [said(done) for done in at_once] == [said(done) for done in alone]


@pytest.mark.parametrize("kind", [kind for kind in OPTIONS if kind != "greedy"])
def test_a_seed_gives_the_same_ids_alone_in_a_crowd_and_under_tp_2(
    client: Client,
    client_of_two_ranks: Client,
    in_a_crowd: dict[str, Completion],
    kind: str,
) -> None:
    alone = complete(client, PROMPT, OPTIONS[kind]).token_ids
    assert alone == in_a_crowd[kind].token_ids
    assert alone == complete(client_of_two_ranks, PROMPT, OPTIONS[kind]).token_ids
    other_seed = OPTIONS[kind] | {"seed": 12345}
    assert alone != complete(client, PROMPT, other_seed).token_ids


@pytest.mark.parametrize("kind", OPTIONS)
def test_chunked_equals_whole(
    client: Client, cramped: Service, cramped_client: Client, kind: str
) -> None:
    prompt, max_new_tokens = prompt_ids(2, 300), 8
    assert client.model().numerics_id == cramped_client.model().numerics_id
    plan_count = cramped.metric("santacoder_router_plans_total")
    chunked = complete(cramped_client, prompt, OPTIONS[kind] | {"cache_salt": kind}, max_new_tokens)
    plan_count = cramped.metric("santacoder_router_plans_total") - plan_count
    whole = complete(client, prompt, OPTIONS[kind] | {"cache_salt": kind}, max_new_tokens)
    assert said(chunked) == said(whole)
    assert chunked.usage.cached_token_count == whole.usage.cached_token_count == 0
    assert plan_count >= len(prompt) / STEP_TOKENS


@pytest.mark.parametrize("kind", OPTIONS)
def test_cached_equals_uncached_and_another_salt_shares_nothing(client: Client, kind: str) -> None:
    prompt = prompt_ids(3, 100)
    salted = OPTIONS[kind] | {"cache_salt": f"mine, {kind}"}
    uncached = complete(client, prompt, salted)
    cached = complete(client, prompt, salted)
    elsewhere = complete(client, prompt, salted | {"cache_salt": f"yours, {kind}"})
    counts = [done.usage.cached_token_count for done in (uncached, cached, elsewhere)]
    assert counts == [0, 96, 0]
    assert said(cached) == said(uncached) == said(elsewhere)


def test_another_tail_on_a_cached_prefix_equals_itself_uncached(client: Client) -> None:
    prefix, tail = prompt_ids(4, 64), prompt_ids(5, 20)
    complete(client, prefix + prompt_ids(6, 20), OPTIONS["greedy"])
    cached = complete(client, prefix + tail, OPTIONS["greedy"])
    uncached = complete(client, prefix + tail, OPTIONS["greedy"] | {"cache_salt": "none"})
    assert (cached.usage.cached_token_count, uncached.usage.cached_token_count) == (64, 0)
    assert said(cached) == said(uncached)


@pytest.mark.fault("R15")
def test_preempted_equals_not_preempted(
    service: Service, client: Client, cramped: Service, cramped_client: Client
) -> None:
    options = [*OPTIONS.values(), OPTIONS["greedy"]]
    cases = [
        (prompt_ids(200 + number, 380 + number), kind, 300) for number, kind in enumerate(options)
    ]
    # All prompts fit the cache together; their answers do not, and who came last gives way.
    prompt_token_count = sum(len(prompt) for prompt, _, _ in cases)
    assert prompt_token_count < CACHE_TOKENS < prompt_token_count + 300 * len(cases)
    with ThreadPoolExecutor(len(cases)) as threads:
        preempted = list(threads.map(lambda case: complete(cramped_client, *case), cases))
        # The same at once where there is room for all.
        undisturbed = list(threads.map(lambda case: complete(client, *case), cases))
    for side in (cramped, service):
        side.wait_metric("santacoder_router_running_requests", 0)
    preemption_counts = [
        side.metric("santacoder_router_preemptions_total") for side in (cramped, service)
    ]
    assert preemption_counts[0] > 0 == preemption_counts[1]
    assert [said(done) for done in preempted] == [said(done) for done in undisturbed]


@pytest.mark.parametrize("kind", OPTIONS)
def test_tp_2_ids_equal_tp_1_ids(client: Client, client_of_two_ranks: Client, kind: str) -> None:
    one, two = (complete(side, PROMPT, OPTIONS[kind]) for side in (client, client_of_two_ranks))
    assert client_of_two_ranks.model().tensor_parallel_size == 2
    assert two.token_ids == one.token_ids
    assert two.text == one.text


def test_dummy_ids_never_appear(client: Client) -> None:
    model = client.model()
    assert model.token_count < model.vocabulary_size
    done = client.complete(
        PROMPT,
        max_new_tokens=250,
        completion_count=8,
        temperature=5.0,
        seed=1,
        ignore_eos=True,
        logprobs=20,
    )
    # At this temperature a choice of 2,000 tokens without the mask would hold about 50 of them.
    chosen = {token_id for choice in done.choices for token_id in choice.token_ids}
    listed = {
        entry.token_id
        for choice in done.choices
        for position in choice.logprobs
        for entry in position.top
    }
    assert len(chosen) > 0.9 * model.token_count
    assert max(chosen) < model.token_count
    assert max(listed) < model.token_count
