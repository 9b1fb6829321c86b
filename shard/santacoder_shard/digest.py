"""Running digests by which the router sees two ranks part ways before a collective hangs. Pure.

Both are 16-byte blake2b. The first covers the plan frames received. The second covers, in the
order in which plans run, the first digest at that plan and then what was sampled: frames may arrive
before or after an earlier plan's result, so only that order is the same on every rank.
"""

from __future__ import annotations

import hashlib

from santacoder_shard.codec import pack_ids
from santacoder_shard.step import StepOutcome

DIGEST_BYTES = 16


class CommandDigest:
    """Fed every plan frame and every outcome of one stream."""

    def __init__(self) -> None:
        self._frames = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._outcomes = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._accepted: dict[int, bytes] = {}

    def accept(self, plan_number: int, frame: bytes) -> bytes:
        """Digest of all plan frames so far, this one included."""
        self._frames.update(frame)
        digest = self._frames.digest()
        self._accepted[plan_number] = digest
        return digest

    def report(self, outcome: StepOutcome) -> bytes:
        """Digest of all plans run and ids sampled so far, this outcome included."""
        accepted = self._accepted
        frames = accepted.pop if outcome.final else accepted.__getitem__
        self._outcomes.update(frames(outcome.plan_number))
        words = [outcome.first_step, outcome.steps_run]
        for row in outcome.rows:
            words += (row.state, len(row.token_ids), *row.token_ids)
        self._outcomes.update(pack_ids(words))
        return self._outcomes.digest()
