"""One row of the table of bad inputs: what comes in, by which ways, and what each must answer.

An answer is said in words, the same on every way in: a gRPC status and its reason, `OK`, an exit
status, or an exception's name. Rows that a test elsewhere shows name that test instead of a way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from running_service import Service

from santacoder_client import Client


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row is tried: a service that serves others meanwhile, and a folder of its own."""

    service: Service
    channel: grpc.Channel
    """Without the SDK's checks, and able to send more than the server takes."""
    client: Client
    folder: Path


Try = Callable[[Place], str]


@dataclass(frozen=True, slots=True)
class Row:
    """One input. Numbers stay with their inputs: where one was taken back, it is left out."""

    number: int
    input: str
    answer: str
    tries: Mapping[str, Try] = field(default_factory=dict)
    """By way in, how it is tried."""
    seen_by: str = ""
    """FILE::TEST below tests/, where another test shows it."""
    why: str = ""
    """Why the answer is another than one would expect."""

    @property
    def name(self) -> str:
        """The row's part of a test's name."""
        words = "".join(char if char.isalnum() else "-" for char in self.input)
        return f"row-{self.number:03}-{words[:60]}"
