"""One request over the wire, and what its record says, against a real server in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import grpc
import pytest

from santacoder_client.loadtest import router_sender
from santacoder_client.loadtest.answer import END_OF_RUN
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.errors import Unreachable
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.router_sender import RouterSender
from santacoder_client.loadtest.session_sender import SESSIONS_PER_CHANNEL, SessionSender
from santacoder_client.loadtest.target import Security, Target
from santacoder_client.testing import Answer, Failure, FakeRouter

AnySender = RouterSender | SessionSender
Fact = TypeVar("Fact")
Serve = Callable[..., FakeRouter]

PROMPT = Prompt("text", text="def f", family="plain")
SLOW = Answer(("a",) * 100, seconds_per_piece=0.1)
REFUSED = Answer((), failure=Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full"))
APIS = ["stream", "unary", "session"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as routers:

        def start(*answers: Answer) -> FakeRouter:
            return routers.enter_context(FakeRouter(*answers))

        yield start


def sender_to(router: FakeRouter, wishes: Wishes) -> AnySender:
    target = Target(router.target, "router", (router.target,))
    if wishes.api == "session":
        return SessionSender(target, Security(), wishes)
    return RouterSender(target, Security(), wishes, channel_count=2)


def with_sender(
    router: FakeRouter, wishes: Wishes, scenario: Callable[[AnySender], Awaitable[Fact]]
) -> Fact:
    async def run() -> Fact:
        sender = sender_to(router, wishes)
        await sender.open()
        try:
            return await scenario(sender)
        finally:
            await sender.close()

    return asyncio.run(run())


def new_record(index: int = 0) -> RequestRecord:
    return RequestRecord(index, "here", "text", scheduled_at=time.monotonic())


def sent(router: FakeRouter, **wishes: Any) -> RequestRecord:
    """The record of one request."""

    async def scenario(sender: AnySender) -> RequestRecord:
        record = new_record()
        await sender.send(PROMPT, record, time.monotonic)
        return record

    return with_sender(router, Wishes(**wishes), scenario)


@pytest.mark.parametrize("api", ["stream", "session"])
def test_tokens_are_counted_by_their_ids_and_not_by_messages(serve: Serve, api: str) -> None:
    record = sent(serve(Answer(("abc", "", "de"), seconds_per_piece=0.02)), api=api)
    assert record.outcome is Outcome.OK and record.status == "OK"
    assert [chunk.token_count for chunk in record.chunks] == [3, 2]
    assert record.completion_token_count == 5
    assert record.prompt_token_count == len("def f")


@pytest.mark.parametrize("api", ["stream", "session"])
def test_every_moment_is_kept_in_its_order(serve: Serve, api: str) -> None:
    record = sent(serve(Answer(("a", "b"), seconds_per_piece=0.05)), api=api)
    times = [record.scheduled_at, record.dispatched_at, record.accepted_at]
    times += [chunk.at_seconds for chunk in record.chunks] + [record.finished_at]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    first, second = record.chunks
    assert second.at_seconds - first.at_seconds > 0.02
    assert record.server_queue_seconds == 0.001
    assert record.server_first_token_seconds == 0.002
    assert record.server_total_seconds == 0.003


def test_a_unary_answer_has_counts_and_no_first_token(serve: Serve) -> None:
    record = sent(serve(Answer(("abc", "de"))), api="unary")
    assert record.outcome is Outcome.OK
    assert record.completion_token_count == 5
    assert record.chunks == [] and record.accepted_at is None
    assert record.finished_at is not None and record.server_total_seconds == 0.003


@pytest.mark.parametrize("api", APIS)
def test_a_refusal_is_a_failure_with_status_and_reason(serve: Serve, api: str) -> None:
    record = sent(serve(REFUSED), api=api)
    assert (record.outcome, record.status, record.reason, record.message) == (
        Outcome.FAILED,
        "RESOURCE_EXHAUSTED",
        "QUEUE_FULL",
        "full",
    )
    assert record.finished_at is not None


def test_what_came_before_a_failure_is_kept(serve: Serve) -> None:
    lost = Failure(grpc.StatusCode.INTERNAL, "INTERNAL")
    record = sent(serve(Answer(("ab", "c"), failure=lost)))
    assert record.outcome is Outcome.FAILED
    assert record.completion_token_count == 3


@pytest.mark.parametrize("api", APIS)
def test_a_deadline_is_a_failure(serve: Serve, api: str) -> None:
    record = sent(serve(SLOW), api=api, timeout_seconds=0.2)
    assert (record.outcome, record.status) == (Outcome.FAILED, "DEADLINE_EXCEEDED")
    assert record.cancelled_at is None


@pytest.mark.parametrize("api", APIS)
def test_a_planned_cancel_reaches_the_server(serve: Serve, api: str) -> None:
    router = serve(SLOW)
    # Again where the machine was too slow for the request to have left by then.
    while not router.requests:
        record = sent(router, api=api, cancel_share=1.0, cancel_after_seconds=0.25)
    assert record.outcome is Outcome.CANCELLED
    assert record.cancelled_at is not None and record.dispatched_at is not None
    assert record.cancelled_at - record.dispatched_at >= 0.2
    assert router.wait_for_cancel(timeout=30)


def test_only_a_session_confirms_a_cancel(serve: Serve) -> None:
    cancel = {"cancel_share": 1.0, "cancel_after_seconds": 0.25}
    assert sent(serve(SLOW), api="stream", **cancel).finished_at is None
    confirmed = sent(serve(SLOW), api="session", **cancel)
    assert confirmed.finished_at is not None and confirmed.cancelled_at is not None
    assert confirmed.finished_at >= confirmed.cancelled_at


def test_an_answer_that_is_faster_than_its_cancel_is_no_cancel(serve: Serve) -> None:
    record = sent(serve(Answer()), api="session", cancel_share=1.0, cancel_after_seconds=60)
    assert record.outcome is Outcome.OK and record.cancelled_at is None


@pytest.mark.parametrize("api", APIS)
def test_a_request_that_the_end_of_the_run_cuts_says_so(serve: Serve, api: str) -> None:
    async def scenario(seconds: float, sender: AnySender) -> RequestRecord:
        record = new_record()
        asked = len(router.requests)
        task = asyncio.create_task(sender.send(PROMPT, record, time.monotonic))
        while len(router.requests) == asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return record

    router = serve(SLOW)
    for seconds in (0.25, 2.0, 8.0):  # longer where the machine was too slow for a token to come
        record = with_sender(router, Wishes(api=api), partial(scenario, seconds))
        if api == "unary" or record.completion_token_count > 0:
            break
    assert (record.outcome, record.reason) == (Outcome.CANCELLED, END_OF_RUN)
    assert router.wait_for_cancel(len(router.requests), timeout=30)
    if api != "unary":
        assert record.completion_token_count > 0


def test_a_typed_request_supersedes_the_one_before(serve: Serve) -> None:
    async def scenario(sender: AnySender) -> list[RequestRecord]:
        assert isinstance(sender, SessionSender)
        records = [new_record(index) for index in range(3)]
        tasks = []
        for record in records:
            tasks.append(asyncio.create_task(sender.type(0, PROMPT, record, time.monotonic)))
            while len(router.requests) < len(tasks):
                await asyncio.sleep(0.01)
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        return records

    router = serve(SLOW, SLOW, Answer(("done",)))
    first, second, last = with_sender(router, Wishes(api="session"), scenario)
    for cut in (first, second):
        assert cut.outcome is Outcome.SUPERSEDED
        assert cut.finished_at is not None and cut.cancelled_at is not None
        assert cut.finished_at >= cut.cancelled_at
    assert last.outcome is Outcome.OK and last.cancelled_at is None


def test_people_do_not_supersede_each_other(serve: Serve) -> None:
    async def scenario(sender: AnySender) -> list[RequestRecord]:
        assert isinstance(sender, SessionSender)
        records = [new_record(index) for index in range(3)]
        await asyncio.gather(
            *(
                sender.type(person, PROMPT, record, time.monotonic)
                for person, record in enumerate(records)
            )
        )
        return records

    router = serve(Answer(("a", "b"), seconds_per_piece=0.1))
    records = with_sender(router, Wishes(api="session"), scenario)
    assert [record.outcome for record in records] == [Outcome.OK] * 3
    assert len(router.openings) == 3


def test_free_sessions_are_used_again(serve: Serve) -> None:
    async def scenario(sender: AnySender) -> None:
        for index in range(5):
            await sender.send(PROMPT, new_record(index), time.monotonic)

    router = serve(Answer())
    with_sender(router, Wishes(api="session"), scenario)
    assert len(router.openings) == 1 and len(router.requests) == 5


def test_sessions_stay_below_what_a_server_allows_on_a_connection() -> None:
    assert SESSIONS_PER_CHANNEL < 64


@pytest.mark.parametrize("api", APIS)
def test_a_server_that_is_gone_is_a_failure_of_each_request(serve: Serve, api: str) -> None:
    async def scenario(sender: AnySender) -> list[RequestRecord]:
        before, after = new_record(0), new_record(1)
        running = asyncio.create_task(sender.send(PROMPT, before, time.monotonic))
        while not router.requests:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(router.close)
        await asyncio.wait_for(running, 60)
        await asyncio.wait_for(sender.send(PROMPT, after, time.monotonic), 60)
        return [before, after]

    router = serve(SLOW)
    for record in with_sender(router, Wishes(api=api), scenario):
        assert record.outcome is Outcome.FAILED
        assert record.status in ("UNAVAILABLE", "CANCELLED", "UNKNOWN")


def test_nobody_there_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(router_sender, "CONNECT_SECONDS", 0.3)
        target = Target("127.0.0.1:1", "router", ("127.0.0.1:1",))
        with pytest.raises(Unreachable, match="cannot reach the server"):
            await RouterSender(target, Security(), Wishes(), 1).open()

    asyncio.run(scenario())


def test_a_token_goes_with_every_call(serve: Serve) -> None:
    assert Security(token="abc").metadata == (("authorization", "Bearer abc"),)
    assert Security().metadata is None
