"""Complete and StreamComplete, as an outsider with generated stubs meets them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from router.mock_engine import Oracle
from router.mock_shard import END_OF_TEXT_ID, Behaviour, byte_tokenizer, ids_of
from router.running_router import (
    Running,
    detail,
    failure_of,
    ids_in,
    reason_of,
    request,
    running_router,
    text_of,
    until,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.core.plan import StepPlan
from santacoder_router.limits import Limits

ALL_BYTES = Oracle(tuple(range(256)), END_OF_TEXT_ID, end_every=40)
LONG = pb.Stopping(max_new_tokens=200, ignore_eos=True)
# Ten seconds for a LONG answer: whatever is done in the middle of one has all that time.
SLOW_SECONDS = 0.05


def expected_ids(oracle: Oracle, prompt: str, count: int) -> list[int]:
    """What the mock model says after a prompt, by its own rule."""
    ids = list(ids_of(prompt))
    for _ in range(count):
        ids.append(oracle.next_id(ids, may_end=False))
    return ids[-count:]


def test_a_completion_is_what_the_model_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            answer = await running.complete(
                text="x = 1", stopping=pb.Stopping(max_new_tokens=40, ignore_eos=True)
            )
            ids = expected_ids(running.behaviour.oracle, "x = 1", 40)
            [choice] = answer.choices
            assert choice.token_ids == ids
            assert choice.text == byte_tokenizer().decode(ids)
            assert choice.finish_reason == pb.FINISH_REASON_LENGTH
            assert answer.usage.prompt_token_count == 5
            assert answer.usage.completion_token_count == 40
            assert answer.accepted.model_revision == "fingerprint"
            total = answer.timings.total_duration.ToNanoseconds()
            assert 0 < answer.timings.first_token_duration.ToNanoseconds() <= total

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [1, 2])
def test_streamed_equals_unary_for_any_bytes_stops_and_seeds(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(oracle=ALL_BYTES)
        async with running_router(tmp_path, behaviour, size) as running:
            for seed in range(12):
                fields: dict[str, Any] = {
                    "sampling": pb.Sampling(temperature=0.5, seed=seed),
                    "stopping": pb.Stopping(max_new_tokens=60, stop=["a", "\n", "bc"]),
                    "output": pb.Output(logprobs=2, echo=seed % 2 == 0),
                    "completion_count": 1 + seed % 3,
                }
                answer, events = await asyncio.gather(
                    running.complete(**fields), running.stream(**fields)
                )
                assert_equal(answer, events)

    asyncio.run(scenario())


def assert_equal(answer: pb.CompleteResponse, events: list[pb.CompletionEvent]) -> None:
    assert events[0].HasField("accepted") and events[-1].HasField("finished")
    assert answer.usage.completion_token_count == events[-1].finished.usage.completion_token_count
    finished = [e.choice_finished for e in events if e.HasField("choice_finished")]
    ends = {end.index: end for end in finished}
    assert sorted(ends) == [choice.index for choice in answer.choices]
    for choice in answer.choices:
        assert choice.text == text_of(events, choice.index)
        assert list(choice.token_ids) == ids_in(events, choice.index)
        end = ends[choice.index]
        assert (end.reason, end.matched_stop) == (choice.finish_reason, choice.matched_stop)
        logprobs = [
            position
            for event in events
            if event.HasField("delta") and event.delta.index == choice.index
            for position in event.delta.logprobs
        ]
        assert list(choice.logprobs) == logprobs
        assert [position.chosen.token_id for position in logprobs] == list(choice.token_ids)


def test_end_of_text_ends_the_text_and_is_named_but_not_returned(tmp_path: Path) -> None:
    async def scenario() -> None:
        oracle = Oracle(ids_of("ab"), END_OF_TEXT_ID, end_every=5)
        async with running_router(tmp_path, Behaviour(oracle=oracle)) as running:
            [choice] = (await running.complete()).choices
            assert choice.finish_reason == pb.FINISH_REASON_END_OF_TEXT
            assert choice.matched_token_id == END_OF_TEXT_ID
            assert END_OF_TEXT_ID not in choice.token_ids
            assert len(choice.text) == len(choice.token_ids)

    asyncio.run(scenario())


def test_a_stop_id_ends_the_text_and_is_not_returned(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            whole = (await running.complete(stopping=LONG)).choices[0]
            stop_id = whole.token_ids[17]
            place = list(whole.token_ids).index(stop_id)
            stopping = pb.Stopping(stop_token_ids=[stop_id])
            [choice] = (await running.complete(stopping=stopping)).choices
            assert choice.finish_reason == pb.FINISH_REASON_STOP
            assert choice.matched_token_id == stop_id
            assert choice.token_ids == whole.token_ids[:place]

    asyncio.run(scenario())


def test_a_stop_string_over_token_borders_ends_the_sequence_on_the_shards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            whole = (await running.complete(stopping=LONG)).choices[0].text
            stop = whole[30:33]
            running.behaviour.step_seconds = 0.02
            stopping = pb.Stopping(max_new_tokens=200, stop=[stop], ignore_eos=True)
            steps_before = running.group.shards[0].step_count
            [choice] = (await running.complete(stopping=stopping)).choices
            assert choice.finish_reason == pb.FINISH_REASON_STOP
            assert choice.matched_stop == stop
            assert choice.text == whole[: whole.index(stop)]
            await until(lambda: not running.is_sequence_on_shard)
            assert running.group.shards[0].step_count - steps_before < 190

    asyncio.run(scenario())


def test_echo_puts_the_prompt_before_the_text_and_not_among_the_ids(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            plain = (await running.complete(text="a = ")).choices[0]
            echoed = (await running.complete(text="a = ", output=pb.Output(echo=True))).choices[0]
            assert echoed.text == "a = " + plain.text
            assert echoed.token_ids == plain.token_ids

    asyncio.run(scenario())


def test_infill_is_laid_out_by_sentinel_ids(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            infill = pb.InfillPrompt(prefix="<fim-middle>", suffix="b", order=pb.FIM_ORDER_SPM)
            answer = await running.complete(infill=infill)
            admit = running.group.shards[0].plans[0].admits[0]
            laid_out = (257, 259, *ids_of("b"), 258, *ids_of("<fim-middle>"))
            assert admit.token_ids == b"".join(i.to_bytes(4, "little") for i in laid_out)
            assert answer.accepted.fim_order == pb.FIM_ORDER_SPM
            assert answer.usage.prompt_token_count == len(laid_out)

    asyncio.run(scenario())


def test_accepted_comes_first_with_every_default_filled_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            accepted = (await running.stream(request_id="mine"))[0].accepted
            assert accepted.request_id == "mine"
            assert accepted.sampling.HasField("seed")
            assert accepted.stopping.max_new_tokens == 128
            assert accepted.priority == pb.PRIORITY_NORMAL
            assert accepted.completion_count == 1
            assert accepted.prompt_token_count == 9

    asyncio.run(scenario())


def test_choices_are_numbered_and_differ(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            sampling = pb.Sampling(temperature=1.0, seed=7)
            answer = await running.complete(sampling=sampling, completion_count=3)
            assert [choice.index for choice in answer.choices] == [0, 1, 2]
            assert len({choice.text for choice in answer.choices}) == 3
            again = await running.complete(sampling=sampling, completion_count=3)
            assert [c.text for c in again.choices] == [c.text for c in answer.choices]

    asyncio.run(scenario())


def test_the_second_request_takes_its_prefix_from_the_cache(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            await running.complete(text="x" * 40)
            answer = await running.complete(text="x" * 40)
            assert answer.usage.cached_token_count == 32

    asyncio.run(scenario())


async def started(running: Running, **fields: Any) -> Any:
    """A stream whose first token has come, with its call."""
    call = running.completion.StreamComplete(
        pb.StreamCompleteRequest(completion=request(stopping=LONG, **fields))
    )
    async for response in call:
        if response.event.HasField("delta"):
            return call
    raise AssertionError("the stream ended")


@pytest.mark.fault("C2")
def test_after_a_cancel_the_next_plan_lacks_the_sequence_and_its_blocks_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            shard = running.group.shards[0]
            call = await started(running, text="y" * 40)
            held = running.step_loop.scheduler.stats.held_block_count
            assert held >= 3
            group = running.step_loop._group
            assert group is not None
            sent: list[StepPlan] = []
            send = group.send

            def watched(plan: StepPlan, lease_seconds: float) -> None:
                sent.append(plan)
                send(plan, lease_seconds)

            monkeypatch.setattr(group, "send", watched)
            call.cancel()
            await until(lambda: running.step_loop.scheduler.stats.held_block_count == 0)
            await until(lambda: bool(sent) and any(plan.retires for plan in sent))
            retiring = next(plan for plan in sent if plan.retires)
            assert [retire.sequence for retire in retiring.retires] == [1]
            assert not retiring.rows
            await until(lambda: shard.engine.held_block_count == 0 and not shard.engine.slots)
            stats = running.step_loop.scheduler.stats
            assert stats.free_block_count + stats.cached_block_count == stats.total_block_count
            assert running.router._intake.running_count == 0

    asyncio.run(scenario())


@pytest.mark.fault("C1")
def test_a_client_that_disappears_frees_its_blocks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            async with cable(running.router.address) as (address, cut):
                async with grpc.aio.insecure_channel(address) as channel:
                    running_there = dataclasses.replace(running, channel=channel)
                    call = await started(running_there)
                    cut()
                    await until(lambda: running.router._intake.running_count == 0)
                    assert running.step_loop.scheduler.stats.held_block_count == 0
                    assert running.group.shards[0].step_count < 190
                    call.cancel()

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def cable(target: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A connection to `target` that can be cut: its address, and the cut."""
    host, port = target.split(":")
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writers.extend((writer, far_writer))
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    near_host, near_port = server.sockets[0].getsockname()

    def cut() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()

    yield f"{near_host}:{near_port}", cut
    cut()
    await server.wait_closed()


