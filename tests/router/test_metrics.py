"""What the router counts: series with units, labels from closed sets, on a loopback port."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from pathlib import Path

from router.running_router import Running, failure_of, running_router, until

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.metrics import Metrics
from santacoder_router.metrics_server import MetricsServer

UNITS = ("_total", "_seconds", "_tokens", "_requests", "_blocks", "_bytes", "_fds")


def test_every_name_ends_in_its_unit_and_none_is_global() -> None:
    one, other = Metrics(), Metrics()
    for family in one.registry.collect():
        name = family.name + "_total" if family.type == "counter" else family.name
        assert name.startswith("santacoder_router_") and name.endswith(UNITS), name
    one.plans.inc()
    assert other.registry.get_sample_value("santacoder_router_plans_total") == 0


def value(running: Running, name: str, **labels: str) -> float:
    return (
        running.router.metrics.registry.get_sample_value(f"santacoder_router_{name}", labels) or 0
    )


def test_a_request_is_counted_by_what_became_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            stopping = pb.Stopping(max_new_tokens=20, ignore_eos=True)
            for _ in range(2):
                await running.complete(text="m" * 40, stopping=stopping)
            await failure_of(running.complete(sampling=pb.Sampling(top_k=-1)))
            assert value(running, "requests_total", method="Complete", code="OK") == 2
            refused = {"method": "Complete", "code": "INVALID_ARGUMENT"}
            assert value(running, "requests_total", **refused) == 1
            assert value(running, "choices_total", reason="LENGTH") == 2
            assert value(running, "prompt_tokens_total") == 80
            assert value(running, "cached_tokens_total") == 32
            assert value(running, "completion_tokens_total") == 40
            assert value(running, "first_token_seconds_count") == 2
            assert value(running, "queue_seconds_count") == 2
            shard = running.group.shards[0]
            # The last plan may still be on its way.
            await until(lambda: value(running, "plans_total") == len(shard.plans))
            await until(lambda: value(running, "step_seconds_count") == shard.step_count)
            round_trips = value(running, "plan_round_trip_seconds_count")
            assert 0 < round_trips <= value(running, "plans_total")
            assert value(running, "plan_work_seconds_sum") > 0

    asyncio.run(scenario())


def test_gauges_follow_the_scheduler_and_labels_do_not_follow_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            running.behaviour.hangs = True
            work = [
                asyncio.create_task(running.complete(text=f"p{n}", request_id=f"id{n}"))
                for n in range(10)
            ]

            def known_count() -> float:
                return value(running, "running_requests") + value(running, "queued_requests")

            await until(lambda: known_count() == 10)
            # Two plans are out, and nobody can join before one of them answers.
            running_count = value(running, "running_requests")
            assert value(running, "queued_requests") > 0
            assert value(running, "kv_blocks", state="held") == running_count > 0
            running.behaviour.hangs = False
            await asyncio.gather(*work)
            await until(lambda: value(running, "running_requests") == 0)
            await until(lambda: value(running, "kv_blocks", state="held") == 0)
            page = await asyncio.to_thread(read, running.router.metrics_address)
            assert "santacoder_router_event_loop_lag_seconds" in page
            assert not re.search(r"id\d", page)
            assert len(page.splitlines()) < 2000

    asyncio.run(scenario())


def test_a_group_that_died_is_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            await running.next_life()
            await running.complete()
            assert value(running, "group_failures_total") == 1

    asyncio.run(scenario())


def read(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as response:
        page: bytes = response.read()
    return page.decode()


def test_the_metrics_port_is_on_loopback_and_closes() -> None:
    metrics = Metrics()
    server = MetricsServer(metrics, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.port}"
    assert "santacoder_router_plans_total 0.0" in read(address)
    server.close()
    again = MetricsServer(metrics, "127.0.0.1", server.port)
    again.close()
