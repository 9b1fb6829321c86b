"""An editor's session: turns supersede each other, in both clients, over real gRPC."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import grpc
import pytest
from awaited import Ask

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import (
    AsyncClient,
    AsyncSession,
    Cancelled,
    Client,
    DeadlineExceeded,
    FinishReason,
    InvalidRequest,
    Overloaded,
    Piece,
    ServerError,
    Unavailable,
)
from santacoder_client._retry import DEFAULT_POLICY, Retries, RetryBudget
from santacoder_client._turns import Turn, Turns
from santacoder_client.testing import Answer, Failure, FakeRouter

Serve = Callable[..., FakeRouter]

SLOW = Answer(("a",) * 1000, seconds_per_piece=0.1)
LOST = Failure(grpc.StatusCode.UNAVAILABLE, message="Socket closed")
DRAINING = Failure(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after=1.0)


def test_a_turn_supersedes_the_one_before(ask: Ask, serve: Serve) -> None:
    router = serve(SLOW, Answer(("new",)))

    async def scenario(client: AsyncClient) -> tuple[Piece, str, list[Piece]]:
        async with client.session(priority="high", cache_salt="doc") as session:
            old = session.stream("old")
            first = await anext(old)
            new = await session.complete("new", max_new_tokens=3)
            return first, new.text, [piece async for piece in old]

    first, text, rest = ask(router.target, scenario)
    assert (first.text, text) == ("a", "new")
    assert rest[-1].finish_reason is FinishReason.CANCELLED
    assert len(rest) < 500
    assert router.openings == [pb.SessionOpen(priority=pb.PRIORITY_HIGH, cache_salt=b"doc")]
    assert [request.text for request in router.requests] == ["old", "new"]
    assert router.requests[1].stopping.max_new_tokens == 3
    assert router.wait_for_cancel(timeout=30)


def test_turns_one_after_the_other_are_whole(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(("a", "b")), Answer(("c",)), Answer(("d", "e")))

    async def scenario(client: AsyncClient) -> list[str]:
        async with client.session() as session:
            return [
                (await session.complete("x")).text,
                (await session.infill("y", "z")).text,
                "".join([piece.text async for piece in session.stream_infill("y", "z")]),
            ]

    assert ask(router.target, scenario) == ["ab", "c", "de"]
    assert router.requests[1].infill == pb.InfillPrompt(prefix="y", suffix="z")
    assert not router.wait_for_cancel(timeout=0.2)


def test_every_choice_of_a_superseded_turn_ends_cancelled(ask: Ask, serve: Serve) -> None:
    router = serve(SLOW, Answer())

    async def scenario(client: AsyncClient) -> list[Piece]:
        async with client.session() as session:
            old = session.stream("old", completion_count=3)
            await anext(old)
            await session.complete("new")
            return [piece async for piece in old]

    ends = [piece for piece in ask(router.target, scenario) if piece.finish_reason]
    assert sorted((piece.index, piece.finish_reason) for piece in ends) == [
        (index, FinishReason.CANCELLED) for index in range(3)
    ]


def test_a_superseded_complete_raises_cancelled(serve: Serve) -> None:
    router = serve(SLOW, Answer(("new",)))
    caught: list[Exception] = []
    with Client(router.target) as client, client.session() as session:

        def superseded() -> None:
            with pytest.raises(Cancelled) as error:
                session.complete("old")
            caught.append(error.value)

        thread = threading.Thread(target=superseded)
        thread.start()
        while not router.requests:
            time.sleep(0.01)
        assert session.complete("new").text == "new"
        thread.join(60)
    assert len(caught) == 1


def test_a_superseded_task_gets_the_sdk_s_cancelled(serve: Serve) -> None:
    router = serve(SLOW, Answer(("new",)))

    async def scenario() -> None:
        async with AsyncClient(router.target) as client, client.session() as session:
            old = asyncio.create_task(session.complete("old"))
            while not router.requests:
                await asyncio.sleep(0.01)
            assert (await session.complete("new")).text == "new"
            with pytest.raises(Cancelled):
                await old

    asyncio.run(scenario())


def test_cancel_ends_the_turn_and_the_session_goes_on(ask: Ask, serve: Serve) -> None:
    router = serve(SLOW, Answer(("next",)))

    async def scenario(client: AsyncClient) -> tuple[list[Piece], str]:
        async with client.session() as session:
            session.cancel()  # nothing runs: nothing happens
            stream = session.stream("x")
            await anext(stream)
            session.cancel()
            rest = [piece async for piece in stream]
            while not router.wait_for_cancel(timeout=0):
                await asyncio.sleep(0.01)  # the cancel is sent by a task of this loop
            return rest, (await session.complete("y")).text

    rest, text = ask(router.target, scenario)
    assert rest[-1].finish_reason is FinishReason.CANCELLED
    assert text == "next"


def test_leaving_the_loop_over_a_turn_cancels_the_turn_alone(ask: Ask, serve: Serve) -> None:
    router = serve(SLOW, Answer(("next",)))

    async def scenario(client: AsyncClient) -> str:
        async with client.session() as session:
            async for piece in session.stream("x"):
                assert piece.text == "a"
                break
            while not router.wait_for_cancel(timeout=0):
                await asyncio.sleep(0.01)  # the turn's cancel is sent by a task of this loop
            return (await session.complete("y")).text

    assert ask(router.target, scenario) == "next"


def test_leaving_an_old_turn_does_not_touch_the_new_one(ask: Ask, serve: Serve) -> None:
    router = serve(SLOW, Answer(("n", "e", "w"), seconds_per_piece=0.1))

    async def scenario(client: AsyncClient) -> str:
        async with client.session() as session:
            old = session.stream("old")
            await anext(old)
            new = session.stream("new")
            await anext(new)
            old.cancel()
            return (await new.result()).text

    assert ask(router.target, scenario) == "new"


def test_a_turn_that_fails_leaves_the_session_open(ask: Ask, serve: Serve) -> None:
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "full", retry_after=0.5)
    lost = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error")
    router = serve(Answer((), failure=full), Answer(("a",), failure=lost), Answer(("fine",)))

    async def scenario(client: AsyncClient) -> str:
        async with client.session() as session:
            with pytest.raises(Overloaded) as refused:
                await session.complete("x")
            assert (refused.value.reason, refused.value.retry_after) == ("QUEUE_FULL", 0.5)
            stream = session.stream("y")
            assert (await anext(stream)).text == "a"
            with pytest.raises(ServerError):
                await anext(stream)
            return (await session.complete("z")).text

    assert ask(router.target, scenario) == "fine"


def test_a_turn_s_timeout_cancels_it_and_is_deadline_exceeded(ask: Ask, serve: Serve) -> None:
    router = serve(SLOW, Answer(("next",)))

    async def scenario(client: AsyncClient) -> str:
        async with client.session() as session:
            started = time.monotonic()
            with pytest.raises(DeadlineExceeded) as late:
                await session.complete("x", timeout=0.3)
            assert 0.25 < time.monotonic() - started < 60  # of the hundred that it takes
            assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
            while not router.wait_for_cancel(timeout=0):
                await asyncio.sleep(0.01)
            return (await session.complete("y", timeout=60)).text

    assert ask(router.target, scenario) == "next"


@pytest.mark.fault("R1")
@pytest.mark.parametrize("failure", [LOST, DRAINING], ids=["lost", "draining"])
def test_a_turn_goes_on_with_the_next_server(ask: Ask, serve: Serve, failure: Failure) -> None:
    router = serve(Answer(("a", "b"), failure=failure), Answer(("a", "b", "c")), Answer(("d",)))

    async def scenario(client: AsyncClient) -> tuple[list[str], str]:
        async with client.session(cache_salt="doc") as session:
            texts = [piece.text async for piece in session.stream("x") if piece.text]
            return texts, (await session.complete("y")).text

    assert ask(router.target, scenario) == (["a", "b", "c"], "d")
    [resumed] = router.requests[1].resume.choices
    assert list(resumed.token_ids) == [ord("a"), ord("b")]
    if failure is DRAINING:  # its server stays until it is left
        assert router.openings == [pb.SessionOpen(cache_salt=b"doc")] * 2


def test_a_session_whose_server_went_away_while_nothing_ran_opens_the_next(ask: Ask) -> None:
    with FakeRouter(Answer(("a",))) as first, FakeRouter(Answer(("b",))) as second:

        async def scenario(client: AsyncClient) -> list[str]:
            async with client.session() as session:
                texts = [(await session.complete("x")).text]
                await asyncio.to_thread(first.close)
                return [*texts, (await session.complete("y")).text]

        assert ask(f"{first.target},{second.target}", scenario) == ["a", "b"]


@pytest.mark.fault("C7")
def test_a_turn_that_comes_as_its_session_is_closed_for_idleness_goes_on(
    ask: Ask, serve: Serve
) -> None:
    idle = Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "SESSION_IDLE")
    router = serve(Answer((), failure=idle), Answer(("a",)))

    async def scenario(client: AsyncClient) -> str:
        async with client.session() as session:
            return (await session.complete("x")).text

    assert ask(router.target, scenario) == "a"
    assert len(router.openings) == 2


def test_a_turn_that_waits_for_a_server_is_superseded_and_cancelled(serve: Serve) -> None:
    router = serve(SLOW)
    with Client(router.target) as client, client.session() as session:
        first = session.stream("x")
        next(first)
        router.close()
        second = session.stream("y")
        assert [piece.finish_reason for piece in first][-1] is FinishReason.CANCELLED
        threading.Timer(0.2, session.cancel).start()
        assert [piece.finish_reason for piece in second] == [FinishReason.CANCELLED]


def test_closing_the_client_ends_a_session_s_turn(serve: Serve) -> None:
    router = serve(SLOW)
    client = Client(router.target)
    session = client.session()
    stream = session.stream("x")
    next(stream)
    client.close()
    with pytest.raises(Cancelled):
        stream.result()
    with pytest.raises(RuntimeError, match="the client is closed"):
        session.complete("y")
    session.close()


def test_without_a_server_a_turn_is_unavailable(ask: Ask) -> None:
    async def scenario(client: AsyncClient) -> None:
        async with client.session() as session:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await session.complete("x", timeout=60)

    ask("127.0.0.1:1", scenario)


def test_closing_a_session_ends_its_turn_and_its_use(ask: Ask, serve: Serve) -> None:
    router = serve(SLOW)

    async def scenario(client: AsyncClient) -> AsyncSession:
        session = client.session()
        stream = session.stream("x")
        await anext(stream)
        await session.close()
        await session.close()
        with pytest.raises(Cancelled):
            await stream.result()
        with pytest.raises(RuntimeError, match="the session is closed; open a new one"):
            await session.complete("y")
        return session

    ask(router.target, scenario)
    assert router.wait_for_cancel(timeout=30)


def test_wrong_values_of_a_turn_or_a_session_are_refused_here(ask: Ask, serve: Serve) -> None:
    router = serve()

    async def scenario(client: AsyncClient) -> None:
        with pytest.raises(InvalidRequest):
            client.session(priority="urgent")
        async with client.session() as session:
            with pytest.raises(InvalidRequest):
                session.stream("x", top_k="many")  # type: ignore[arg-type]

    ask(router.target, scenario)
    assert router.requests == []


class Inbox(list[object]):
    """What one turn was given."""

    def put_nowait(self, item: object, /) -> None:
        self.append(item)


OPENING = pb.SessionOpen(cache_salt=b"doc")


def make_turn(text: str) -> tuple[Turn, Inbox]:
    inbox = Inbox()
    retries = Retries(DEFAULT_POLICY, RetryBudget(), None)
    return Turn(pb.CompletionRequest(text=text), inbox, retries), inbox


def begin(turns: Turns[Turn], text: str) -> tuple[Turn, Inbox, pb.CompletionSessionRequest]:
    turn, inbox = make_turn(text)
    return turn, inbox, turns.begin(turn)


def reply(turn: int, text: str) -> pb.CompletionSessionResponse:
    event = pb.CompletionEvent(delta=pb.Delta(text=text))
    return pb.CompletionSessionResponse(turn=turn, event=event)


def test_turn_numbers_grow_with_every_message() -> None:
    turns: Turns[Turn] = Turns(OPENING)
    first, _, frame = begin(turns, "a")
    cancel = turns.cancel(first)
    _, _, later = begin(turns, "b")
    assert [message.turn for message in (frame, cancel, later) if message] == [1, 2, 3]


def test_late_events_of_an_older_turn_are_dropped() -> None:
    turns: Turns[Turn] = Turns(OPENING)
    _, old, _ = begin(turns, "old")
    _, new, _ = begin(turns, "new")
    before = list(old)
    turns.deliver(reply(1, "late"))
    turns.deliver(reply(2, "fresh"))
    assert old == before
    assert new == [reply(2, "fresh").event]


def test_a_turn_that_is_over_is_not_cancelled_again() -> None:
    turns: Turns[Turn] = Turns(OPENING)
    turn, inbox, _ = begin(turns, "a")
    ended = pb.CompletionEvent(finished=pb.Finished())
    turns.deliver(pb.CompletionSessionResponse(turn=1, event=ended))
    assert turns.cancel(turn) is None
    assert turns.cancel() is None
    assert inbox == [ended, None]
    assert turns.running is None


def test_a_new_connection_begins_with_the_opening_and_the_rest_of_the_running_turn() -> None:
    turns: Turns[Turn] = Turns(OPENING)
    assert turns.anew() == [pb.CompletionSessionRequest(open=OPENING)]
    _, inbox, _ = begin(turns, "a")
    accepted = pb.CompletionEvent(accepted=pb.Accepted(model_revision="m"))
    turns.deliver(pb.CompletionSessionResponse(turn=1, event=accepted))
    turns.deliver(reply(1, "é"))
    opening, rest = turns.anew()
    assert (opening.open, rest.turn) == (OPENING, 2)
    assert rest.completion.resume.choices[0].text_byte_count == 2
    # What an old connection still says of it comes under the old number.
    turns.deliver(reply(1, "late"))
    assert inbox == [accepted, reply(1, "é").event]
