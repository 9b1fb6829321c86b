"""When people who type ask for completions. Pure and seeded; a person never waits for an answer.

A person types a burst, and every keystroke of it asks anew and supersedes what still runs. Then
there is a pause for thought. Where the data knows a person's keys, its pauses are theirs, and an
editor asks after each key that no other follows at once, as real ones do.

That the timeline does not depend on the server is on purpose: people type on when an answer is
late, and a slow server must not be asked less because it is slow.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.load import Habits, Load, Share


class Keystroke(NamedTuple):
    """One request of one person."""

    due: float
    number: int
    """Of the request, unique in a run: the person plus a multiple of the number of people."""
    person: int


@runtime_checkable
class Typist(Protocol):
    """Data that knows people's keys."""

    def pauses(self, person: int) -> Iterator[float]:
        """Seconds before each key of a person, for ever."""

    def state(self, person: int, number: int) -> Prompt:
        """What the person's editor asks with after key `number`."""


def keystrokes(load: Load, share: Share, typist: Typist | None = None) -> Iterator[Keystroke]:
    """What this worker's people ask, in order of time, until no more is sent.

    Nothing, where only the data knows and it is not there.
    """
    people = range(share.worker, load.editor_count, share.workers)
    if load.typing == "habits":
        merged = heapq.merge(*(_of_person(load, person) for person in people))
    elif typist is not None:
        merged = heapq.merge(*(_of_typist(load, typist, person) for person in people))
    else:
        return iter(())
    end = load.phases.sending_seconds
    return itertools.takewhile(lambda keystroke: keystroke.due < end, merged)


def _of_person(load: Load, person: int) -> Iterator[Keystroke]:
    for number, due in enumerate(typing_times(load.habits, f"editor-{load.seed}-{person}")):
        yield Keystroke(due, person + number * load.editor_count, person)


def _of_typist(load: Load, typist: Typist, person: int) -> Iterator[Keystroke]:
    pauses = typist.pauses(person)
    # People do not start together: the first is somewhere within its first pause.
    hit_at = next(pauses) * random.Random(f"editor-{load.seed}-{person}").random()
    for number, pause in enumerate(pauses):
        if pause >= load.debounce_seconds:
            due = hit_at + load.debounce_seconds
            yield Keystroke(due, person + number * load.editor_count, person)
        hit_at += pause


def typing_times(habits: Habits, seed: str) -> Iterator[float]:
    """When one person's keystrokes ask for a completion, for ever."""
    draw = random.Random(seed)
    # People do not start together: the first is somewhere within its first pause.
    now = draw.random() * habits.think_seconds
    while True:
        yield now
        for _ in range(_burst_length(draw, habits.keystrokes_per_burst) - 1):
            now += _pause(draw, habits.keystroke_seconds, habits.spread)
            yield now
        now += _pause(draw, habits.think_seconds, habits.spread)


def _burst_length(draw: random.Random, mean: float) -> int:
    """Geometric, at least 1."""
    if mean <= 1:
        return 1
    return 1 + int(math.log(1.0 - draw.random()) / math.log(1.0 - 1.0 / mean))


def _pause(draw: random.Random, median_seconds: float, spread: float) -> float:
    return median_seconds * math.exp(spread * draw.gauss(0.0, 1.0))
