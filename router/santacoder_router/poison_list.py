"""Prompts that have killed the shard group: refused for a while, since they are sent again.

Holds digests, not prompts. Knows no requests.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b

KEPT_SECONDS = 600.0
MOST_PROMPTS = 1024


class PoisonList:
    """The last 1,024 of them, each for ten minutes. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Oldest first.
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def add(self, prompt_ids: Sequence[int]) -> None:
        """Refuse this prompt from now on."""
        digest = _digest(prompt_ids)
        self._until.pop(digest, None)
        self._until[digest] = self._clock() + KEPT_SECONDS
        while len(self._until) > MOST_PROMPTS:
            self._until.popitem(last=False)

    def __contains__(self, prompt_ids: Sequence[int]) -> bool:
        # Nearly always, and then it costs nothing.
        if not self._until:
            return False
        digest = _digest(prompt_ids)
        until = self._until.get(digest)
        if until is not None and until <= self._clock():
            del self._until[digest]
            return False
        return until is not None


def _digest(prompt_ids: Sequence[int]) -> bytes:
    return blake2b(array("q", prompt_ids).tobytes(), digest_size=16).digest()
