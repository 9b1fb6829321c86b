"""What the scheduler keeps of a request, and of each of its stays in a slot.

Mutable state with its own arithmetic. Knows no pool, no queue and no other sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from santacoder_router.core.plan import Request, Row
from santacoder_router.core.prefix import Prefix, extend_prefix


@dataclass(slots=True, eq=False)
class Sequence:
    """A request from `add` to its last event; accepted output outlives slots and shards."""

    request: Request
    # (rank, arrival number): the smallest goes first.
    order: tuple[float, int]
    # prefixes[n] stands for the first n blocks; grown as far as needed.
    prefixes: list[Prefix]
    output_ids: list[int] = field(default_factory=list)
    # How often the sequence was admitted.
    generation: int = 0
    # Ran when its shard group died: goes before those that did not.
    is_restored: bool = False
    # Has neither a slot nor a place in the queue: nobody takes its tokens.
    is_held: bool = False
    # One of those that may have killed the group, and that run now to find out.
    is_tried: bool = False
    is_ended: bool = False
    residency: Residency | None = None

    @property
    def token_count(self) -> int:
        """Prompt and accepted output."""
        return len(self.request.prompt_ids) + len(self.output_ids)

    @property
    def work(self) -> int:
        """Tokens that the whole request may take: what its caller's share is charged."""
        return len(self.request.prompt_ids) + self.request.max_new_tokens

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and accepted output."""
        return self.request.prompt_ids + tuple(self.output_ids)

    def prefix(self, block_count: int, block_size: int) -> Prefix:
        """The identity of the first `block_count` blocks; their ids must be known."""
        while len(self.prefixes) <= block_count:
            start = (len(self.prefixes) - 1) * block_size
            ids = self._ids_between(start, start + block_size)
            self.prefixes.append(extend_prefix(self.prefixes[-1], ids))
        return self.prefixes[block_count]

    def _ids_between(self, start: int, end: int) -> tuple[int, ...]:
        prompt_length = len(self.request.prompt_ids)
        if end <= prompt_length:
            return self.request.prompt_ids[start:end]
        output = tuple(self.output_ids[max(0, start - prompt_length) : end - prompt_length])
        return self.request.prompt_ids[start:] + output


@dataclass(slots=True, eq=False)
class Residency:
    """One stay of a sequence in a slot: a (sequence, generation) pair.

    `planned_computed` is where the device will be when every plan in flight has run as planned;
    `pending_samples` is how many ids those plans may still bring.
    """

    sequence: Sequence
    generation: int
    slot: int
    # Tokens known at admission: up to here rows are prefill.
    admitted_length: int
    blocks: list[int]
    planned_computed: int
    pending_samples: int = 0
    # How many of `blocks` the shards have been told of.
    granted_count: int = 0
    # How many leading blocks have been offered to the prefix cache.
    registered_count: int = 0
    # False from the moment the sequence ends or is preempted: what is in flight counts no more.
    is_live: bool = True
    # The last row sent: a decode row is the same plan after plan, so it is made once.
    row: Row | None = None

    @property
    def prefill_left(self) -> int:
        """Known tokens that no plan runs yet; 0 or less once the sequence decodes."""
        return self.admitted_length - self.planned_computed

    @property
    def samples_left(self) -> int:
        """Ids that may still be planned."""
        sequence = self.sequence
        accepted = len(sequence.output_ids) + self.pending_samples
        return sequence.request.max_new_tokens - accepted