def test_malformed_bytes_are_an_invalid_argument(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            service = "/santacoder.inference.v1.CompletionService/"
            for data in (b"\xff\xff\xff", b"\x0a\x04\x12\x02\xff\xfe"):
                raw: Any = running.channel.unary_unary(service + "Complete")
                error = await failure_of(raw(data))
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert reason_of(error) == "MALFORMED_REQUEST"
                stream: Any = running.channel.unary_stream(service + "StreamComplete")
                error = await failure_of(stream(data).read())
                assert reason_of(error) == "MALFORMED_REQUEST"
            assert (await running.complete()).choices

    asyncio.run(scenario())


def test_an_unexpected_exception_shows_an_id_and_the_log_has_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:

            def explode(*_: object, **__: object) -> None:
                raise ValueError("secret")

            monkeypatch.setattr("santacoder_router.intake.resolve", explode)
            error = await failure_of(running.complete())
            assert error.code() is grpc.StatusCode.INTERNAL
            message = error.details() or ""
            assert message.startswith("internal error; id ") and "secret" not in message
            [line] = [line for line in running.log if line["level"] == "error"]
            assert line["error_id"] == message.split()[-1] and len(line["error_id"]) == 16
            assert "secret" in str(line["exc_info"])
            monkeypatch.undo()
            assert (await running.complete()).choices

    asyncio.run(scenario())


def test_a_wrong_field_is_named_with_all_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            sampling = pb.Sampling(top_k=-1, temperature=float("nan"))
            error = await failure_of(running.complete(sampling=sampling))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            violations = detail(error, error_details_pb2.BadRequest).field_violations
            assert {v.field for v in violations} == {"sampling.top_k", "sampling.temperature"}
            assert running.group.shards[0].plans == []

    asyncio.run(scenario())


def test_the_default_deadline_holds_where_the_call_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            narrow(running, monkeypatch, default_deadline_seconds=60.0)
            work = asyncio.create_task(failure_of(running.complete(stopping=LONG)))
            await until(lambda: running.generated_count > 0)
            running.pass_time(61.0)
            error = await work
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert reason_of(error) == "DEADLINE"
            assert detail(error, error_details_pb2.ErrorInfo).metadata["at"] == "decode"
            assert running.step_loop.scheduler.stats.held_block_count == 0

    asyncio.run(scenario())


@pytest.mark.fault("C8")
def test_a_deadline_of_the_call_ends_its_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            message = pb.CompleteRequest(completion=request(stopping=LONG))
            shard = running.group.shards[0]
            # Once more where the time was up before there was a step.
            while not shard.step_count:
                error = await failure_of(running.completion.Complete(message, timeout=0.2))
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                await until(lambda: running.router._intake.running_count == 0)
            await until(lambda: not running.is_sequence_on_shard)
            assert running.step_loop.scheduler.stats.held_block_count == 0
            assert shard.step_count < 190

    asyncio.run(scenario())


def test_a_time_budget_ends_with_what_there_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            budget = duration_pb2.Duration(seconds=60)
            work = asyncio.create_task(running.complete(stopping=LONG, time_budget=budget))
            await until(lambda: running.generated_count > 0)
            running.pass_time(61.0)
            [choice] = (await work).choices
            assert choice.finish_reason == pb.FINISH_REASON_TIME_BUDGET
            assert 0 < len(choice.token_ids) < 200
            ids = expected_ids(running.behaviour.oracle, "def f(x):", len(choice.token_ids))
            assert choice.token_ids == ids

    asyncio.run(scenario())


def test_a_time_budget_that_ends_in_the_queue_still_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS, slot_count=1)
        async with running_router(tmp_path, behaviour) as running:
            call = await started(running)
            budget = duration_pb2.Duration(nanos=50_000_000)
            events = await running.stream(time_budget=budget)
            assert [event.WhichOneof("event") for event in events] == [
                "accepted",
                "choice_finished",
                "finished",
            ]
            assert events[1].choice_finished.reason == pb.FINISH_REASON_TIME_BUDGET
            call.cancel()

    asyncio.run(scenario())


