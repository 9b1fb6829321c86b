"""How long a step may take before it counts as hung: learned from the steps that ran. Pure."""

from __future__ import annotations

FIRST_USE_SECONDS = 60.0
LEAST_SECONDS = 5.0
TIMES_USUAL = 20.0
NEW_SHARE = 0.2


class StepDeadline:
    """Remembers the usual time of a step by its size, in powers of two of tokens run."""

    def __init__(self) -> None:
        self._usual_seconds: dict[int, float] = {}

    def observe(self, token_count: int, seconds: float) -> None:
        """A step of `token_count` tokens took `seconds`."""
        size = token_count.bit_length()
        usual = self._usual_seconds.get(size, seconds)
        self._usual_seconds[size] = usual + NEW_SHARE * (seconds - usual)

    def usual_seconds(self, token_count: int) -> float | None:
        """What a step of `token_count` tokens takes; None where that size never ran."""
        return self._usual_seconds.get(token_count.bit_length())

    def lease_seconds(self, first_token_count: int, row_count: int, num_steps: int) -> float | None:
        """What a lease takes whose further steps run a token a row; None where nobody knows."""
        first = self.usual_seconds(first_token_count)
        further = self.usual_seconds(row_count)
        if first is None or further is None:
            return None
        return first + (num_steps - 1) * further

    def seconds(self, token_count: int) -> float:
        """Limit for a step of `token_count` tokens; generous where that size never ran."""
        usual = self.usual_seconds(token_count)
        return FIRST_USE_SECONDS if usual is None else max(LEAST_SECONDS, TIMES_USUAL * usual)
