"""What the router may hold, and whom it refuses when it holds too much."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from router.mock_shard import Behaviour
from router.running_router import Running, detail, failure_of, reason_of, running_router, until

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router import gauges
from santacoder_router.memory import Pressure, find_limit_bytes, pressure_of, resident_bytes
from santacoder_router.overload_options import OverloadConfig

LIMIT_BYTES = 1 << 40
LONG = pb.Stopping(max_new_tokens=200, ignore_eos=True)


@pytest.mark.parametrize(
    ("used", "pressure"),
    [(0, 0), (84, 0), (85, 1), (94, 1), (95, 2), (120, 2)],
)
def test_at_85_percent_the_new_are_refused_and_at_95_those_who_wait(
    used: int, pressure: int
) -> None:
    assert pressure_of(used, 100) == Pressure(pressure)


def test_the_limit_is_the_narrowest_of_the_groups_around_the_process(tmp_path: Path) -> None:
    membership, root = tmp_path / "cgroup", tmp_path / "root"
    (root / "pod/router").mkdir(parents=True)
    membership.write_text("12:cpu:/other\n0::/pod/router\n")
    machine_bytes = find_limit_bytes(membership, root)
    assert machine_bytes > 1 << 28
    (root / "pod/router/memory.max").write_text("max\n")
    (root / "pod/memory.max").write_text("536870912\n")
    (root / "memory.max").write_text("1073741824\n")
    assert find_limit_bytes(membership, root) == 536_870_912
    assert find_limit_bytes(tmp_path / "none", root) == machine_bytes


def test_this_process_holds_some_memory_and_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert 1 << 24 < resident_bytes() < 1 << 36
    assert resident_bytes(tmp_path / "none") == 0


def memory(running: Running, kind: str) -> float:
    name = "santacoder_router_memory_bytes"
    return running.router.metrics.registry.get_sample_value(name, {"kind": kind}) or 0.0


@pytest.mark.fault("R9")
def test_under_pressure_the_new_are_refused_then_those_who_wait_and_those_who_run_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = 0.5
    monkeypatch.setattr(gauges, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(gauges, "resident_bytes", lambda: int(share * LIMIT_BYTES))

    async def scenario() -> None:
        nonlocal share
        behaviour = Behaviour(step_seconds=0.05, slot_count=1)
        overload = OverloadConfig(memory_limit_bytes=LIMIT_BYTES)
        async with running_router(tmp_path, behaviour, overload=overload) as running:
            first: Any = asyncio.create_task(running.complete(stopping=LONG))
            await until(lambda: running.group.shards[0].step_count > 1)
            waiting = asyncio.create_task(running.complete())
            await until(lambda: running.step_loop.scheduler.queued_request_count == 1)
            share = 0.86
            await until(lambda: memory(running, "resident") > 0.85 * memory(running, "limit"))
            error = await failure_of(running.complete())
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason_of(error) == "MEMORY_PRESSURE"
            assert detail(error, error_details_pb2.RetryInfo).retry_delay.seconds == 5
            assert not waiting.done() and running.step_loop.scheduler.queued_request_count == 1
            share = 0.96
            assert reason_of(await failure_of(waiting)) == "MEMORY_PRESSURE"
            behaviour.step_seconds = 0.0
            assert len((await first).choices[0].token_ids) == 200
            share = 0.5
            await until(lambda: running.router._intake._pressure is Pressure.NONE)
            assert (await running.complete()).choices

    asyncio.run(scenario())
