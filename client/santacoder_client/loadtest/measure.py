"""One measurement: a load driven on targets that answer, from the first worker to the last record.

`run` and `replay` take one, `sweep` one after another. Sums nothing up and shows nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from santacoder_client.loadtest.data.options import PreparedData, build_source, to_job
from santacoder_client.loadtest.errors import Unreachable, UsageError
from santacoder_client.loadtest.job import Job
from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.model_check import ask_models, common_facts
from santacoder_client.loadtest.record import Outcome, RequestRecord
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.result import ClientVerdict, DataInfo, ServerMetrics, TargetInfo
from santacoder_client.loadtest.scrape import compare_scrapes, problems, scrape
from santacoder_client.loadtest.target import Security, Target
from santacoder_client.loadtest.window import Window
from santacoder_client.loadtest.workers import Workers

GIVE_UP_SECONDS = 10.0
"""With no answer but UNAVAILABLE from nobody for so long, there is no server left to load."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a verb asks for, checked as far as it can be without a server."""

    targets: tuple[Target, ...]
    security: Security
    wishes: Wishes
    data: PreparedData
    channel_count: int | None = None
    metrics_targets: tuple[str, ...] = ()
    """Where servers tell their own metrics, HOST:PORT."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan whose targets have answered."""

    plan: Plan
    targets: tuple[TargetInfo, ...]
    data: DataInfo
    data_job: dict[str, Any]

    def job(self, load: Load) -> Job:
        """What workers are told."""
        plan = self.plan
        return Job(
            load, plan.targets, plan.security, plan.wishes, self.data_job, plan.channel_count
        )


class Watcher(Protocol):
    """Whoever looks on while it runs."""

    def begin(self, load: Load, clock: Callable[[], float]) -> None:
        """The run begins; the clock is the run's."""

    def note(self, record: RequestRecord) -> None:
        """A request is over."""

    def end(self) -> None:
        """The run is over, well or not."""


@dataclass(slots=True)
class Measured:
    """What a measurement gave. Of an interrupted one: what there was by then."""

    load: Load
    started_at: str
    """ISO 8601, UTC."""
    window: Window
    client: ClientVerdict
    records: list[RequestRecord]
    interrupted: bool = False
    failures: list[str] = field(default_factory=list)
    """Workers that died and servers that went away, a line each."""
    server_metrics: tuple[ServerMetrics, ...] = ()
    warnings: list[str] = field(default_factory=list)


async def get_ready(plan: Plan) -> Ready:
    """Asks the targets, and makes the data that suits them. Raises Unreachable or DataError."""
    served = await ask_models(plan.targets, plan.security)
    facts = common_facts(served)
    source = build_source(plan.data, facts)
    has_shards = any(target.mode == "shard" for target in plan.targets)
    if has_shards and (kind := source.prompt(0).kind) != "token_ids":
        raise UsageError(f"--data: text ends at the router; got {kind}; allowed token ids")
    return Ready(
        plan=plan,
        targets=tuple(each.info for each in served),
        data=DataInfo(source.name, source.sha256, dict(source.options)),
        data_job=to_job(plan.data, facts, source.sha256),
    )


async def measure(
    ready: Ready, load: Load, worker_count: int, watcher: Watcher | None = None
) -> Measured:
    """Drives the load and keeps every record. Ctrl-C ends it early, and nothing is lost."""
    workers = Workers(ready.job(load), worker_count)
    records: list[RequestRecord] = []
    vigil = _Vigil(workers)

    def note(record: RequestRecord) -> None:
        records.append(record)
        vigil.note(record)
        if watcher is not None:
            watcher.note(record)

    try:
        with _stopped_by_ctrl_c(workers) as interruption:
            await workers.open()
            if interruption.is_set():
                raise KeyboardInterrupt  # nothing was measured that could be kept
            before = await asyncio.to_thread(scrape, ready.plan.metrics_targets)
            started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
            if watcher is not None:
                watcher.begin(load, workers.clock)
            driven = await workers.drive(note)
    finally:
        if watcher is not None:
            watcher.end()
        await workers.close()
    window = window_of(load)
    interrupted = interruption.is_set()
    if interrupted or vigil.gave_up_at is not None:
        window = window.cut_at(vigil.gave_up_at or driven.ended_at)
    after = await asyncio.to_thread(scrape, ready.plan.metrics_targets)
    return Measured(
        load=load,
        started_at=started_at,
        window=window,
        client=driven.client,
        records=records,
        interrupted=interrupted,
        failures=[*driven.lost, *await _gone(ready, records)],
        server_metrics=compare_scrapes(before, after),
        warnings=problems(*before, *after),
    )


def window_of(load: Load) -> Window:
    """The part of a load that counts."""
    phases = load.phases
    return Window.planned(phases.warm_up_seconds, phases.steady_seconds, phases.cool_down_seconds)


class _Vigil:
    """Stops a run that has nobody left to load."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._alone_since: float | None = None
        self.gave_up_at: float | None = None

    def note(self, record: RequestRecord) -> None:
        """Looks at a record."""
        if record.outcome is Outcome.UNSENT:
            return
        if not is_nobody_there(record):
            self._alone_since = None
            return
        now = self._workers.clock()
        if self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since > GIVE_UP_SECONDS and self.gave_up_at is None:
            self.gave_up_at = now
            self._workers.stop()


@contextmanager
def _stopped_by_ctrl_c(workers: Workers) -> Iterator[asyncio.Event]:
    """Ctrl-C and SIGTERM stop the workers; whether one came is in the event."""
    loop = asyncio.get_running_loop()
    interruption = asyncio.Event()

    def interrupt() -> None:
        interruption.set()
        workers.stop()

    caught = (signal.SIGINT, signal.SIGTERM)
    with suppress(RuntimeError, ValueError):  # not in the main thread: the caller's to handle
        for number in caught:
            loop.add_signal_handler(number, interrupt)
    try:
        yield interruption
    finally:
        with suppress(RuntimeError, ValueError):
            for number in caught:
                loop.remove_signal_handler(number)


async def _gone(ready: Ready, records: Sequence[RequestRecord]) -> list[str]:
    """A line for each target that answered before the run and does not any more."""
    targets = ready.plan.targets
    # A shard group ends its life with the stream of whoever drove it, and that was this run: it is
    # not asked again. Within the run it does not come back.
    left = {record.target for record in records if is_nobody_there(record)}
    gone = [
        f"the shard group at {target.address} went away during the run"
        for target in targets
        if target.mode == "shard" and target.address in left
    ]
    try:
        routers = [target for target in targets if target.mode == "router"]
        await ask_models(routers, ready.plan.security)
    except Unreachable as error:
        gone.append(f"{error}; it was there when the run began")
    return gone


def is_nobody_there(record: RequestRecord) -> bool:
    """Whether a request found nobody; a server that refuses gives a reason."""
    failed = record.outcome is Outcome.FAILED
    return failed and record.status == "UNAVAILABLE" and not record.reason
