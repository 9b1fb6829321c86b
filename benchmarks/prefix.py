"""Time to first token of a long prompt, and of one with the same prefix and another tail."""

from __future__ import annotations

import random
import statistics

from figures import Figure, median_ratio, spread
from peer import Peer
from service import Service

PREFIX_TOKEN_COUNT = 1024
TAIL_TOKEN_COUNT = 16


def measure(service: Service, peer: Peer, round_count: int) -> list[Figure]:
    """Each round has a prefix of its own."""
    generator = random.Random(1)
    first: list[float] = []
    second: list[float] = []
    for _ in range(round_count):
        prefix = _ids(generator, PREFIX_TOKEN_COUNT)
        for seconds in (first, second):
            answer = service.complete(prefix + _ids(generator, TAIL_TOKEN_COUNT), 1)
            seconds.append(answer.first_token_seconds)
        if answer.cached_token_count != PREFIX_TOKEN_COUNT:
            raise RuntimeError(f"cached {answer.cached_token_count} of {PREFIX_TOKEN_COUNT} tokens")
    theirs = peer.generate([_ids(generator, PREFIX_TOKEN_COUNT + TAIL_TOKEN_COUNT)], 1)
    return [
        Figure(
            "1,040 tokens, first token, ours", statistics.median(first), "s", beside=spread(first)
        ),
        Figure(
            "the same, transformers",
            theirs.first_token_seconds,
            "s",
            beside="once; has no such cache",
        ),
        Figure(
            "same prefix of 1,024, other tail of 16, ours",
            statistics.median(second),
            "s",
            beside=spread(second),
        ),
        Figure("second over first", median_ratio(second, first), "x", at_most=0.1),
    ]


def _ids(generator: random.Random, count: int) -> list[int]:
    return [generator.randrange(49000) for _ in range(count)]
