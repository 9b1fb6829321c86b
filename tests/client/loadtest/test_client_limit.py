"""With a thousand streams on this machine, the tool knows whether it was the limit itself.

The server is the same in both cases: it lets every stream wait half a second for its next token.
What differs is the client: once it has all the time that it wants, once hardly any.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterator

import pytest
from load_double import load_double

from santacoder_client.loadtest.data.options import (
    add_data_arguments,
    build_source,
    prepare_data,
    to_job,
)
from santacoder_client.loadtest.data.source import ModelFacts
from santacoder_client.loadtest.job import Job
from santacoder_client.loadtest.load import Load, Phases
from santacoder_client.loadtest.record import RequestRecord
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.result import ClientVerdict
from santacoder_client.loadtest.target import Security, Target
from santacoder_client.loadtest.workers import Workers

STREAMS = 1000
PHASES = Phases(warm_up_seconds=2.5, steady_seconds=2.0, cool_down_seconds=0, grace_seconds=0)
STALL_MS = 100.0
"""A lag from which on the machine has made the client slow."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with load_double("--first-token", "0.5", "--token", "0.5", "--messages", "1000") as address:
        yield address


def job_for(address: str, streams: int) -> Job:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    prepared = prepare_data(parser.parse_args(["--prompt-tokens", "8"]))
    facts = ModelFacts(token_count=1000)
    data = to_job(prepared, facts, build_source(prepared, facts).sha256)
    load = Load("closed", concurrency=streams, phases=PHASES)
    target = Target(address, "router", (address,))
    return Job(load, (target,), Security(), Wishes(), data)


async def starve(workers: Workers) -> None:
    """Lets the worker run for a twentieth of the steady time."""
    process = workers._workers[0]._process
    await asyncio.sleep(max(0.0, PHASES.steady_begin - workers.clock()))
    while workers.clock() < PHASES.steady_end:
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.38)
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.02)


def verdict(
    address: str, starved: bool, streams: int = STREAMS
) -> tuple[ClientVerdict, list[RequestRecord]]:
    records: list[RequestRecord] = []

    async def run() -> ClientVerdict:
        workers = Workers(job_for(address, streams), 1)
        try:
            await workers.open()
            driving = asyncio.create_task(workers.drive(records.append))
            await asyncio.sleep(0)  # the clock begins
            if starved:
                await starve(workers)
            return (await driving).client
        finally:
            await workers.close()

    return asyncio.run(run()), records


def streams_at_once(records: list[RequestRecord]) -> int:
    """Those that were open all through the steady part."""
    begin, end = PHASES.steady_begin, PHASES.steady_end
    return sum(
        (record.dispatched_at or end) < begin and (record.finished_at or end) >= end
        for record in records
    )


def test_a_client_with_time_to_spare_says_that_the_server_was_the_limit(address: str) -> None:
    # Fewer where the machine, and not the test, has made the client slow.
    for streams in (STREAMS, STREAMS, STREAMS // 3, STREAMS // 10, STREAMS // 10):
        health, records = verdict(address, starved=False, streams=streams)
        is_slow = (health.loop_lag_p99_ms or 0.0) >= STALL_MS
        if not is_slow and streams_at_once(records) == streams:
            break
    assert health.verdict == "server", health
    assert streams_at_once(records) == streams


def test_a_starved_client_says_that_it_was_the_limit_itself(address: str) -> None:
    for _ in range(3):  # again where its few turns fell together with the machine's own
        health, records = verdict(address, starved=True)
        if health.verdict == "client":
            break
    assert health.verdict == "client", health
    assert streams_at_once(records) >= STREAMS // 10
