"""Every tensor of a step on the GPU, made once: graphs remember where they lie. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from santacoder_shard.geometry import Geometry
from santacoder_shard.kernels.sampling.launch import SlotOptions

CHOICE_BLOCK = 2048
# Every id that can end a sequence: end of text, sentinels, and as many stop ids as are allowed.
END_ID_COUNT = 128


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of a step as the host names them: int32 [count] each, and tiles [2, count]."""

    slots: Tensor
    tokens: Tensor
    positions: Tensor
    limits: Tensor
    tiles: Tensor

    @property
    def count(self) -> int:
        return len(self.slots)

    FIELD_COUNT = 6

    @classmethod
    def view(cls, words: Tensor, count: int) -> StepRows:
        """Views of the first 6 * count int32 of `words`, for a step of `count` rows."""
        fields = words[: cls.FIELD_COUNT * count].view(cls.FIELD_COUNT, count)
        return cls(fields[0], fields[1], fields[2], fields[3], fields[4:])


@dataclass(frozen=True, slots=True)
class SlotState:
    """What the device alone knows of each slot while plans are in flight, int32 [slots] each."""

    words: Tensor
    """All of the following, one after the other, so that one copy can set any of them."""
    tokens: Tensor
    positions: Tensor
    ended: Tensor
    remaining: Tensor
    end_ids: Tensor
    """[slots, END_ID_COUNT], -1 where fewer."""
    tables: Tensor
    """[slots, blocks_per_sequence]."""

    @classmethod
    def empty(cls, slot_count: int, blocks_per_sequence: int, device: torch.device) -> SlotState:
        """All slots ended, no blocks."""
        widths = (1, 1, 1, 1, END_ID_COUNT, blocks_per_sequence)
        sizes = [slot_count * width for width in widths]
        words = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        tokens, positions, ended, remaining, end_ids, tables = torch.split_with_sizes(words, sizes)
        ended.fill_(1)
        end_ids.fill_(-1)
        return cls(
            words,
            tokens,
            positions,
            ended,
            remaining,
            end_ids.view(slot_count, END_ID_COUNT),
            tables.view(slot_count, blocks_per_sequence),
        )


class StepBuffers:
    """Between the kernels of a step. Sizes: R rows of a step, Q of them sampled, S splits."""

    def __init__(
        self,
        geometry: Geometry,
        slots: SlotState,
        row_limit: int,
        spread_row_limit: int,
        token_count: int,
        dtype: torch.dtype,
        device: torch.device,
        parallel_size: int = 1,
    ) -> None:
        def empty(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        slot_count = len(slots.tokens)
        head_count = geometry.local_head_count(parallel_size)
        query_size = head_count * geometry.head_size
        split_count = -(-geometry.context_token_count // 64)
        single = torch.float32
        self.slots, self.token_count = slots, token_count
        self.choice_block = min(CHOICE_BLOCK, triton.next_power_of_2(token_count))
        self.words = empty(StepRows.FIELD_COUNT * row_limit, dtype=torch.int32)
        # At any count of rows the slots come first.
        self.row_slots = self.words[:row_limit]
        self.sample_rows = empty(slot_count, dtype=torch.int32)
        self.forced_ids = empty(slot_count, dtype=torch.int32)
        self.no_ids = empty(slot_count, dtype=torch.int32).fill_(-1)
        self.positions = empty(row_limit, dtype=torch.int32)
        self.places = empty(row_limit, dtype=torch.int64)
        self.hidden = empty(row_limit, geometry.embedding_size, dtype=single)
        self.normal = empty(max(row_limit, slot_count), geometry.embedding_size)
        self.query = empty(row_limit, query_size)
        self.context = empty(row_limit, query_size)
        self.inner = empty(row_limit, geometry.inner_size // parallel_size)
        heads = (spread_row_limit, split_count, head_count)
        self.split_contexts = empty(*heads, geometry.head_size, dtype=single)
        self.split_moments = empty(*heads, 2, dtype=single)
        self.logits = empty(slot_count, geometry.vocabulary_size, dtype=single)
        # Between ranks: this one's part of a sum, all parts, and so of the logits.
        is_group = parallel_size > 1
        self.part = empty(row_limit if is_group else 0, geometry.embedding_size, dtype=single)
        self.parts = empty(parallel_size * self.part.numel(), dtype=single)
        local_count = geometry.vocabulary_size // parallel_size
        self.local_logits = (
            empty(slot_count, local_count, dtype=single) if is_group else self.logits
        )
        self.gathered_logits = empty(self.logits.numel() if is_group else 0, dtype=single)
        parts = -(-token_count // self.choice_block)
        self.options = SlotOptions.empty(slot_count, parts * self.choice_block, device)
        self.best_values = empty(slot_count, parts, dtype=single)
        self.best_ids = empty(slot_count, parts, dtype=torch.int32)
        self.out_ids = empty(slot_count, dtype=torch.int32)
