"""The sequences in their slots: what is known of each, and which blocks it has. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch

from santacoder_shard.inputs import BLOCKS_PER_SPLIT
from santacoder_shard.kv_cache import BLOCK_SIZE
from santacoder_shard.sampler import SamplingRow
from santacoder_shard.step import Admit, BlockGrant, Retire, RowState


class PlanError(Exception):
    """The plan cannot be carried out: router and rank disagree. One line naming the field."""


@dataclass(slots=True)
class Slot:
    """A sequence. K and V of the first `computed_length` of `token_ids`, all it has, are cached."""

    admit: Admit
    end_ids: frozenset[int]
    token_ids: list[int]
    computed_length: int
    remaining_min_tokens: int
    remaining_max_tokens: int
    granted_token_count: int = 0
    ended: bool = False
    launched_length: int = 0
    """As `computed_length`, with what is still being computed; only where steps run ahead."""

    def sampling_row(self) -> SamplingRow:
        """What the sampler has to know to choose the next id."""
        banned: tuple[int, ...] = ()
        if self.remaining_min_tokens > 0:
            banned = tuple(sorted(self.end_ids.union(self.admit.stop_ids)))
        return SamplingRow(
            parameters=self.admit.sampling,
            token_ids=self.token_ids,
            prompt_length=self.admit.prompt_length,
            banned_ids=banned,
            logit_bias=self.admit.logit_bias,
            logprob_count=self.admit.logprob_count,
        )

    def accept(self, token_id: int) -> RowState:
        """Append a sampled id; the state that it leaves the sequence in."""
        self.token_ids.append(token_id)
        if self.remaining_min_tokens > 0:
            self.remaining_min_tokens -= 1
        self.remaining_max_tokens -= 1
        state = RowState.RUNNING
        if token_id in self.end_ids:
            state = RowState.END_OF_TEXT
        elif token_id in self.admit.stop_ids:
            state = RowState.STOP_ID
        elif self.remaining_max_tokens <= 0:
            state = RowState.LENGTH
        self.ended = state is not RowState.RUNNING
        return state


class SlotTable:
    """Slots 0 to slot_count - 1 and their block tables, int64 [slots, width].

    The width is blocks_per_sequence rounded up to whole attention splits; a place that is not
    granted holds `scratch_block`, whose id is also the number of blocks that can be granted.
    Without `keeps_tables` grants are checked here and kept elsewhere.
    """

    def __init__(
        self,
        slot_count: int,
        blocks_per_sequence: int,
        scratch_block: int,
        token_count: int,
        end_ids: frozenset[int],
        keeps_tables: bool = True,
    ) -> None:
        self._keeps_tables = keeps_tables
        width = blocks_per_sequence + -blocks_per_sequence % BLOCKS_PER_SPLIT
        self.block_tables = torch.full((slot_count, width), scratch_block)
        self._slots: list[Slot | None] = [None] * slot_count
        self._blocks_per_sequence = blocks_per_sequence
        self._scratch_block = scratch_block
        self._token_count = token_count
        self._end_ids = end_ids

    def get(self, index: int) -> Slot | None:
        """The sequence in a slot, None if the slot is free; PlanError if there is no such slot."""
        if not 0 <= index < len(self._slots):
            raise PlanError(
                f"plan.slot: no such slot; got {index}; allowed 0 to {len(self._slots) - 1}"
            )
        return self._slots[index]

    def retire(self, retires: Sequence[Retire]) -> None:
        """Free the slots of these sequences; a pair that holds none is no error."""
        if not retires:
            return
        leaving = {(retire.sequence, retire.generation) for retire in retires}
        for index, slot in enumerate(self._slots):
            if slot and (slot.admit.sequence, slot.admit.generation) in leaving:
                self._slots[index] = None
                if self._keeps_tables:
                    self.block_tables[index].fill_(self._scratch_block)

    def admit(self, admit: Admit) -> None:
        """Put a sequence into its slot, which must be free."""
        if self.get(admit.slot) is not None:
            raise PlanError(f"plan.admits.slot: the slot is taken; got {admit.slot}; allowed free")
        ids = numpy.asarray(admit.token_ids, dtype=numpy.int64)
        least, most = int(ids.min(initial=0)), int(ids.max(initial=0))
        if not 0 <= least <= most < self._token_count:
            raise PlanError(
                f"plan.admits.token_ids: unknown id in sequence {admit.sequence}; "
                f"got {least if least < 0 else most}; allowed 0 to {self._token_count - 1}"
            )
        self._slots[admit.slot] = Slot(
            admit=admit,
            end_ids=frozenset() if admit.ignore_eos else self._end_ids,
            token_ids=list(admit.token_ids),
            computed_length=admit.computed_length,
            remaining_min_tokens=admit.remaining_min_tokens,
            remaining_max_tokens=admit.remaining_max_tokens,
            launched_length=admit.computed_length,
        )

    def grant(self, grant: BlockGrant) -> list[int]:
        """Append blocks to a slot's table; those that hold none of the sequence's tokens yet."""
        slot = self.get(grant.slot)
        if slot is None:
            return []
        granted_block_count = slot.granted_token_count // BLOCK_SIZE
        stop = grant.first_index + len(grant.block_ids)
        if grant.first_index != granted_block_count or stop > self._blocks_per_sequence:
            raise PlanError(
                f"plan.block_grants.first_index: does not append; got {grant.first_index} to "
                f"{stop}; allowed {granted_block_count} to {self._blocks_per_sequence}"
            )
        if not all(0 <= block_id < self._scratch_block for block_id in grant.block_ids):
            raise PlanError(
                f"plan.block_grants.block_ids: no such block; got {max(grant.block_ids)}; "
                f"allowed 0 to {self._scratch_block - 1}"
            )
        if self._keeps_tables:
            self.block_tables[grant.slot, grant.first_index : stop] = torch.tensor(grant.block_ids)
        slot.granted_token_count = stop * BLOCK_SIZE
        filled_block_count = -(-slot.computed_length // BLOCK_SIZE)
        return list(grant.block_ids[max(0, filled_block_count - grant.first_index) :])
