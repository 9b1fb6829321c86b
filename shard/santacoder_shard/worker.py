"""Runs plans one after the other on the one thread that touches the model. Knows no wire.

`submit` and the readers are called from the event loop's thread, the callbacks from the model's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from santacoder_shard.codec import Progress
from santacoder_shard.step import Plan, StepOutcome


class PlanRunner(Protocol):
    """What the worker needs of an engine."""

    def run(
        self, plan: Plan, emit: Callable[[StepOutcome], None], interrupted: Callable[[], bool]
    ) -> None:
        """Carry the plan out, calling `emit` as steps end, the last time with `final`.

        The last calls may be left to the next plan's `run`, or to `drain`.
        """

    def drain(self, plan_waits: Callable[[], bool]) -> None:
        """Make the calls of `emit` that are left; or return sooner, once `plan_waits` says so."""


class PlanQueueFull(Exception):
    """More plans are in flight than the rank allows."""


@dataclass(frozen=True, slots=True)
class _Running:
    """The plan being run. Replaced whole, so that the other thread never sees half of a change."""

    plan_number: int
    step_deadline_seconds: float
    step_started_at: float


class Worker:
    """The life of one stream of plans. After a failure nothing more is run.

    `model_thread` is an executor with a single thread, which keeps plans in order.
    `on_outcome` gets every outcome, `on_failure` the plan's number and the exception, once.
    """

    def __init__(
        self,
        runner: PlanRunner,
        model_thread: Executor,
        plans_in_flight: int,
        on_outcome: Callable[[StepOutcome], None],
        on_failure: Callable[[int, Exception], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._model_thread = model_thread
        self._free_places = threading.BoundedSemaphore(plans_in_flight)
        self._on_outcome = on_outcome
        self._on_failure = on_failure
        self._clock = clock
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self._running: _Running | None = None
        self._interrupted_plan = 0
        self._last_plan_number = 0
        self._step_count = 0
        self._waiting_count = 0
        self._unfinished_count = 0
        self._progress_at = clock()

    def submit(self, plan: Plan) -> None:
        """Queue a plan; PlanQueueFull if as many as allowed have not answered yet."""
        if not self._free_places.acquire(blocking=False):
            raise PlanQueueFull
        with self._counting:
            self._waiting_count += 1
        self._model_thread.submit(self._run, plan)

    def finish(self, then: Callable[[], None]) -> None:
        """Call `then` on the model's thread once every plan submitted so far has run."""
        self._model_thread.submit(then)

    def stop(self) -> None:
        """Run no further plan, and ask the running one to end early."""
        self._stopped.set()

    def interrupt(self, plan_number: int) -> None:
        """Cut this plan short; no effect unless it is the one running."""
        running = self._running
        if running is not None and running.plan_number == plan_number:
            self._interrupted_plan = plan_number

    def progress(self) -> Progress:
        """How far the worker is now."""
        return Progress(
            last_plan_number=self._last_plan_number,
            step_count=self._step_count,
            age_seconds=self._clock() - self._progress_at,
            running=self._running is not None,
        )

    def overdue(self) -> tuple[int, float] | None:
        """Plan number and age in seconds of a step that has outlived its plan's deadline."""
        running = self._running
        if running is None or not running.step_deadline_seconds:
            return None
        age = self._clock() - running.step_started_at
        return (running.plan_number, age) if age > running.step_deadline_seconds else None

    def _run(self, plan: Plan) -> None:
        with self._counting:
            self._waiting_count -= 1
        if self._stopped.is_set():
            return
        self._running = _Running(plan.number, plan.step_deadline_seconds, self._clock())
        self._unfinished_count += 1
        try:
            self._runner.run(
                plan,
                lambda outcome: self._emit(plan, outcome),
                lambda: self._is_interrupted(plan.number),
            )
            # A plan that waits, or comes meanwhile, goes behind what this one has left running.
            self._runner.drain(self._has_waiting)
            if self._unfinished_count and not self._has_waiting():
                raise RuntimeError("the engine left a plan without its final outcome")
        except Exception as failure:
            self._running = None
            self._stopped.set()
            self._on_failure(plan.number, failure)

    def _has_waiting(self) -> bool:
        return self._waiting_count > 0

    def _emit(self, plan: Plan, outcome: StepOutcome) -> None:
        self._progress_at = self._clock()
        self._step_count += outcome.steps_run
        running = self._running
        is_newest = running is not None and running.plan_number == plan.number
        if outcome.final:
            self._unfinished_count -= 1
            self._last_plan_number = plan.number
            if is_newest:
                self._running = None
            # The place is free before the router can know that the plan has ended.
            self._free_places.release()
        elif is_newest:
            self._running = _Running(plan.number, plan.step_deadline_seconds, self._progress_at)
        self._on_outcome(outcome)

    def _is_interrupted(self, plan_number: int) -> bool:
        return self._interrupted_plan == plan_number or self._stopped.is_set()
