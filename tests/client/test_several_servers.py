"""A target of several servers: the first that serves is used, and the next when it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest
from awaited import Ask

from santacoder_client import AsyncClient, Client, Unavailable
from santacoder_client.testing import Answer, Failure, FakeRouter

Serve = Callable[..., FakeRouter]
NOBODY = "127.0.0.1:1"
DRAINING = Failure(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after=1.0)
LOST = Failure(grpc.StatusCode.UNAVAILABLE, message="Socket closed")


async def every_verb(client: AsyncClient) -> list[object]:
    """What each of them gives."""
    async with client.session() as session:
        turn = (await session.complete("x")).text
    return [
        (await client.complete("x")).text,
        (await client.stream("x").result()).text,
        turn,
        await client.tokenize("a"),
        await client.detokenize([97]),
        (await client.model()).name,
    ]


@pytest.mark.fault("X4")
def test_a_server_that_is_not_there_costs_no_call(ask: Ask, serve: Serve) -> None:
    first = serve()
    undisturbed = ask(first.target, every_verb)
    assert ask(f"{NOBODY},{first.target}", every_verb) == undisturbed
    assert ask(f"{first.target},{NOBODY}", every_verb) == undisturbed


@pytest.mark.fault("X4")
@pytest.mark.parametrize("failure", [LOST, DRAINING], ids=["lost", "draining"])
def test_a_stream_goes_on_at_the_next_server_and_stays_there(
    ask: Ask, serve: Serve, failure: Failure
) -> None:
    first, second = serve(Answer(("a", "b"), failure=failure)), serve(Answer(("a", "b", "c")))

    async def scenario(client: AsyncClient) -> list[str]:
        return [(await client.stream("x").result()).text for _ in range(2)]

    assert ask(f"{first.target},{second.target}", scenario) == ["abc", "abc"]
    assert (len(first.requests), len(second.requests)) == (1, 2)
    assert second.requests[0].HasField("resume") and not second.requests[1].HasField("resume")


def test_ready_is_whoever_serves(ask: Ask, serve: Serve) -> None:
    target = f"{NOBODY},{serve().target}"
    ask(target, lambda client: client.wait_ready(60))


def test_with_nobody_there_it_is_said_soon(ask: Ask) -> None:
    async def scenario(client: AsyncClient) -> None:
        for verb in (client.complete, client.tokenize):
            with pytest.raises(Unavailable):
                await verb("x")

    ask(f"{NOBODY},127.0.0.1:2", scenario)


@pytest.mark.parametrize("target", ["a:1,", ",a:1", "a:1,a:1"])
def test_a_list_with_a_hole_or_a_repetition_is_refused(target: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="target: not an address; got"):
            kind(target)


def test_a_token_goes_in_plaintext_to_none_of_them_that_is_elsewhere() -> None:
    with pytest.raises(ValueError, match=r"would go unencrypted; got '10\.0\.0\.1:1'"):
        Client("127.0.0.1:1,10.0.0.1:1", token="secret")


def test_an_event_loop_of_its_own_has_channels_of_its_own(serve: Serve) -> None:
    async def scenario() -> str:
        async with AsyncClient(f"{NOBODY},{serve().target}") as client:
            return (await client.complete("x")).text

    assert asyncio.run(scenario()) == asyncio.run(scenario())
