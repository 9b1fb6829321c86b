"""The identity of the first n blocks of a sequence: a hash chain that can be compared id by id.

Knows nothing of KV blocks, requests or plans.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple


class Prefix(NamedTuple):
    """All ids up to a block's end. `content` is the block's ids; at the root, the cache key.

    Ids are packed, in a sixth of the memory a tuple takes: every cached block has one of these.
    """

    digest: bytes
    parent: Prefix | None
    content: bytes


def root_prefix(cache_seed: bytes, cache_key: bytes) -> Prefix:
    """The empty prefix of one cache key. The seed keeps others from guessing what is cached."""
    seed_key = blake2b(cache_seed).digest()
    return Prefix(blake2b(cache_key, digest_size=32, key=seed_key).digest(), None, cache_key)


def extend_prefix(parent: Prefix, token_ids: tuple[int, ...]) -> Prefix:
    """The prefix that is one block of `token_ids` longer than `parent`."""
    packed = struct.pack(f"<{len(token_ids)}I", *token_ids)
    return Prefix(blake2b(parent.digest + packed, digest_size=32).digest(), parent, packed)


def is_same_prefix(left: Prefix | None, right: Prefix | None) -> bool:
    """Whether both stand for the same ids under the same cache key, whatever their digests say.

    Prefixes share their parents wherever the cache has been hit, so the walk is mostly short.
    """
    while left is not right:
        if left is None or right is None or left.content != right.content:
            return False
        left, right = left.parent, right.parent
    return True
