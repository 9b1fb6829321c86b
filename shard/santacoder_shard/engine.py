"""Carries out plans on one rank: slots, blocks, steps, sampled ids. Knows no wire and no threads.

Every rank runs the same plans in the same order. Rank 0 samples and says what came; it also decides
what depends on the clock, the end of a lease, so that all ranks leave a plan after the same step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from santacoder_shard.inputs import Chunk, build_inputs
from santacoder_shard.kv_cache import BLOCK_SIZE, KVCache
from santacoder_shard.model import SantaCoder
from santacoder_shard.parallel import Parallel
from santacoder_shard.sampler import SamplingBatch, sample
from santacoder_shard.slots import PlanError, Slot, SlotTable
from santacoder_shard.step import Plan, Row, RowOutcome, RowState, StepOutcome, TokenLogprobs

_NON_FINITE_ID = -1
_FAILED_ID = -2


def _nobody(_sequence: int, _failure: Exception) -> None:
    """Nobody wants to know of rows that failed."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Capacities, and the ids that exist: 0 to token_count - 1, of which some end a text."""

    slot_count: int
    block_count: int
    blocks_per_sequence: int
    tokens_per_step: int
    """Most tokens of a plan's rows."""
    token_count: int
    end_of_text_id: int
    sentinel_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Sampled:
    """One step's ids, one a sampling row; whether rank 0 ends the lease; logprobs on rank 0."""

    token_ids: list[int]
    lease_ends: bool
    logprobs: list[TokenLogprobs | None]


