"""Time from the command to the ready line, the demo checkpoint, files in the page cache."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from figures import Figure, spread
from service import Service


def measure(arguments: Sequence[str], round_count: int) -> list[Figure]:
    """Starts and stops the service `round_count` times after one start that warms the files."""
    seconds: list[float] = []
    for _ in range(round_count + 1):
        with Service(arguments) as service:
            seconds.append(service.ready_seconds)
    warm = seconds[1:]
    return [
        Figure(
            "demo, start to ready, warm",
            statistics.median(warm),
            "s",
            at_most=5.0,
            beside=f"{spread(warm)}; first {seconds[0]:.2f}",
        )
    ]
