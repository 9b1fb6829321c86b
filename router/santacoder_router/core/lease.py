"""How many steps one plan may run before the router is asked again. Knows durations, no clock."""

from __future__ import annotations

# Weight of the newest measurement: about the last ten plans count.
_SMOOTHING = 0.2


class StepTime:
    """The smoothed time of a decode step."""

    def __init__(self) -> None:
        self._seconds: float | None = None

    def observe(self, device_seconds: float, num_steps: int) -> None:
        """Takes in that `num_steps` decode steps took `device_seconds`."""
        seconds = device_seconds / num_steps
        if self._seconds is None:
            self._seconds = seconds
        else:
            self._seconds += _SMOOTHING * (seconds - self._seconds)

    def steps_within(self, seconds: float, limit: int) -> int:
        """How many steps fit in `seconds`: from 1, also where nothing is known yet, to `limit`."""
        if self._seconds is None:
            return 1
        if self._seconds * limit <= seconds:
            return max(1, limit)
        return max(1, int(seconds / self._seconds))
