"""Readers that stop reading: what they are owed is bounded, they are ended, and nobody waits."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from router.running_router import (
    Running,
    ids_in,
    reason_of,
    request,
    running_router,
    text_of,
    until,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1 import inference_pb2_grpc
from santacoder_router.overload_options import OverloadConfig

# Log probabilities make an answer of more than a connection holds for a reader who does not read.
LARGE: dict[str, Any] = {
    "stopping": pb.Stopping(max_new_tokens=240, ignore_eos=True),
    "output": pb.Output(logprobs=20),
    "completion_count": 8,
}
# The window of a client that asks for no more than HTTP/2's own.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1))


def stalls(running: Running) -> float:
    name = "santacoder_router_client_stalls_total"
    return running.router.metrics.registry.get_sample_value(name) or 0.0


def start(channel: grpc.aio.Channel, **fields: Any) -> Any:
    stub = inference_pb2_grpc.CompletionServiceStub(channel)
    return stub.StreamComplete(pb.StreamCompleteRequest(completion=request(**fields)))


def is_blocked(running: Running) -> bool:
    streams = running.router._reception.stalls._streams
    now = running.router._clock()
    return any(
        each.writing_since is not None and now - each.writing_since > 0.05 for each in streams
    )


def put_forward(running: Running, seconds: float) -> None:
    """So much time passes for whoever watches readers, and is looked at."""
    watched = running.router._reception.stalls
    clock = watched.clock
    watched.clock = lambda: clock() + seconds
    watched.look()


@pytest.mark.fault("C4")
def test_a_reader_that_stops_is_ended_and_hears_why_and_others_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            channel = grpc.aio.insecure_channel(running.router.address, options=NARROW)
            call = start(channel, **LARGE)
            await call.read()
            await until(lambda: is_blocked(running))
            # Beside it all is as ever.
            assert (await running.complete(text="other")).choices
            put_forward(running, 20.0)
            assert stalls(running) == 0
            put_forward(running, 11.0)
            await until(lambda: running.router._intake.running_count == 0)
            assert stalls(running) == 1
            assert running.step_loop.scheduler.stats.held_block_count == 0
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert caught.value.code() is grpc.StatusCode.CANCELLED
            assert reason_of(caught.value) == "CLIENT_STALLED"
            assert "its reader has taken nothing for 3" in str(caught.value.details())
            assert (await running.complete(text="another")).choices
            await channel.close()

    asyncio.run(scenario())


@pytest.mark.fault("C4")
def test_without_the_timer_a_reader_that_stops_keeps_its_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        # The control: the longest that may be set.
        overload = OverloadConfig(stream_stall_seconds=3600.0)
        async with running_router(tmp_path, overload=overload) as running:
            channel = grpc.aio.insecure_channel(running.router.address, options=NARROW)
            call = start(channel, **LARGE)
            await call.read()
            await until(lambda: is_blocked(running))
            put_forward(running, 31.0)
            assert (await running.complete(text="other")).choices
            assert stalls(running) == 0 and running.router._intake.running_count == 1
            call.cancel()
            await until(lambda: running.router._intake.running_count == 0)
            await channel.close()

    asyncio.run(scenario())


def held_count(running: Running) -> int:
    live = running.step_loop.scheduler._live.values()
    return sum(sequence.is_held for sequence in live)


@pytest.mark.fault("C5")
def test_what_waits_for_a_slow_reader_is_bounded_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            whole = await running.complete(**LARGE)
            channel = grpc.aio.insecure_channel(running.router.address, options=NARROW)
            call = start(channel, **LARGE)
            events = [(await call.read()).event]
            # Nobody reads: all eight answers give their slots up, and others have them.
            await until(lambda: held_count(running) == 8)
            stats = running.step_loop.scheduler.stats
            assert (stats.running_request_count, stats.held_block_count) == (0, 0)
            assert (await running.complete(text="other")).choices
            assert held_count(running) == 8
            while (response := await call.read()) is not grpc.aio.EOF:
                events.append(response.event)
            for choice in whole.choices:
                assert ids_in(events, choice.index) == list(choice.token_ids)
                assert text_of(events, choice.index) == choice.text
            sizes = [event.ByteSize() for event in events]
            assert max(sizes) <= 64 * 1024
            assert stalls(running) == 0
            await channel.close()

    asyncio.run(scenario())


@pytest.mark.fault("C5")
def test_without_the_bound_all_is_made_for_a_reader_who_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The control.
    monkeypatch.setattr("santacoder_router.choice.STREAM_BUFFER_BYTES", 1 << 30)

    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            channel = grpc.aio.insecure_channel(running.router.address, options=NARROW)
            call = start(channel, **LARGE)
            await call.read()
            await until(lambda: is_blocked(running))
            await until(lambda: not running.step_loop.scheduler._live)
            call.cancel()
            await until(lambda: running.router._intake.running_count == 0)
            await channel.close()

    asyncio.run(scenario())