class Engine:
    """One rank's state and the model; used by one thread. Packs the weights and warms up."""

    def __init__(
        self,
        model: SantaCoder,
        parallel: Parallel,
        config: EngineConfig,
        on_row_failure: Callable[[int, Exception], None] = _nobody,
    ) -> None:
        """`on_row_failure` is told, on rank 0, the sequence whose row could not be sampled."""
        model.pack()
        self._on_row_failure = on_row_failure
        self._model = model
        self._parallel = parallel
        self._config = config
        self._cache = KVCache(
            model.geometry,
            parallel.size,
            config.block_count,
            model.dtype,
            model.token_embedding.device,
        )
        self._slots = SlotTable(
            config.slot_count,
            config.blocks_per_sequence,
            self._cache.scratch_block,
            config.token_count,
            frozenset((config.end_of_text_id, *config.sentinel_ids)),
        )
        self._warm_up()

    @torch.inference_mode()
    def run(
        self,
        plan: Plan,
        emit: Callable[[StepOutcome], None],
        interrupted: Callable[[], bool],
    ) -> None:
        """Carry `plan` out in the order of its fields; `emit` once a step, the last time final.

        A lease also ends at its time cap, when `interrupted` says so, and when nothing can run.
        Raises PlanError if the plan contradicts this rank's state, which is then undefined.
        """
        started = time.monotonic()

        def lease_ends() -> bool:
            cap = plan.time_cap_seconds
            return (0 < cap <= time.monotonic() - started) or (plan.interruptible and interrupted())

        self._prepare(plan)
        if not plan.rows:
            emit(StepOutcome(plan.number, 0, 0, True, (), 0.0))
            return
        step, final, rows = 0, False, plan.rows
        while not final:
            step_started = time.perf_counter()
            outcomes, ends = self._step(rows, lease_ends)
            final = ends or step + 1 >= plan.num_steps
            seconds = time.perf_counter() - step_started
            emit(StepOutcome(plan.number, step, 1, final, tuple(outcomes), seconds))
            step += 1
            if step == 1 and not final:
                # Prompts are run in the first step; what follows is the id sampled last.
                rows = tuple(row._replace(token_count=1) for row in rows)

    def drain(self, plan_waits: Callable[[], bool]) -> None:
        """Nothing: `run` leaves nothing running."""

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """Run a token and a chunk on the scratch block, so that no plan waits for kernels made."""
        for token_count in (1, min(BLOCK_SIZE, self._model.geometry.context_token_count)):
            chunk = Chunk(0, [0] * token_count, 0, sample=True)
            self._model(
                build_inputs([chunk], self._slots.block_tables), self._cache, self._parallel
            )
        self._cache.clear_blocks([self._cache.scratch_block])

    def _prepare(self, plan: Plan) -> None:
        if plan.num_steps > 1 and not all(row.sample for row in plan.rows):
            raise PlanError(
                f"plan.num_steps: a lease needs rows that all sample; got {plan.num_steps}"
            )
        self._slots.retire(plan.retires)
        for admit in plan.admits:
            self._slots.admit(admit)
        fresh_blocks: list[int] = []
        for grant in plan.grants:
            fresh_blocks += self._slots.grant(grant)
        self._cache.clear_blocks(fresh_blocks)
        self._cache.copy_blocks(plan.copies)

    def _step(
        self, rows: Sequence[Row], lease_ends: Callable[[], bool]
    ) -> tuple[list[RowOutcome], bool]:
        """Run one step; outcomes in the order of the rows, and whether the plan ends here."""
        outcomes: list[RowOutcome] = []
        running: list[tuple[int, Row, Slot]] = []
        for index, row in enumerate(rows):
            state, slot = self._check(row)
            outcomes.append(RowOutcome((), state))
            if slot is not None:
                running.append((index, row, slot))
        if not running:
            return outcomes, True
        logits = self._forward([(row, slot) for _, row, slot in running])
        sampling = [(index, slot) for index, row, slot in running if row.sample]
        sampled = self._sample(logits, [slot for _, slot in sampling], lease_ends)
        for place, (index, slot) in enumerate(sampling):
            logprobs = sampled.logprobs[place]
            outcomes[index] = _outcome(slot, sampled.token_ids[place], logprobs)
        ended = all(slot.ended for _, _, slot in running) and len(running) == len(outcomes)
        return outcomes, ended or sampled.lease_ends

    def _check(self, row: Row) -> tuple[RowState, Slot | None]:
        """The slot if the row can run now, and the state it has until it samples."""
        slot = self._slots.get(row.slot)
        if slot is None or slot.ended:
            return RowState.MASKED, None
        end = slot.computed_length + row.token_count
        if end > row.kv_token_limit:
            return RowState.KV_LIMIT, None
        if row.kv_token_limit > slot.granted_token_count:
            raise PlanError(
                f"plan.rows.kv_token_limits: beyond the blocks granted to slot {row.slot}; "
                f"got {row.kv_token_limit}; allowed up to {slot.granted_token_count}"
            )
        known = len(slot.token_ids)
        if row.token_count < 1 or end > known or (row.sample and end != known):
            raise PlanError(
                f"plan.rows.token_counts: slot {row.slot} has {slot.computed_length} of {known} "
                f"tokens computed; got {row.token_count}"
            )
        if end > self._model.geometry.context_token_count:
            raise PlanError(
                f"plan.rows.token_counts: past the model's positions; got position {end - 1}; "
                f"allowed up to {self._model.geometry.context_token_count - 1}"
            )
        return RowState.RUNNING, slot

    def _forward(self, running: Sequence[tuple[Row, Slot]]) -> Tensor | None:
        """Logits of the sampling rows, in order, on rank 0."""
        chunks: list[Chunk] = []
        for row, slot in running:
            first = slot.computed_length
            slot.computed_length += row.token_count
            token_ids = slot.token_ids[first : slot.computed_length]
            chunks.append(Chunk(row.slot, token_ids, first, row.sample))
        inputs = build_inputs(chunks, self._slots.block_tables)
        logits: Tensor | None = self._model(inputs, self._cache, self._parallel)
        return logits

    def _sample(
        self, logits: Tensor | None, slots: Sequence[Slot], lease_ends: Callable[[], bool]
    ) -> _Sampled:
        """Rank 0 chooses the ids and says whether the lease ends; the others hear both from it."""
        message = torch.zeros(len(slots) + 1, dtype=torch.int64)
        logprobs: list[TokenLogprobs | None] = [None] * len(slots)
        if logits is not None:
            rows = tuple(slot.sampling_row() for slot in slots)
            batch = sample(logits, SamplingBatch(rows, self._config.token_count))
            message[:-1] = batch.token_ids.where(batch.finite, _NON_FINITE_ID)
            logprobs = batch.logprobs
            for place, failure in batch.failures.items():
                message[place] = _FAILED_ID
                self._on_row_failure(slots[place].admit.sequence, failure)
        if self._parallel.rank == 0:
            message[-1] = lease_ends()
        *token_ids, ends = self._parallel.broadcast(message).tolist()
        return _Sampled(token_ids, bool(ends), logprobs)


def _outcome(slot: Slot, token_id: int, logprobs: TokenLogprobs | None) -> RowOutcome:
    """Put a sampled id into its slot; a row that was not finite, or failed, ends without one."""
    if token_id == _FAILED_ID:
        # An end that the router has not been told of: it fails the sequence.
        slot.ended = True
        return RowOutcome((), RowState.MASKED)
    if token_id == _NON_FINITE_ID:
        slot.ended = True
        return RowOutcome((), RowState.NON_FINITE)
    state = slot.accept(token_id)
    return RowOutcome((token_id,), state, () if logprobs is None else (logprobs,))
