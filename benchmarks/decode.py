"""Tokens a second of one stream and of eight, through the whole service, beside transformers.

Rounds are interleaved, so that what slows the machine for a while slows both sides.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from figures import Figure, median_ratio, spread
from peer import Peer, PeerAnswer
from service import Answer, Service

STREAM_COUNT = 8
PROMPT_TOKEN_COUNT = 64
WARM_UP_TOKEN_COUNT = 8


@dataclass(frozen=True, slots=True)
class Round:
    """The same prompt on both sides, then eight others at once on ours."""

    ours: Answer
    peer: PeerAnswer
    eight_tokens_per_second: float
    """All tokens over all seconds, prompts included."""

    @property
    def peer_tokens_per_second(self) -> float:
        """The same of one request on the other side."""
        return self.peer.token_count / self.peer.total_seconds

    @property
    def equal_id_count(self) -> int:
        """Ids before the two sides part."""
        pairs = list(zip(self.ours.token_ids, self.peer.token_ids[0], strict=True))
        return next((place for place, (our, its) in enumerate(pairs) if our != its), len(pairs))


def measure(service: Service, peer: Peer, round_count: int, new_token_count: int) -> list[Figure]:
    """Both ratios, and what they are made of."""
    generator = random.Random(0)
    service.complete(_prompt(generator), WARM_UP_TOKEN_COUNT)
    peer.generate([_prompt(generator)], WARM_UP_TOKEN_COUNT)
    rounds = [
        _run_round(service, peer, generator, new_token_count, peer_first=number % 2 == 1)
        for number in range(round_count)
    ]
    batch = peer.generate([_prompt(generator) for _ in range(STREAM_COUNT)], new_token_count)
    return _figures(rounds, peer.version, batch.token_count / batch.total_seconds)


def _run_round(
    service: Service,
    peer: Peer,
    generator: random.Random,
    new_token_count: int,
    peer_first: bool,
) -> Round:
    prompt = _prompt(generator)
    if peer_first:
        theirs = peer.generate([prompt], new_token_count)
    ours = service.complete(prompt, new_token_count)
    if not peer_first:
        theirs = peer.generate([prompt], new_token_count)
    prompts = [_prompt(generator) for _ in range(STREAM_COUNT)]
    begin = time.perf_counter()
    answers = service.complete_all(prompts, new_token_count)
    seconds = time.perf_counter() - begin
    token_count = sum(len(answer.token_ids) for answer in answers)
    return Round(ours, theirs, token_count / seconds)


def _prompt(generator: random.Random) -> list[int]:
    # Never the same twice: the prefix cache is measured elsewhere.
    return [generator.randrange(49000) for _ in range(PROMPT_TOKEN_COUNT)]


def _figures(rounds: Sequence[Round], version: str, batch_rate: float) -> list[Figure]:
    ours = [round_.ours.decode_tokens_per_second for round_ in rounds]
    theirs = [round_.peer.decode_tokens_per_second for round_ in rounds]
    eight = [round_.eight_tokens_per_second for round_ in rounds]
    alone = [round_.peer_tokens_per_second for round_ in rounds]
    equal = sum(round_.equal_id_count for round_ in rounds)
    asked = sum(len(round_.ours.token_ids) for round_ in rounds)
    rate = "tokens/s"
    return [
        Figure("one stream, decode, ours", statistics.median(ours), rate, beside=spread(ours)),
        Figure(
            f"one stream, decode, transformers {version}",
            statistics.median(theirs),
            rate,
            beside=spread(theirs),
        ),
        Figure(
            "one stream, decode, ours over transformers",
            median_ratio(ours, theirs),
            "x",
            at_least=0.95,
            beside="CTranslate2 fp32 1.45",
        ),
        Figure("eight streams, all, ours", statistics.median(eight), rate, beside=spread(eight)),
        Figure("one request, all, transformers", statistics.median(alone), rate),
        Figure("batch of eight, all, transformers", batch_rate, rate, beside="once"),
        Figure(
            "eight streams over transformers one at a time",
            median_ratio(eight, alone),
            "x",
            at_least=4.0,
            beside="transformers batched 2.5, CTranslate2 fp32 4.4",
        ),
        Figure("greedy ids equal to transformers'", equal / asked, "", beside=f"of {asked}"),
    ]
