"""What the scheduler raises ends the router: what it holds can no longer be trusted."""

from __future__ import annotations

from collections.abc import Callable


class SchedulerFault(Exception):
    """The scheduler raised; nothing goes on from here."""


class FailStop:
    """Turns what the scheduler raises into a SchedulerFault. A class, as it is entered often."""

    def __init__(self, take_fault: Callable[[Exception], None]) -> None:
        self._take_fault = take_fault

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            self._take_fault(error)
            raise SchedulerFault from error
