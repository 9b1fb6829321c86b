"""What ends a command of the load tester early, each with its exit status; knows no verb."""

from __future__ import annotations

from typing import ClassVar


class LoadTestError(Exception):
    """Something that a person is told in one line. Exit status 1: it failed while running."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(LoadTestError):
    """What is asked for cannot be done as asked: arguments, data, or files that are in the way."""

    exit_status = 2


class Unreachable(LoadTestError):
    """No server where the target says, or one that refuses this client."""

    exit_status = 5
