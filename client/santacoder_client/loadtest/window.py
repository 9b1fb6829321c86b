"""The part of a run that counts. Knows the run's clock, no requests and no load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Self

from santacoder_client.loadtest.schema import AtLeast

Seconds = Annotated[float, AtLeast(0)]


@dataclass(frozen=True, slots=True)
class Window:
    """What was planned, and from when to when it is steady, on the run's clock.

    A request belongs to the window by when it was *due*, however late it was sent or answered:
    chosen by anything the server influences, the slowest would be the first to drop out. Rates of
    what came back (tokens, answers) count what arrived inside it, whoever had asked.
    """

    warm_up_seconds: Seconds
    steady_seconds: Seconds
    cool_down_seconds: Seconds
    begin: Seconds
    end: Seconds

    @classmethod
    def planned(
        cls, warm_up_seconds: float, steady_seconds: float, cool_down_seconds: float
    ) -> Self:
        """The window of a run that is not cut short."""
        begin = warm_up_seconds
        return cls(
            warm_up_seconds, steady_seconds, cool_down_seconds, begin, begin + steady_seconds
        )

    def cut_at(self, ended_at: float) -> Window:
        """The window of a run that was interrupted then; empty if it never became steady."""
        return replace(self, end=max(self.begin, min(self.end, ended_at)))

    @property
    def seconds(self) -> float:
        """How long it is; 0 for a run that never became steady."""
        return self.end - self.begin

    def holds(self, at_seconds: float) -> bool:
        """Whether a moment is inside; the end is not."""
        return self.begin <= at_seconds < self.end
