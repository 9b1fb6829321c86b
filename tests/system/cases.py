"""The requests whose answers are compared, and how: each kind of sampling, over any prompt ids.

Knows the SDK and refuses to know processes.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator, Sequence

from santacoder_client import Client, Completion, CompletionOptions, CompletionStream

TOKEN_COUNT = 384
CROWD_SIZE = 32
NEIGHBOUR_TOKEN_COUNT = 1500

OPTIONS = {
    "greedy": CompletionOptions(),
    "sampled": CompletionOptions(temperature=0.9, top_p=0.95, seed=7),
    "hot": CompletionOptions(temperature=2.0, top_k=50, min_p=0.01, seed=2**63 - 1),
    "penalised": CompletionOptions(
        temperature=1.0,
        seed=0,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={5: 3.0, 6: -100.0},
    ),
}


# As slow an answer as there is: whatever is done in the middle of one has seconds for it.
SLOW_TOKEN_COUNT = 1900
SLOW = CompletionOptions(
    max_new_tokens=SLOW_TOKEN_COUNT, ignore_eos=True, completion_count=8, logprobs=20
)


def prompt_ids(seed: int, count: int) -> list[int]:
    """Random ids; equal arguments give equal ids, and a longer prompt begins as a shorter one."""
    return random.Random(seed).choices(range(TOKEN_COUNT), k=count)


def complete(
    client: Client, prompt: Sequence[int], options: CompletionOptions, max_new_tokens: int = 40
) -> Completion:
    """An answer of exactly `max_new_tokens` ids, with log probabilities."""
    asked = CompletionOptions(max_new_tokens=max_new_tokens, ignore_eos=True, logprobs=3)
    return client.complete(prompt, **(options | asked))


def said(done: Completion) -> tuple[object, ...]:
    """All that a model said; equal only if every bit of every log probability is."""
    return done.token_ids, done.text, done.logprobs, done.finish_reason


@contextlib.contextmanager
def a_crowd(client: Client) -> Iterator[list[CompletionStream]]:
    """31 long requests of mixed lengths, greedy and sampled, all of them running."""
    kinds = itertools.cycle(OPTIONS.values())
    asked = CompletionOptions(max_new_tokens=NEIGHBOUR_TOKEN_COUNT, ignore_eos=True)
    streams = [
        client.stream(prompt_ids(100 + number, 1 + 13 * number), **(next(kinds) | asked))
        for number in range(CROWD_SIZE - 1)
    ]
    try:
        for stream in streams:
            next(stream)
        yield streams
    finally:
        for stream in streams:
            stream.cancel()
