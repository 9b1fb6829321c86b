"""A stream whose server is gone goes on with the next, which is asked for the rest alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from awaited import Ask

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import (
    AsyncClient,
    Client,
    Completion,
    CompletionOptions,
    FailedPrecondition,
    Overloaded,
    Unavailable,
)
from santacoder_client._resume import Received
from santacoder_client.testing import Answer, Failure, FakeRouter

Serve = Callable[..., FakeRouter]
LOST = Failure(grpc.StatusCode.UNAVAILABLE, message="Socket closed")
DRAINING = Failure(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after=1.0)
WHOLE = ("def ", "é", "()", ": ☃")


@pytest.mark.fault("R1")
@pytest.mark.parametrize("count", range(1, len(WHOLE) + 1))
@pytest.mark.parametrize("failure", [LOST, DRAINING], ids=["lost", "draining"])
def test_a_stream_goes_on_behind_what_it_has(
    ask: Ask, serve: Serve, count: int, failure: Failure
) -> None:
    router = serve(Answer(WHOLE[:count], failure=failure), Answer(WHOLE))
    options = CompletionOptions(logprobs=1, echo=True, request_id="mine")

    async def scenario(client: AsyncClient) -> tuple[list[str], Completion]:
        stream = client.stream("p", **options)
        texts = [piece.text async for piece in stream if piece.text]
        return texts, await stream.result()

    texts, done = ask(router.target, scenario)
    assert texts == ["pdef ", *WHOLE[1:]]
    assert done == ask(serve(Answer(WHOLE)).target, lambda client: client.complete("p", **options))
    first, second = router.requests
    received = "".join(WHOLE[:count])
    assert second.resume == pb.Resume(
        choices=[
            pb.ResumedChoice(
                token_ids=map(ord, received),
                text_byte_count=len(f"p{received}".encode()),
                finished=False,
            )
        ],
        model_revision="fake",
    )
    # The rest is as it was, with what the server had filled in.
    second.ClearField("resume")
    first.sampling.seed, first.stopping.max_new_tokens = 0, 128
    assert second == first


@pytest.mark.fault("R1")
def test_each_choice_goes_on_behind_what_it_has(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a", "b"), failure=LOST), Answer(("a", "bcd")))

    async def scenario(client: AsyncClient) -> Completion:
        return await client.stream("p", completion_count=2).result()

    done = ask(router.target, scenario)
    assert [choice.text for choice in done.choices] == ["abcd", "abcd"]
    assert [choice.index for choice in router.requests[1].resume.choices] == [0, 1]


def test_what_was_lost_before_it_was_taken_is_asked_for_as_it_was(ask: Ask, serve: Serve) -> None:
    lost = Answer((), failure=LOST)
    streamed, unary = serve(lost, lost, Answer(("ok",))), serve(lost, Answer(("ok",)))
    assert ask(streamed.target, lambda client: client.stream("p").result()).text == "ok"
    assert ask(unary.target, lambda client: client.complete("p")).text == "ok"
    for request in (*streamed.requests, *unary.requests):
        assert request == pb.CompletionRequest(text="p")


def test_a_server_with_no_room_is_asked_again_before_the_first_token_only(
    ask: Ask, serve: Serve
) -> None:
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_after=0.01)
    refused, shed = serve(Answer((), failure=full), Answer()), serve(Answer(("a",), failure=full))

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(Overloaded):
            await client.stream("p").result()

    assert ask(refused.target, lambda client: client.stream("p").result()).text == "ok"
    ask(shed.target, scenario)
    assert (len(refused.requests), len(shed.requests)) == (2, 1)


def test_without_a_policy_nothing_is_tried_again(serve: Serve) -> None:
    router = serve(Answer(("a",), failure=LOST), Answer((), failure=LOST), Answer())

    async def scenario() -> None:
        async with AsyncClient(router.target, retry=None) as client:
            with pytest.raises(Unavailable):
                await client.complete("p")

    with Client(router.target, retry=None) as client, pytest.raises(Unavailable):
        client.stream("p").result()
    asyncio.run(scenario())
    assert len(router.requests) == 2


def test_a_cancel_ends_the_wait_for_a_server(serve: Serve) -> None:
    router = serve(Answer(("a",), seconds_per_piece=60))
    with Client(router.target) as client:
        stream = client.stream("p")
        router_is_asked(router)
        router.close()
        threading.Timer(0.2, stream.cancel).start()
        assert list(stream) == []


def test_a_cancelled_task_ends_the_wait_for_a_server(serve: Serve) -> None:
    router = serve(Answer(("a",), seconds_per_piece=60))

    async def scenario() -> None:
        async with AsyncClient(router.target) as client:
            task = asyncio.create_task(client.stream("p").result())
            await asyncio.to_thread(router_is_asked, router)
            await asyncio.to_thread(router.close)
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


def router_is_asked(router: FakeRouter) -> None:
    while not router.requests:
        time.sleep(0.01)


def events(**fields: Any) -> pb.CompletionEvent:
    return pb.CompletionEvent(**fields)


def test_a_server_that_does_not_know_of_resuming_is_not_mistaken_for_one_that_does() -> None:
    received = Received(pb.CompletionRequest(text="p"))
    assert received.add(events(accepted=pb.Accepted(model_revision="m")))
    assert received.add(events(delta=pb.Delta(token_ids=[1, 2], text="é")))
    received.rest(0.0)
    with pytest.raises(FailedPrecondition, match="cannot go on"):
        received.add(events(accepted=pb.Accepted(model_revision="m")))
    received.rest(0.0)
    assert not received.add(events(accepted=pb.Accepted(resumed_token_count=2)))


def test_the_time_that_has_passed_is_taken_from_the_time_budget() -> None:
    request = pb.CompletionRequest(text="p")
    request.time_budget.FromMilliseconds(500)
    received = Received(request)
    assert received.rest(0.3).time_budget.ToMilliseconds() == 200
    assert received.rest(9.0).time_budget.ToMilliseconds() == 10


def test_an_end_that_was_told_is_not_asked_for_again() -> None:
    received = Received(pb.CompletionRequest(text="p", completion_count=2))
    received.add(events(accepted=pb.Accepted()))
    received.add(events(delta=pb.Delta(index=1, token_ids=[5], text="x")))
    received.add(events(choice_finished=pb.ChoiceFinished(index=1)))
    [choice] = received.rest(0.0).resume.choices
    assert choice == pb.ResumedChoice(index=1, token_ids=[5], text_byte_count=1, finished=True)
