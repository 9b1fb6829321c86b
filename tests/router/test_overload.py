"""One caller beside others, and more than the router can do: who is served, who is refused, when.

Callers are tokens here; the shards are mocks that take their time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from router.mock_shard import Behaviour
from router.running_router import (
    Running,
    detail,
    failure_of,
    reason_of,
    request,
    running_router,
    until,
)
from router.test_guarded_router import line, write_tokens

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc
from santacoder_router.accounts import Account
from santacoder_router.caller_limits import UNKNOWN, CallerLimits, StandingLimits
from santacoder_router.core.plan import ANYBODY, Caller
from santacoder_router.core.scheduler import Scheduler
from santacoder_router.overload_options import OverloadConfig
from santacoder_router.security_options import SecurityConfig

LONG = pb.Stopping(max_new_tokens=200, ignore_eos=True)
SHORT = pb.Stopping(max_new_tokens=4, ignore_eos=True)
SLOW_SECONDS = 0.05


@contextlib.asynccontextmanager
async def guarded(
    folder: Path, names: dict[str, str], behaviour: Behaviour, **overload: Any
) -> AsyncIterator[Running]:
    """A router whose callers are these; what is behind each name are its token's limits."""
    lines = [f"{line(name, 'complete,tokenize,info', name)} {own}" for name, own in names.items()]
    write_tokens(folder / "tokens", *lines)
    settings: dict[str, Any] = {
        "security": SecurityConfig(token_file=folder / "tokens"),
        "overload": OverloadConfig(**overload),
    }
    async with running_router(folder, behaviour, **settings) as running:
        yield running


