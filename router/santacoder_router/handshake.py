"""What ranks say about themselves, and whether they make one group. Pure: no wire, no retries.

A group that disagrees in anything but capacity is refused; of capacities the smallest counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

PROTOCOL_VERSION = 1


class GroupRefused(Exception):
    """These ranks can never make a group for this router; waiting will not help."""


class GroupMixed(Exception):
    """These ranks make no group now; some may be about to be replaced."""


@dataclass(frozen=True, slots=True)
class Description:
    """A rank, or a whole group, as described; fields as in DescribeResponse of shard.proto."""

    protocol_version: int
    epoch: int
    rank: int
    tensor_parallel_size: int
    model_name: str
    model_revision: str
    checkpoint_fingerprint: str
    numerics_id: str
    dtype: str
    layer_count: int
    head_count: int
    kv_head_count: int
    embedding_size: int
    context_token_count: int
    vocabulary_size: int
    token_count: int
    end_of_text_id: int
    sentinel_ids: tuple[int, ...]
    block_size: int
    block_count: int
    slot_count: int
    blocks_per_sequence: int
    tokens_per_step: int
    steps_per_lease: int
    plans_in_flight: int
    max_logprobs: int
    max_stop_ids: int
    max_logit_biases: int
    tokenizer_hash: str
    tokenizer_json: bytes
    fim_enabled: bool
    version: str


CAPACITIES = (
    "block_count",
    "slot_count",
    "blocks_per_sequence",
    "tokens_per_step",
    "steps_per_lease",
    "plans_in_flight",
    "max_logprobs",
    "max_stop_ids",
    "max_logit_biases",
)
# Where ranks, or two lives of a group, may differ although they serve the same model.
OWN_TO_A_RANK = ("rank", "tokenizer_json")
OWN_TO_A_LIFE = ("epoch", "tokenizer_json")


def agree(ranks: Sequence[Description]) -> Description:
    """The group that `ranks`, in order, make: rank 0's words with the smallest capacities.

    Raises GroupRefused for another protocol version or group size, GroupMixed for any other
    disagreement.
    """
    for place, rank in enumerate(ranks):
        if rank.protocol_version != PROTOCOL_VERSION:
            raise GroupRefused(
                f"rank {place}: protocol version {rank.protocol_version};"
                f" this router speaks {PROTOCOL_VERSION}"
            )
        if rank.tensor_parallel_size != len(ranks):
            raise GroupRefused(
                f"rank {place}: belongs to a group of {rank.tensor_parallel_size};"
                f" {len(ranks)} addresses were given"
            )
        if rank.rank != place:
            raise GroupRefused(f"address {place}: answers as rank {rank.rank}; give them in order")
        if difference := _difference(ranks[0], rank, OWN_TO_A_RANK):
            raise GroupMixed(f"rank {place} and rank 0 differ: {difference}")
    smallest = {name: min(getattr(rank, name) for rank in ranks) for name in CAPACITIES}
    if empty := [name for name, value in smallest.items() if not value and "max_" not in name]:
        raise GroupRefused(f"{empty[0]}: must be at least 1; got 0")
    return dataclasses.replace(ranks[0], **smallest)


def check_successor(before: Description, after: Description) -> None:
    """Raises GroupMixed unless `after` can take over what ran on `before`.

    It needs a greater epoch, the same model bit for bit, and no less room than was promised.
    """
    if after.epoch <= before.epoch:
        raise GroupMixed(f"epoch {after.epoch} is not above {before.epoch}, the one that ended")
    if difference := _difference(before, after, OWN_TO_A_LIFE):
        raise GroupMixed(f"the group that came back is another one: {difference}")
    for name in CAPACITIES:
        if getattr(after, name) < getattr(before, name):
            raise GroupMixed(
                f"the group that came back has less room:"
                f" {name} {getattr(after, name)}, before {getattr(before, name)}"
            )


def _difference(one: Description, other: Description, ignored: Sequence[str]) -> str:
    for field in dataclasses.fields(Description):
        name = field.name
        if name in ignored or name in CAPACITIES:
            continue
        if getattr(one, name) != getattr(other, name):
            return f"{name} {getattr(one, name)!r} and {getattr(other, name)!r}"
    return ""