def narrow(running: Running, monkeypatch: pytest.MonkeyPatch, **bounds: Any) -> None:
    """Gives the router other bounds."""
    serving = running.router.lifecycle.serving
    assert serving is not None
    limits: Limits = dataclasses.replace(serving.limits, **bounds)
    changed = dataclasses.replace(serving, limits=limits)
    monkeypatch.setattr(running.router.lifecycle, "_serving", changed)


@pytest.mark.fault("R3")
@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"queued_request_count": 2}, "QUEUE_FULL"),
        ({"queued_token_count": 20}, "PREFILL_BACKLOG"),
    ],
)
def test_a_full_queue_refuses_with_a_time_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, int], reason: str
) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(step_seconds=SLOW_SECONDS, slot_count=1)
        async with running_router(tmp_path, behaviour) as running:
            narrow(running, monkeypatch, **bounds)
            running_call = await started(running)
            short = pb.Stopping(max_new_tokens=5)
            queued = [asyncio.create_task(running.complete(stopping=short)) for _ in range(2)]
            await until(lambda: running.step_loop.scheduler.queued_request_count == 2)
            error = await failure_of(running.complete())
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason_of(error) == reason
            delay = detail(error, error_details_pb2.RetryInfo).retry_delay
            assert delay.ToNanoseconds() > 0
            running_call.cancel()
            behaviour.step_seconds = 0.0
            for answer in await asyncio.gather(*queued):
                assert answer.choices[0].token_ids

    asyncio.run(scenario())


