"""What is kept of every request: when it was due, when it was sent, and when each part came back.

All times are seconds on the run's clock: `time.monotonic()` less the moment the run began, which is
one clock for every process of a machine. Nothing is computed here; `figures.py` does that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended."""

    OK = "ok"
    FAILED = "failed"
    """The server or the wire refused or broke it; `status` and `reason` say how."""
    CANCELLED = "cancelled"
    """Cancelled by the load itself, as its plan was."""
    SUPERSEDED = "superseded"
    """An editor's request that its next keystroke replaced."""
    UNSENT = "unsent"
    """Due, and never sent: a cap on concurrency or the end of the run kept it back."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A message with tokens: when it came, and how many it held."""

    at_seconds: float
    token_count: int


@dataclass(slots=True)
class RequestRecord:
    """One request. What never happened is None."""

    index: int
    """Place in the schedule, from 0; unique in a run, over all workers."""
    target: str
    kind: str
    """`text`, `infill` or `token_ids`."""
    scheduled_at: float
    """When it was due. In a closed loop: when it was sent."""
    worker: int = 0
    family: str = ""
    """What the data source calls its kind, `fim-line` or `prefix-3`; empty if it has none."""
    request_id: str = ""
    dispatched_at: float | None = None
    accepted_at: float | None = None
    """When the first event came, which says that the request holds a slot."""
    chunks: list[Chunk] = field(default_factory=list)
    cancelled_at: float | None = None
    """When the client asked for its end."""
    finished_at: float | None = None
    """When the call had ended, well or not; after a cancel, when the server had confirmed it."""
    outcome: Outcome = Outcome.UNSENT
    status: str = ""
    """gRPC status by name; empty for an unsent request."""
    reason: str = ""
    """ErrorInfo's reason, such as QUEUE_FULL."""
    message: str = ""
    prompt_token_count: int = 0
    cached_token_count: int = 0
    completion_token_count: int = 0
    server_queue_seconds: float | None = None
    server_first_token_seconds: float | None = None
    server_total_seconds: float | None = None

    @property
    def first_token_at(self) -> float | None:
        """When the first message with tokens came; for a unary answer there is none."""
        return self.chunks[0].at_seconds if self.chunks else None
