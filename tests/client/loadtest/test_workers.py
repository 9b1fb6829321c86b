"""Worker processes: one load together, records over pipes, and what is left when one dies."""

from __future__ import annotations

import argparse
import asyncio
import json
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
from santacoder_client.loadtest.errors import LoadTestError, UsageError
from santacoder_client.loadtest.job import Job, record_from_json, record_to_json
from santacoder_client.loadtest.load import Load, Phases
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.target import Security, Target
from santacoder_client.loadtest.workers import Driven, Workers

PHASES = Phases(warm_up_seconds=0, steady_seconds=1, cool_down_seconds=0, grace_seconds=60)
FACTS = ModelFacts(token_count=1000)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with load_double("--messages", "3", "--per-message", "2") as address:
        yield address


def job_for(address: str, load: Load, flags: str = "--prompt-tokens 8 --new-tokens 6") -> Job:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    prepared = prepare_data(parser.parse_args(flags.split()))
    sha256 = build_source(prepared, FACTS).sha256
    target = Target(address, "router", (address,))
    return Job(load, (target,), Security(), Wishes(), to_job(prepared, FACTS, sha256))


def driven(job: Job, count: int) -> tuple[Driven, list[RequestRecord]]:
    records: list[RequestRecord] = []

    async def run() -> Driven:
        workers = Workers(job, count)
        try:
            await workers.open()
            return await workers.drive(records.append)
        finally:
            await workers.close()

    return asyncio.run(run()), records


def test_two_workers_send_the_schedule_of_one(address: str) -> None:
    load = Load("constant", per_second=60, spacing="constant", phases=PHASES)
    end, records = driven(job_for(address, load), 2)
    assert end.lost == () and end.client.workers == 2
    assert sorted(record.index for record in records) == list(range(60))
    assert {(record.index % 2, record.worker) for record in records} == {(0, 0), (1, 1)}
    for record in records:
        assert record.outcome is Outcome.OK
        assert record.scheduled_at == pytest.approx(record.index / 60)
        assert record.dispatched_at is not None and record.dispatched_at >= record.scheduled_at
        assert [chunk.token_count for chunk in record.chunks] == [2, 2, 2]
        assert record.chunks[0].at_seconds >= record.dispatched_at


def test_what_a_dead_worker_told_is_kept_and_its_death_is_told(address: str) -> None:
    records: list[RequestRecord] = []
    load = Load("closed", concurrency=2, phases=PHASES)

    async def run() -> Driven:
        workers = Workers(job_for(address, load), 2)

        def note(record: RequestRecord) -> None:
            records.append(record)
            if record.worker == 0:
                workers._workers[0].kill()

        try:
            await workers.open()
            return await workers.drive(note)
        finally:
            await workers.close()

    end = asyncio.run(run())
    assert end.lost == ("worker 0 died with exit status -9: it said nothing",)
    assert end.client.workers == 1
    assert {record.worker for record in records} == {0, 1}


def test_stopped_workers_tell_what_they_have(address: str) -> None:
    load = Load("closed", concurrency=2, phases=Phases(0, 3600, 0, 3600))
    records: list[RequestRecord] = []

    async def run() -> Driven:
        workers = Workers(job_for(address, load), 1)

        def note(record: RequestRecord) -> None:
            records.append(record)
            if len(records) == 20:
                workers.stop()

        try:
            await workers.open()
            return await workers.drive(note)
        finally:
            await workers.close()

    end = asyncio.run(run())
    assert end.lost == ()
    assert len(records) >= 20


def test_data_that_changed_since_the_start_is_noticed(address: str) -> None:
    job = job_for(address, Load("closed", concurrency=1, phases=PHASES))
    changed = Job(job.load, job.targets, job.security, job.wishes, {**job.data, "sha256": "0"})
    with pytest.raises(UsageError, match="have changed since the start"):
        driven(changed, 1)


def test_a_worker_that_cannot_start_is_one_line(address: str) -> None:
    job = job_for(address, Load("closed", concurrency=1, phases=PHASES))
    broken = Job(job.load, job.targets, job.security, job.wishes, {"kind": "nonsense"})
    with pytest.raises(
        LoadTestError, match=r"^worker 0 died with exit status 1: \w+Error: [^\n]*$"
    ):
        driven(broken, 1)


def test_a_record_survives_the_pipe() -> None:
    record = RequestRecord(3, "t", "infill", 1.25, 1, "family", "id-3", 1.5, 1.75)
    record.chunks = [Chunk(2.0, 3), Chunk(2.5, 1)]
    record.outcome, record.status, record.reason = Outcome.FAILED, "INTERNAL", "BUG"
    record.finished_at, record.server_queue_seconds = 3.0, 0.125
    told = json.loads(json.dumps(record_to_json(record)))
    assert record_from_json(told) == record


def test_a_job_survives_the_pipe_and_carries_no_trace(address: str) -> None:
    job = job_for(address, Load("trace", trace_seconds=(1.0, 2.0), phases=PHASES))
    told = Job.from_json(json.loads(json.dumps(job.to_json())))
    assert told.load.trace_seconds == ()
    assert (told.targets, told.security, told.wishes, told.data) == (
        job.targets,
        job.security,
        job.wishes,
        job.data,
    )
