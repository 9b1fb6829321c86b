"""Seeded bugs of who makes room in a full queue."""

from __future__ import annotations

from router.core.bugs.bug import bugs_in

ROOM = bugs_in(
    "room.py",
    (
        "each for each in Priority if each <= priority",
        "each for each in Priority if each < priority",
        "in the newcomer's class nobody makes room",
    ),
    (
        "each for each in Priority if each <= priority",
        "each for each in Priority",
        "whoever is above the newcomer makes room",
    ),
    (
        "longer_than = own_length if rank == priority else 0.0",
        "longer_than = own_length",
        "a lower class makes room only where its line is longer",
    ),
    (
        "longer_than = own_length if rank == priority else 0.0",
        "longer_than = 0.0",
        "whoever asks for little makes room for whoever asks for a lot",
    ),
    (
        "+ work / caller.weight",
        "",
        "the newcomer itself does not count",
    ),
    (
        "            tokens -= sequence.token_count\n",
        "            tokens = 0\n",
        "one makes room for any number of tokens",
    ),
    (
        "return displaced if places <= 0 and tokens <= 0 else None",
        "return displaced",
        "some leave although it is not enough",
    ),
    (
        "(line, reversed(line.sequences)) for line",
        "(line, iter(line.sequences)) for line",
        "the oldest makes room",
    ),
    (
        "lengths = [(-line.length, number) for",
        "lengths = [(line.length, number) for",
        "the shortest line makes room",
    ),
    (
        "if sequence is not None and not sequence.generation:",
        "if sequence is not None:",
        "whoever has had a slot makes room",
    ),
    (
        "(length + sequence.work / line.weight, number)",
        "(length, number)",
        "one line makes room to its end",
    ),
)
