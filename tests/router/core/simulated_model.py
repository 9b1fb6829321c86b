"""A model without weights: the next id is a keyed hash of earlier ids, position and options.

Whoever loses, repeats, reorders or mixes up ids or options gets other ids from there on. Knows no
blocks and no batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from santacoder_router.core.plan import Admit, Request, RowState

END_OF_TEXT_ID = 0


class Violation(Exception):
    """An invariant does not hold; the text says which and where."""


def require(holds: bool, invariant: str, *facts: object) -> None:
    """Raises Violation unless the invariant holds."""
    if not holds:
        raise Violation(f"{invariant}: {' '.join(map(str, facts))}")


def chain_root(cache_key: bytes) -> bytes:
    """Stands for no ids at all, under one cache key."""
    return blake2b(cache_key, digest_size=8, person=b"root").digest()


def extend_chain(digest: bytes, token_id: int) -> bytes:
    """Stands for the ids of `digest` and one more."""
    return blake2b(digest + token_id.to_bytes(4, "little"), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Options:
    """What of a request decides its ids, besides the ids themselves."""

    key: bytes
    ending_ids: frozenset[int]
    min_tokens: int
    max_tokens: int
    ignore_eos: bool
    logprob_count: int | None


def request_options(request: Request) -> Options:
    """The options as the client gave them."""
    return _options(request, request.min_new_tokens, request.max_new_tokens)


def admit_options(admit: Admit) -> Options:
    """The options as they reached the shard, with what was generated earlier added back."""
    done = len(admit.token_ids) - admit.prompt_length
    # A minimum that has been reached cannot be told from none: neither bans an id any more.
    min_tokens = done + admit.remaining_min_tokens
    return _options(admit, min_tokens, done + admit.remaining_max_tokens)


def _options(source: Request | Admit, min_tokens: int, max_tokens: int) -> Options:
    fields = (source.sampling, source.logit_bias, source.logprob_count)
    key = blake2b(repr(fields).encode(), digest_size=16).digest()
    endings = set(source.stop_ids) | (set() if source.ignore_eos else {END_OF_TEXT_ID})
    return Options(
        key, frozenset(endings), min_tokens, max_tokens, source.ignore_eos, source.logprob_count
    )


def sample(
    digest: bytes, output_index: int, options: Options, vocabulary_size: int
) -> tuple[int, RowState]:
    """The id that follows `digest` as output `output_index`, and the row's state after it."""
    attempt = 0
    while True:
        text = digest + b"%d %d" % (output_index, attempt)
        drawn = blake2b(text, digest_size=8, key=options.key).digest()
        token_id = int.from_bytes(drawn, "little") % vocabulary_size
        if token_id not in options.ending_ids:
            is_last = output_index + 1 == options.max_tokens
            return token_id, RowState.LENGTH if is_last else RowState.RUNNING
        if output_index >= options.min_tokens:
            is_eos = token_id == END_OF_TEXT_ID and not options.ignore_eos
            return token_id, RowState.END_OF_TEXT if is_eos else RowState.STOP_ID
        attempt += 1
