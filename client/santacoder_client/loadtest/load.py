"""What load to put on: its model, its caps, its times. Plain values, told whole to every worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

Model = Literal["constant", "poisson", "gamma", "ramp", "steps", "trace", "closed", "editor"]
Spacing = Literal["constant", "poisson", "gamma"]
Typing = Literal["habits", "data"]


@dataclass(frozen=True, slots=True)
class Phases:
    """The three parts of a run. Only what is due in the steady part counts in figures."""

    warm_up_seconds: float = 5.0
    steady_seconds: float = 30.0
    cool_down_seconds: float = 2.0
    """Load goes on here, so that the last steady requests meet the same server as the first."""
    grace_seconds: float = 30.0
    """How long requests may go on when no more are sent; then they are cancelled."""

    @property
    def steady_begin(self) -> float:
        """On the run's clock."""
        return self.warm_up_seconds

    @property
    def steady_end(self) -> float:
        """On the run's clock; the first moment that is no longer steady."""
        return self.warm_up_seconds + self.steady_seconds

    @property
    def sending_seconds(self) -> float:
        """How long requests fall due."""
        return self.steady_end + self.cool_down_seconds


@dataclass(frozen=True, slots=True)
class Step:
    """A rate held for some time."""

    per_second: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Habits:
    """How the people of the editor model type. Medians of log-normal pauses."""

    keystroke_seconds: float = 0.15
    """Between two keystrokes that ask for a completion; the second supersedes the first."""
    keystrokes_per_burst: float = 8.0
    """Mean of a geometric distribution."""
    think_seconds: float = 3.0
    """Between bursts: reading, thinking, accepting what came."""
    spread: float = 0.5
    """Sigma of the pauses' logarithm; 0 makes all pauses the same."""


@dataclass(frozen=True, slots=True)
class Load:
    """Everything that decides when which request is sent."""

    model: Model = "poisson"
    per_second: float | None = None
    """Rate of an open loop; where a ramp begins."""
    end_per_second: float | None = None
    """Where a ramp ends, at the end of the steady part."""
    steps: tuple[Step, ...] = ()
    spacing: Spacing = "poisson"
    """How requests of an open loop are strewn around its rate."""
    burstiness: float = 1.0
    """Squared variation of gamma gaps: 1 is Poisson, above it requests come in bunches."""
    concurrency: int | None = None
    """Requests at once: the users of a closed loop, a cap in an open one."""
    editor_count: int = 0
    typing: Typing = "habits"
    """Whence editors' pauses come: from `habits`, or from data that knows when keys are hit."""
    habits: Habits = Habits()
    debounce_seconds: float = 0.075
    """Of editors whose pauses come from data: how long no key is hit before they ask."""
    trace_seconds: tuple[float, ...] = ()
    """When each request of a timed trace is due, at speed 1."""
    speed: float = 1.0
    """Of a trace; 2 plays it in half the time."""
    seed: int = 0
    phases: Phases = Phases()

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` undoes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The load that `to_json` wrote."""
        plain = {field.name: values[field.name] for field in fields(cls)}
        plain["steps"] = tuple(Step(**step) for step in plain["steps"])
        plain["trace_seconds"] = tuple(plain["trace_seconds"])
        plain["habits"] = Habits(**plain["habits"])
        plain["phases"] = Phases(**plain["phases"])
        return cls(**plain)

    def described(self) -> dict[str, Any]:
        """What a result says of it: the model and the options that it uses."""
        whole = self.to_json()
        del whole["phases"], whole["trace_seconds"]
        if self.model != "editor":
            del whole["habits"], whole["editor_count"], whole["typing"]
        elif self.typing == "data":
            del whole["habits"]
        if self.typing != "data":
            del whole["debounce_seconds"]
        if not self.steps:
            del whole["steps"]
        if self.model in ("closed", "editor", "trace"):
            del whole["spacing"]
        if whole.get("spacing") != "gamma":
            del whole["burstiness"]
        if self.model != "trace":
            del whole["speed"]
        return {name: value for name, value in whole.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part: the requests whose index leaves the remainder `worker`."""

    worker: int = 0
    workers: int = 1

    def holds(self, index: int) -> bool:
        """Whether this worker sends it."""
        return index % self.workers == self.worker

    def of(self, count: int) -> int:
        """Its part of a count; all parts together are the count."""
        return len(range(self.worker, count, self.workers))
