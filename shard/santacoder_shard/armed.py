"""A rank that does what its armed fault points say. Loaded in tests alone.

Wraps the engine and hooks into the model from outside: neither knows that there are faults.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from santacoder_shard.fault_points import FaultPoint
from santacoder_shard.model import SantaCoder
from santacoder_shard.parallel import Parallel
from santacoder_shard.step import Plan, StepOutcome
from santacoder_shard.worker import PlanRunner

FOREVER_SECONDS = 3600.0
# How long a frame that was handed over may take to leave the process.
SENDING_SECONDS = 0.1
ALLOCATION_BYTES = 64 << 20

CallSoon = Callable[..., object]


class FaultPoints:
    """Counts how often each point was reached, and acts when a fault is due."""

    def __init__(self, faults: Sequence[FaultPoint], call_soon: CallSoon | None = None) -> None:
        """`call_soon` runs a function on the event loop's thread."""
        self._faults = faults
        self._call_soon = call_soon
        self._counts: Counter[FaultPoint] = Counter()
        self.running_ids: frozenset[int] = frozenset()
        self.skips_collective = False

    def reach(self, point: str) -> list[str]:
        """Acts; the actions left to the caller, who has what they change."""
        left: list[str] = []
        for fault in self._faults:
            if fault.at == point and self._is_due(fault):
                left += self._act(fault)
        return left

    def arm_parallel(self, parallel: Parallel) -> Parallel:
        """The same rank, that may stay away from a collective."""
        return ArmedParallel(parallel, self)

    def arm_engine(self, engine: PlanRunner, model: SantaCoder) -> PlanRunner:
        """The same engine, with faults; after it has warmed up."""
        arm_model(model, self)
        return ArmedRunner(engine, self)

    def _is_due(self, fault: FaultPoint) -> bool:
        if fault.token_id >= 0 and fault.token_id not in self.running_ids:
            return False
        self._counts[fault] += 1
        count = self._counts[fault]
        is_due = count == fault.nth or (fault.repeats and count > fault.nth)
        if is_due and fault.at == "sent":
            time.sleep(SENDING_SECONDS)
        return is_due and (not fault.mark or _make_mark(fault.mark))

    def _act(self, fault: FaultPoint) -> list[str]:
        match fault.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "abort":
                os.abort()
            case "segv":
                ctypes.string_at(0)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise RuntimeError("a fault point")
            case "device_oom":
                raise torch.OutOfMemoryError("a fault point")
            case "device_assert":
                _break_the_device()
            case "allocate":
                _allocate_without_end()
            case "hang":
                time.sleep(FOREVER_SECONDS)
            case "slow":
                time.sleep(fault.seconds)
            case "stall_loop":
                if self._call_soon is not None:
                    self._call_soon(time.sleep, fault.seconds)
            case "skip_collective":
                self.skips_collective = True
            case _:
                return [fault.action]
        return []


class ArmedRunner:
    """An engine, and faults before its plans and around its outcomes."""

    def __init__(self, runner: PlanRunner, points: FaultPoints) -> None:
        self._runner = runner
        self._points = points
        self._ids_by_slot: dict[int, frozenset[int]] = {}

    def run(
        self, plan: Plan, emit: Callable[[StepOutcome], None], interrupted: Callable[[], bool]
    ) -> None:
        """As the engine, with faults."""
        for admit in plan.admits:
            prompt = admit.token_ids[: admit.prompt_length]
            self._ids_by_slot[admit.slot] = frozenset(prompt)
        held = (self._ids_by_slot.get(row.slot, frozenset()) for row in plan.rows)
        self._points.running_ids = frozenset().union(*held)
        if plan.rows:
            is_prefill = any(row.token_count > 1 for row in plan.rows)
            self._points.reach("prefill" if is_prefill else "decode")
        self._runner.run(plan, lambda outcome: self._emit(outcome, emit), interrupted)

    def drain(self, plan_waits: Callable[[], bool]) -> None:
        """As the engine."""
        self._runner.drain(plan_waits)

    def _emit(self, outcome: StepOutcome, emit: Callable[[StepOutcome], None]) -> None:
        actions = self._points.reach("result")
        if "drop_result" not in actions:
            emit(outcome)
        if "repeat_result" in actions:
            emit(outcome)
        self._points.reach("sent")


class ArmedParallel(Parallel):
    """A rank that may stay away from a collective."""

    def __init__(self, parallel: Parallel, points: FaultPoints) -> None:
        super().__init__(parallel.rank, parallel.size, parallel._group)
        self._points = points

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """As it should be, or its own part alone."""
        if self._points.skips_collective:
            self._points.skips_collective = False
            return tensor
        return super().all_reduce(tensor)


def _make_mark(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def arm_model(model: SantaCoder, points: FaultPoints) -> None:
    """Lets faults happen in the forward pass and to its logits. Not inside CUDA graphs."""

    def before(_module: Any, _arguments: Any) -> None:
        if "flip_bit" in points.reach("forward"):
            _flip_a_bit(model)

    def after(_module: Any, _arguments: Any, logits: torch.Tensor | None) -> None:
        actions = points.reach("logits")
        if logits is not None and len(logits):
            if "nan_all" in actions:
                logits.fill_(torch.nan)
            elif "nan_row" in actions:
                logits[0].fill_(torch.nan)

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after)


def _flip_a_bit(model: SantaCoder) -> None:
    weight = next(parameter for parameter in model.parameters() if parameter.ndim > 1)
    weight.detach().view(-1)[:1].neg_()


def _break_the_device() -> None:
    """Reads beyond a tensor on the GPU: every later call there fails."""
    device = torch.device("cuda", torch.cuda.current_device())
    beyond = torch.full((1,), 1 << 20, device=device)
    torch.zeros(1, device=device).index_select(0, beyond)
    torch.cuda.synchronize()


def _allocate_without_end() -> None:
    kept: list[torch.Tensor] = []
    while True:
        # Written to, or the kernel would not count it.
        kept.append(torch.ones(ALLOCATION_BYTES, dtype=torch.uint8))