@pytest.mark.fault("C10")
def test_a_request_id_in_use_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=SLOW_SECONDS)) as running:
            call = await started(running, request_id="same")
            error = await failure_of(running.complete(request_id="same"))
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            assert reason_of(error) == "REQUEST_ID_IN_USE"
            assert detail(error, error_details_pb2.RequestInfo).request_id == "same"
            call.cancel()
            running.behaviour.step_seconds = 0.0
            await until(lambda: running.router._intake.running_count == 0)
            short = pb.Stopping(max_new_tokens=5)
            again = await running.complete(request_id="same", stopping=short)
            assert again.accepted.request_id == "same"

    asyncio.run(scenario())


@pytest.mark.fault("S4")
def test_a_sequence_that_a_shard_gives_up_fails_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(step_seconds=0.005)) as running:
            victim = asyncio.create_task(running.complete(stopping=LONG))
            await until(lambda: running.group.shards[0].step_count > 2)
            other = asyncio.create_task(running.complete(text="other"))
            running.behaviour.fails_sequence = 1
            error = await failure_of(victim)
            assert error.code() is grpc.StatusCode.INTERNAL
            ids = expected_ids(running.behaviour.oracle, "other", 128)
            assert (await other).choices[0].token_ids == ids

    asyncio.run(scenario())


def test_a_reader_that_is_behind_gets_joined_pieces(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            intake = running.router._intake
            valid = intake.check(request(stopping=LONG), "slow")
            account = running.account()
            generation = await intake.start(valid, None, account)
            events = generation.events()
            first = await anext(events)
            assert first.HasField("accepted")
            await until(lambda: running.step_loop.scheduler.stats.running_request_count == 0)
            rest = [event async for event in events]
            assert len(rest) <= 4
            assert ids_in(rest) == expected_ids(running.behaviour.oracle, "def f(x):", 200)
            intake.release(valid, generation, account)

    asyncio.run(scenario())