def metadata(caller: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {caller}"),)


async def complete(running: Running, caller: str, **fields: Any) -> pb.CompleteResponse:
    message = pb.CompleteRequest(completion=request(**fields))
    return await running.completion.Complete(message, metadata=metadata(caller))


async def begun(running: Running, caller: str, **fields: Any) -> Any:
    """A stream whose first token has come."""
    call: Any = running.completion.StreamComplete(
        pb.StreamCompleteRequest(completion=request(stopping=LONG, **fields)),
        metadata=metadata(caller),
    )
    while not (await call.read()).event.HasField("delta"):
        pass
    return call


async def waits(running: Running, caller: str, count: int = 1, **fields: Any) -> list[Any]:
    """Requests that wait in the queue."""
    before = running.step_loop.scheduler.queued_request_count
    tasks = [
        asyncio.create_task(complete(running, caller, stopping=SHORT, **fields))
        for _ in range(count)
    ]
    await until(lambda: running.step_loop.scheduler.queued_request_count == before + count)
    return tasks


def refused(running: Running, reason: str) -> float:
    name = "santacoder_router_refused_requests_total"
    return running.router.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


def held_count(scheduler: Scheduler) -> int:
    """Sequences, waiting or running."""
    stats = scheduler.stats
    return stats.queued_request_count + stats.running_request_count


async def share_beside_a_flood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Of a hundred answers, how many each of four callers got; and what the flooder was refused."""
    others = ("alice", "bob", "carol")
    answered: Counter[str] = Counter()
    behaviour = Behaviour(step_seconds=0.001, slot_count=4, block_count=256, hangs=True)
    callers = dict.fromkeys(("flooder", *others), "queued=500")
    async with guarded(folder, callers, behaviour) as running:
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [
            grpc.aio.insecure_channel(running.router.address, options=options) for _ in range(3)
        ]

        async def ask(caller: str, place: int, count: int) -> None:
            stub = inference_pb2_grpc.CompletionServiceStub(channels[place % len(channels)])
            for _ in range(count):
                message = pb.CompleteRequest(completion=request(stopping=SHORT, text=caller))
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.Complete(message, metadata=metadata(caller))
                    answered[caller] += answered.total() < 100

        flood = [asyncio.create_task(ask("flooder", place, 1)) for place in range(500)]
        scheduler = running.step_loop.scheduler
        await until(lambda: refused(running, "RATE") + held_count(scheduler) == len(flood))
        flood_count = held_count(scheduler)
        rest = [
            asyncio.create_task(ask(caller, place, 40)) for caller in others for place in range(4)
        ]
        await until(lambda: held_count(scheduler) == flood_count + len(rest))
        behaviour.hangs = False
        await until(lambda: answered.total() >= 100)
        for task in (*flood, *rest):
            task.cancel()
        await asyncio.wait((*flood, *rest))
        for channel in channels:
            await channel.close()
    return answered


@pytest.mark.fault("C11")
def test_beside_a_flooder_others_keep_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = asyncio.run(share_beside_a_flood(tmp_path, monkeypatch))
    # A quarter of a hundred each; what the flooder had before they came counts for it.
    assert all(answered[caller] >= 0.9 * 25 for caller in ("alice", "bob", "carol")), answered


@pytest.mark.fault("C11")
def test_without_shares_a_flooder_would_keep_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The control: to the scheduler all callers are one.
    monkeypatch.setattr(Account, "caller", property(lambda account: ANYBODY))
    answered = asyncio.run(share_beside_a_flood(tmp_path, monkeypatch))
    assert min(answered[caller] for caller in ("alice", "bob", "carol")) < 0.9 * 25, answered


def test_a_caller_waits_in_its_own_queue_and_is_refused_beyond_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS)
        callers = {"alice": "running=1 queued=2", "bob": ""}
        async with guarded(tmp_path, callers, behaviour) as running:
            first = await begun(running, "alice")
            waiting = await waits(running, "alice", 2)
            # Slots are free: it is alice's own limit that keeps her back, and nobody else.
            assert (await complete(running, "bob", stopping=SHORT)).choices
            error = await failure_of(complete(running, "alice"))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason_of(error) == "CALLER_QUEUE_FULL"
            assert "got 3 sequences with this request; allowed 2" in str(error.details())
            assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() > 0
            assert refused(running, "CALLER_QUEUE_FULL") == 1
            behaviour.step_seconds = 0.0
            first.cancel()
            assert all(answer.choices for answer in await asyncio.gather(*waiting))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("queued_request_count", "QUEUE_FULL"), ("queued_token_count", "PREFILL_BACKLOG")],
)
@pytest.mark.fault("R3")
def test_a_full_queue_has_room_for_whoever_has_less_in_it(
    tmp_path: Path, limit: str, reason: str
) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS, slot_count=1)
        callers = {"flooder": "", "bob": ""}
        bound = {limit: 3 if "request" in limit else 3 * len("def f(x):")}
        async with guarded(tmp_path, callers, behaviour, **bound) as running:
            first = await begun(running, "flooder")
            flood = await waits(running, "flooder", 3)
            assert reason_of(await failure_of(complete(running, "flooder"))) == reason
            bob = asyncio.create_task(complete(running, "bob", stopping=SHORT))
            # The flooder's newest makes room, and is told when to come back.
            error = await failure_of(flood[2])
            assert (error.code(), reason_of(error)) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_FULL",
            )
            assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() > 0
            assert running.step_loop.scheduler.queued_request_count <= 3
            behaviour.step_seconds = 0.0
            first.cancel()
            assert (await bob).choices
            assert all(answer.choices for answer in await asyncio.gather(*flood[:2]))

    asyncio.run(scenario())


def test_a_full_queue_has_room_for_a_higher_class_of_the_same_caller(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS, slot_count=1)
        overload = {"queued_request_count": 2}
        async with guarded(tmp_path, {"alice": "priority=high"}, behaviour, **overload) as running:
            first = await begun(running, "alice")
            low = await waits(running, "alice", 2, priority=pb.PRIORITY_LOW)
            high = asyncio.create_task(
                complete(running, "alice", stopping=SHORT, priority=pb.PRIORITY_HIGH)
            )
            assert reason_of(await failure_of(low[1])) == "QUEUE_FULL"
            behaviour.step_seconds = 0.0
            first.cancel()
            assert (await high).choices and (await low[0]).choices

    asyncio.run(scenario())


def test_a_class_above_the_callers_right_is_denied_everywhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        callers = {"usual": "", "low": "priority=low", "high": "priority=high"}
        async with guarded(tmp_path, callers, Behaviour()) as running:
            for caller, priority, allowed in (
                ("usual", pb.PRIORITY_HIGH, "allowed low, normal"),
                ("low", pb.PRIORITY_NORMAL, "allowed low"),
            ):
                error = await failure_of(complete(running, caller, priority=priority))
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                assert reason_of(error) == "PRIORITY_DENIED"
                assert str(error.details()).endswith(allowed)
                opening = pb.CompletionSessionRequest(open=pb.SessionOpen(priority=priority))
                call = running.completion.CompletionSession(
                    iter([opening]), metadata=metadata(caller)
                )
                assert reason_of(await failure_of(call.read())) == "PRIORITY_DENIED"
            # Whoever names none gets the usual one, or the highest there is for it.
            for caller, expected in (("low", pb.PRIORITY_LOW), ("high", pb.PRIORITY_NORMAL)):
                answer = await complete(running, caller, stopping=SHORT)
                assert answer.accepted.priority == expected
            answer = await complete(running, "high", stopping=SHORT, priority=pb.PRIORITY_HIGH)
            assert answer.accepted.priority == pb.PRIORITY_HIGH

    asyncio.run(scenario())


def test_a_caller_asks_so_often_in_all_its_ways(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded(tmp_path, {"alice": "rate=3", "bob": ""}, Behaviour()) as running:
            now = [0.0]
            running.router._reception.accounts._clock = lambda: now[0]
            tokenizer = inference_pb2_grpc.TokenizerServiceStub(running.channel)

            def tokenize() -> Any:
                return tokenizer.Tokenize(pb.TokenizeRequest(text="x"), metadata=metadata("alice"))

            await tokenize()
            await complete(running, "alice", stopping=SHORT)
            await tokenize()
            for ask in (tokenize(), complete(running, "alice")):
                error = await failure_of(ask)
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert reason_of(error) == "RATE"
                retry = detail(error, error_details_pb2.RetryInfo).retry_delay
                assert retry.ToNanoseconds() == pytest.approx(1e9 / 3)
            assert (await complete(running, "bob", stopping=SHORT)).choices
            now[0] = 1 / 3 + 1e-6
            await tokenize()
            assert reason_of(await failure_of(tokenize())) == "RATE"

    asyncio.run(scenario())


def test_sessions_are_counted_by_caller_whatever_the_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        callers = {"alice": "sessions=1", "bob": "sessions=1"}
        async with guarded(tmp_path, callers, Behaviour()) as running:
            options = (("grpc.use_local_subchannel_pool", 1),)
            other = grpc.aio.insecure_channel(running.router.address, options=options)

            async def opened(channel: grpc.aio.Channel, caller: str) -> Any:
                stub = inference_pb2_grpc.CompletionServiceStub(channel)
                call: Any = stub.CompletionSession(metadata=metadata(caller))
                await call.write(pb.CompletionSessionRequest(open=pb.SessionOpen()))
                assert (await call.read()).HasField("opened")
                return call

            held = await opened(running.channel, "alice")
            error = await failure_of(opened(other, "alice"))
            assert reason_of(error) == "SESSION_LIMIT"
            assert (await opened(other, "bob")).cancel()
            await held.done_writing()
            assert await held.read() is grpc.aio.EOF
            assert (await opened(other, "alice")).cancel()
            await other.close()

    asyncio.run(scenario())


@pytest.mark.fault("C8")
def test_what_would_not_be_served_in_time_is_refused_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS, slot_count=1)
        async with guarded(tmp_path, {"alice": "", "bob": ""}, behaviour) as running:
            first = await begun(running, "alice")
            held = await waits(running, "alice", 20)
            waiting = running.step_loop.scheduler.waiting
            # As if the queue had been worked off for a second at one request a second.
            now = running.router._clock()
            waiting._drain._work, waiting._drain._seconds = 13.0, 1.0
            waiting._drain._since = now
            message = pb.CompleteRequest(completion=request(stopping=SHORT))
            short = running.completion.Complete(message, metadata=metadata("alice"), timeout=10)
            error = await failure_of(short)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert reason_of(error) == "DEADLINE"
            assert detail(error, error_details_pb2.ErrorInfo).metadata["at"] == "admission"
            error = await failure_of(complete(running, "alice"))
            assert (error.code(), reason_of(error)) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_TIMEOUT",
            )
            retry = detail(error, error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() / 1e9
            assert 20 <= retry <= 60
            # Bob has nothing ahead of him.
            assert len(await waits(running, "bob")) == 1
            behaviour.step_seconds = 0.0
            first.cancel()
            await asyncio.gather(*held)

    asyncio.run(scenario())


@pytest.mark.fault("R4")
def test_whoever_waits_too_long_is_told_when_to_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS, slot_count=1)
        overload = {"queue_wait_seconds": 5.0}
        async with guarded(tmp_path, {"alice": ""}, behaviour, **overload) as running:
            first = await begun(running, "alice")
            [late] = await waits(running, "alice")
            running.pass_time(6.0)
            error = await failure_of(late)
            assert (error.code(), reason_of(error)) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_TIMEOUT",
            )
            assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() > 0
            first.cancel()

    asyncio.run(scenario())


def test_a_request_id_is_its_callers_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS)
        async with guarded(tmp_path, {"alice": "", "bob": ""}, behaviour) as running:
            alices = await begun(running, "alice", request_id="same")
            error = await failure_of(complete(running, "alice", request_id="same"))
            assert reason_of(error) == "REQUEST_ID_IN_USE"
            # To bob it is as if there were none: he neither meets nor ends alice's request.
            bobs = await begun(running, "bob", request_id="same")
            bobs.cancel()
            await until(lambda: running.router._intake.running_count == 1)
            assert (await alices.read()).event.HasField("delta")
            alices.cancel()

    asyncio.run(scenario())


def test_an_id_stays_its_requests_for_a_while_after_the_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with guarded(tmp_path, {"alice": "", "bob": ""}, Behaviour()) as running:
            first = await complete(running, "alice", request_id="same", stopping=SHORT)
            # The same again, as after an answer that did not arrive: begun anew, or resumed.
            again = await complete(running, "alice", request_id="same", stopping=SHORT)
            assert again.choices == first.choices
            received = first.choices[0].token_ids[:2]
            resume = pb.Resume(choices=[pb.ResumedChoice(token_ids=received)])
            seeded = pb.Sampling(seed=first.accepted.sampling.seed)
            rest = await complete(
                running, "alice", request_id="same", stopping=SHORT, resume=resume, sampling=seeded
            )
            assert rest.choices[0].token_ids == first.choices[0].token_ids[2:]
            for other in ({"text": "other"}, {"sampling": pb.Sampling(temperature=1.0)}):
                fields = {"stopping": SHORT, **other}
                error = await failure_of(complete(running, "alice", request_id="same", **fields))
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert reason_of(error) == "IDEMPOTENCY_MISMATCH"
            assert (await complete(running, "bob", request_id="same", text="other")).choices
            clock = running.router._intake._ids._clock
            running.router._intake._ids._clock = lambda: clock() + 61.0
            assert (await complete(running, "alice", request_id="same", text="other")).choices

    asyncio.run(scenario())


def test_where_nobody_is_asked_each_connection_is_a_caller(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour()) as running:
            await running.complete()
            accounts = running.router._reception.accounts
            [account] = accounts._connections.values()
            assert account.name == "" and account.limits == UNKNOWN
            assert account.caller == Caller(account.key, 1.0, UNKNOWN.running)

    asyncio.run(scenario())


def test_options_hold_for_everybody_and_a_tokens_own_limits_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        standing = StandingLimits(known=CallerLimits(rate=7.0))
        callers = {"alice": "weight=2 queued-tokens=99", "bob": ""}
        async with guarded(tmp_path, callers, Behaviour(), callers=standing) as running:
            for caller in callers:
                await complete(running, caller, stopping=SHORT)
            model = inference_pb2_grpc.ModelServiceStub(running.channel)
            told = await model.GetModel(pb.GetModelRequest(), metadata=metadata("alice"))
            assert told.caller_limits == pb.CallerLimits(
                running_request_count=8,
                queued_request_count=128,
                queued_token_count=99,
                session_count=64,
                requests_per_second=7.0,
                priority=pb.PRIORITY_NORMAL,
            )
            known = running.router._reception.accounts._known
            assert known["alice"].limits == CallerLimits(rate=7.0, weight=2.0, queued_tokens=99)
            assert known["bob"].limits == CallerLimits(rate=7.0)

    asyncio.run(scenario())


@pytest.mark.fault("R2")
def test_of_more_than_there_is_room_for_each_ends_once_and_no_bound_is_passed(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(slot_count=2, hangs=True)
        overload = OverloadConfig(queued_request_count=20)
        async with running_router(tmp_path, behaviour, overload=overload) as running:
            longest = 0

            def is_let_in(wanted_count: int) -> bool:
                nonlocal longest
                longest = max(longest, running.step_loop.scheduler.queued_request_count)
                return (
                    held_count(running.step_loop.scheduler) + refused(running, "QUEUE_FULL")
                    == wanted_count
                )

            tasks = [asyncio.create_task(running.complete(stopping=SHORT)) for _ in range(200)]
            await until(lambda: is_let_in(200))
            behaviour.hangs = False
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            answers = [end for end in ends if isinstance(end, pb.CompleteResponse)]
            errors = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
            assert len(answers) + len(errors) == 200 and len(answers) in (21, 22)
            assert {reason_of(error) for error in errors} == {"QUEUE_FULL"}
            assert longest <= 20
            assert running.step_loop.scheduler.stats.held_block_count == 0

    asyncio.run(scenario())
