"""Gets a waiting sequence its blocks, as many as possible from the prefix cache, and its slot.

Knows one sequence at a time; which one, and whether it is time, is decided elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

from santacoder_router.core.blocks import BlockPool
from santacoder_router.core.draft import Draft
from santacoder_router.core.group import GroupState
from santacoder_router.core.plan import Admit, BlockCopy
from santacoder_router.core.sequence import Residency, Sequence


class _Reservation(NamedTuple):
    blocks: list[int]
    computed_length: int
    # At most one; its source is held until the plan is complete.
    copies: list[BlockCopy]


def admit(sequence: Sequence, draft: Draft, group: GroupState) -> Residency | None:
    """Admits a sequence into the plan under construction, or changes nothing if blocks are short.

    An admission leaves a block for each running sequence: otherwise their next tokens would preempt
    the newcomer before it has gained anything.
    """
    headroom = len(group.running)
    if group.pool.available_count <= headroom:
        return None
    reservation = _reserve(sequence, group.pool, group.block_size, headroom, draft.filled_blocks)
    if reservation is None:
        return None
    residency = group.enter(sequence, reservation.blocks, reservation.computed_length)
    residency.registered_count = reservation.computed_length // group.block_size
    draft.copies += reservation.copies
    if residency.generation == 1:
        # Output of an earlier router may be cached too, and is no prompt.
        prompt_length = len(sequence.request.prompt_ids)
        draft.started.append((sequence, min(reservation.computed_length, prompt_length)))
    draft.admits.append(_admit_message(residency))
    return residency


def _reserve(
    sequence: Sequence,
    pool: BlockPool,
    block_size: int,
    headroom: int,
    filled_blocks: set[int],
) -> _Reservation | None:
    token_count = sequence.token_count
    hits = _cached_blocks(sequence, pool, block_size)
    computed_length = len(hits) * block_size
    sources: list[int] = []
    if computed_length == token_count:
        # The last token has to run again for its logits, and would write into a shared block.
        source = hits.pop()
        if source in filled_blocks:
            computed_length -= block_size
        else:
            computed_length -= 1
            sources.append(source)
    # A source is held too: it must not be taken for something else before it is copied.
    pool.share(hits + sources)
    new_count = -(-token_count // block_size) - len(hits)
    if new_count + headroom > pool.available_count:
        pool.release(hits + sources)
        return None
    blocks = hits + pool.take(new_count)
    copies = [BlockCopy(source, blocks[-1]) for source in sources]
    return _Reservation(blocks, computed_length, copies)


def _cached_blocks(sequence: Sequence, pool: BlockPool, block_size: int) -> list[int]:
    blocks: list[int] = []
    for count in range(1, sequence.token_count // block_size + 1):
        found = pool.find(sequence.prefix(count, block_size))
        if found is None:
            break
        # The cache's own object from here on: it makes the next comparison a short one.
        block, sequence.prefixes[count] = found
        blocks.append(block)
    return blocks


def _admit_message(residency: Residency) -> Admit:
    request = residency.sequence.request
    output_count = len(residency.sequence.output_ids)
    return Admit(
        sequence=request.request_id,
        generation=residency.generation,
        slot=residency.slot,
        token_ids=residency.sequence.token_ids,
        prompt_length=len(request.prompt_ids),
        computed_length=residency.planned_computed,
        sampling=request.sampling,
        remaining_min_tokens=max(0, request.min_new_tokens - output_count),
        remaining_max_tokens=request.max_new_tokens - output_count,
        ignore_eos=request.ignore_eos,
        stop_ids=request.stop_ids,
        logit_bias=request.logit_bias,
        logprob_count=request.logprob_count,
    )
