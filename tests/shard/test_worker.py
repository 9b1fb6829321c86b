"""Plans run in order on one thread; limits, interrupts, failures and hangs show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from santacoder_shard.step import Plan, StepOutcome
from santacoder_shard.worker import PlanQueueFull, Worker

Emit = Callable[[StepOutcome], None]
WAIT_SECONDS = 60.0


def plan(number: int, step_deadline_seconds: float = 0.0) -> Plan:
    return Plan(number, (), (), (), (), (), 1, 0.0, True, step_deadline_seconds)


def outcome(number: int, first_step: int = 0, final: bool = True) -> StepOutcome:
    return StepOutcome(number, first_step, 1, final, (), 0.0)


class Gate:
    """Runs each plan only when let through, and notes who ran what."""

    def __init__(self) -> None:
        self.open = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.ran: list[tuple[int, int]] = []

    def drain(self, plan_waits: Callable[[], bool]) -> None: ...

    def run(self, plan: Plan, emit: Emit, interrupted: Callable[[], bool]) -> None:
        self.started.release()
        assert self.open.acquire(timeout=WAIT_SECONDS)
        self.ran.append((plan.number, threading.get_ident()))
        emit(outcome(plan.number))


class Collected:
    """What came back, and a wait for it."""

    def __init__(self) -> None:
        self.outcomes: list[StepOutcome] = []
        self.failures: list[tuple[int, Exception]] = []
        self._arrived = threading.Semaphore(0)

    def on_outcome(self, outcome: StepOutcome) -> None:
        self.outcomes.append(outcome)
        self._arrived.release()

    def on_failure(self, plan_number: int, error: Exception) -> None:
        self.failures.append((plan_number, error))
        self._arrived.release()

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self._arrived.acquire(timeout=WAIT_SECONDS)


@pytest.fixture
def model_thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_plans_run_in_order_on_the_one_thread(model_thread: ThreadPoolExecutor) -> None:
    gate, collected = Gate(), Collected()
    worker = Worker(gate, model_thread, 8, collected.on_outcome, collected.on_failure)
    for number in range(1, 6):
        worker.submit(plan(number))
    for _ in range(5):
        gate.open.release()
    collected.wait(5)
    assert [number for number, _ in gate.ran] == [1, 2, 3, 4, 5]
    assert {thread for _, thread in gate.ran} == {model_thread.submit(threading.get_ident).result()}


def test_more_plans_than_allowed_in_flight_are_refused_until_one_ends(
    model_thread: ThreadPoolExecutor,
) -> None:
    gate, collected = Gate(), Collected()
    worker = Worker(gate, model_thread, 2, collected.on_outcome, collected.on_failure)
    worker.submit(plan(1))
    worker.submit(plan(2))
    with pytest.raises(PlanQueueFull):
        worker.submit(plan(3))
    gate.open.release()
    collected.wait()
    worker.submit(plan(3))
    gate.open.release(2)
    collected.wait(2)
    assert [number for number, _ in gate.ran] == [1, 2, 3]


class Counting:
    """A lease that steps until interrupted."""

    def __init__(self) -> None:
        self.started = threading.Event()

    def drain(self, plan_waits: Callable[[], bool]) -> None: ...

    def run(self, plan: Plan, emit: Emit, interrupted: Callable[[], bool]) -> None:
        self.started.set()
        for step in range(10**9):
            if interrupted():
                emit(outcome(plan.number, step))
                return


def test_an_interrupt_ends_the_running_plan_and_no_other(model_thread: ThreadPoolExecutor) -> None:
    counting, collected = Counting(), Collected()
    worker = Worker(counting, model_thread, 2, collected.on_outcome, collected.on_failure)
    worker.submit(plan(1))
    assert counting.started.wait(WAIT_SECONDS)
    worker.interrupt(2)
    worker.interrupt(7)
    assert not collected.outcomes
    counting.started.clear()
    worker.submit(plan(2))
    worker.interrupt(1)
    collected.wait()
    # An interrupt for plan 2 came before it began, so it is still running.
    assert counting.started.wait(WAIT_SECONDS)
    assert len(collected.outcomes) == 1
    worker.interrupt(2)
    collected.wait()
    assert [outcome.plan_number for outcome in collected.outcomes] == [1, 2]


class Failing:
    def __init__(self) -> None:
        self.ran: list[int] = []

    def drain(self, plan_waits: Callable[[], bool]) -> None: ...

    def run(self, plan: Plan, emit: Emit, interrupted: Callable[[], bool]) -> None:
        self.ran.append(plan.number)
        if plan.number == 2:
            raise ValueError("no such block")
        emit(outcome(plan.number))


def test_a_failure_is_reported_with_its_plan_and_nothing_runs_after_it(
    model_thread: ThreadPoolExecutor,
) -> None:
    failing, collected = Failing(), Collected()
    worker = Worker(failing, model_thread, 8, collected.on_outcome, collected.on_failure)
    for number in (1, 2, 3):
        worker.submit(plan(number))
    model_thread.submit(int).result(WAIT_SECONDS)
    assert failing.ran == [1, 2]
    assert [(number, str(error)) for number, error in collected.failures] == [(2, "no such block")]


class Unfinished:
    def drain(self, plan_waits: Callable[[], bool]) -> None: ...

    def run(self, plan: Plan, emit: Emit, interrupted: Callable[[], bool]) -> None:
        emit(outcome(plan.number, final=False))


def test_a_plan_left_without_its_final_outcome_is_a_failure(
    model_thread: ThreadPoolExecutor,
) -> None:
    collected = Collected()
    worker = Worker(Unfinished(), model_thread, 8, collected.on_outcome, collected.on_failure)
    worker.submit(plan(1))
    collected.wait(2)
    assert "final" in str(collected.failures[0][1])


def test_a_step_past_its_deadline_is_overdue_and_progress_says_since_when(
    model_thread: ThreadPoolExecutor,
) -> None:
    now = [100.0]
    gate, collected = Gate(), Collected()
    worker = Worker(
        gate, model_thread, 8, collected.on_outcome, collected.on_failure, clock=lambda: now[0]
    )
    assert not worker.progress().running
    worker.submit(plan(1, step_deadline_seconds=5.0))
    assert gate.started.acquire(timeout=WAIT_SECONDS)
    now[0] = 104.0
    assert worker.overdue() is None
    now[0] = 106.0
    assert worker.overdue() == (1, 6.0)
    assert worker.progress().running
    assert worker.progress().age_seconds == 6.0
    gate.open.release()
    collected.wait()
    assert worker.overdue() is None
    progress = worker.progress()
    assert (progress.last_plan_number, progress.step_count, progress.age_seconds) == (1, 1, 0.0)
    assert not progress.running


def test_finish_is_called_after_every_plan_submitted_before(
    model_thread: ThreadPoolExecutor,
) -> None:
    gate, collected = Gate(), Collected()
    worker = Worker(gate, model_thread, 8, collected.on_outcome, collected.on_failure)
    seen: list[int] = []
    done = threading.Event()

    def finished() -> None:
        seen.append(len(collected.outcomes))
        done.set()

    worker.submit(plan(1))
    worker.submit(plan(2))
    worker.finish(finished)
    gate.open.release(2)
    assert done.wait(WAIT_SECONDS)
    assert seen == [2]
