"""A shard group that carries plans out as shard.proto says, over a shadow KV cache.

Every read of the cache is checked. Knows the scheduler by its plans only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from router.core.shadow_cache import ShadowCache
from router.core.simulated_model import (
    Options,
    admit_options,
    chain_root,
    extend_chain,
    require,
    sample,
)
from router.core.simulated_results import report

from santacoder_router.core.plan import (
    Admit,
    Retire,
    Row,
    RowResult,
    RowState,
    StepPlan,
    StepResult,
    TokenLogprobs,
)
from santacoder_router.core.settings import SchedulerConfig

_IDLE = (RowState.RUNNING, RowState.KV_LIMIT)


@dataclass
class SlotState:
    """What the device keeps of a sequence in a slot."""

    admit: Admit
    admitted_by: int
    options: Options
    ids: list[int]
    # digests[p] stands for ids 0 to p.
    digests: list[bytes]
    computed: int
    table: list[int] = field(default_factory=list)
    state: RowState = RowState.RUNNING


class SimulatedShard:
    """One life of a shard group. `cache_key` tells under which key a sequence shares blocks."""

    def __init__(
        self,
        config: SchedulerConfig,
        vocabulary_size: int,
        cache_key: Callable[[int], bytes],
        random: Random,
        poison_rate: float = 0.0,
    ) -> None:
        self._config = config
        self._vocabulary_size = vocabulary_size
        self._cache_key = cache_key
        self._random = random
        self.poison_rate = poison_rate
        self._cache = ShadowCache(config.block_count, config.block_size)
        # Lives differ in speed, the steps of one life hardly.
        self._step_seconds = random.choice([0.00005, 0.0002, 0.001])
        self._table_counts = [0] * config.block_count
        self._slots: dict[int, SlotState] = {}
        self._generations: dict[int, int] = {}
        self._last_number = 0

    @property
    def running_count(self) -> int:
        """Sequences in slots that have not ended here."""
        return sum(slot.state in _IDLE for slot in self._slots.values())

    def execute(self, plan: StepPlan, cut_rate: float = 0.0) -> list[StepResult]:
        """Runs a plan and answers it in one result or several; leases may be cut short."""
        require(plan.number == self._last_number + 1, "I14 gap in plans", plan.number)
        self._last_number = plan.number
        self._change_tables(plan)
        self._copy_blocks(plan)
        self._check_rows(plan)
        steps = 1
        outcomes = [self._run_step(plan.rows)]
        rows = [row._replace(token_count=1) for row in plan.rows]
        while steps < plan.num_steps and self._random.random() >= cut_rate:
            outcomes.append(self._run_step(rows))
            steps += 1
        states = [self._slots[row.slot].state for row in plan.rows]
        return report(plan, outcomes, states, self._step_seconds, self._random)

    def learn_of_poison(self, sequence: int, plan_number: int) -> None:
        """The router has been told that `sequence` went wrong; it makes `plan_number` next."""
        self._cache.learn_of_poison(sequence, plan_number)

    def _change_tables(self, plan: StepPlan) -> None:
        for retire in plan.retires:
            self._retire(retire)
        for admit in plan.admits:
            self._admit(admit, plan.number)
        for grant in plan.grants:
            require(grant.slot in self._slots, "I15 grant to an empty slot", grant)
            table = self._slots[grant.slot].table
            require(grant.first_index == len(table), "I15 gap in a block table", grant)
            require(len(grant.block_ids) > 0, "I15 a grant of nothing", grant)
            for block in grant.block_ids:
                require(0 <= block < self._config.block_count, "I15 block outside the pool", block)
                self._table_counts[block] += 1
            table.extend(grant.block_ids)
            require(len(table) <= self._config.blocks_per_sequence, "I15 table too long", grant)

    def _retire(self, retire: Retire) -> None:
        pair = (retire.sequence, retire.generation)
        slots = [
            slot
            for slot, state in self._slots.items()
            if (state.admit.sequence, state.admit.generation) == pair
        ]
        require(len(slots) == 1, "I14 retire of a pair that is not there", retire)
        for block in self._slots.pop(slots[0]).table:
            self._table_counts[block] -= 1

    def _admit(self, admit: Admit, plan_number: int) -> None:
        require(0 <= admit.slot < self._config.slot_count, "I15 slot out of range", admit.slot)
        require(admit.slot not in self._slots, "I15 admit to a slot that is taken", admit.slot)
        known = self._generations.get(admit.sequence, 0)
        require(admit.generation > known, "I14 generation used again", admit)
        self._generations[admit.sequence] = admit.generation
        require(0 <= admit.computed_length < len(admit.token_ids), "I15 nothing to run", admit)
        digests: list[bytes] = []
        digest = chain_root(self._cache_key(admit.sequence))
        for token_id in admit.token_ids:
            digest = extend_chain(digest, token_id)
            digests.append(digest)
        self._slots[admit.slot] = SlotState(
            admit=admit,
            admitted_by=plan_number,
            options=admit_options(admit),
            ids=list(admit.token_ids),
            digests=digests,
            computed=admit.computed_length,
        )

    def _copy_blocks(self, plan: StepPlan) -> None:
        sources = [copy.source for copy in plan.copies]
        targets = [copy.target for copy in plan.copies]
        require(len(set(targets)) == len(targets), "I7 two copies into one block", plan.copies)
        for target in targets:
            require(target not in sources, "I7 a copy's target is another's source", plan.copies)
            require(self._table_counts[target] == 1, "I7 copy into a shared block", target)
        self._cache.copy(sources, targets)

    def _check_rows(self, plan: StepPlan) -> None:
        rows = plan.rows
        require(len({row.slot for row in rows}) == len(rows), "I15 two rows in a slot")
        budget = self._config.tokens_per_step
        require(sum(row.token_count for row in rows) <= budget, "I12 over the token budget")
        require(1 <= plan.num_steps <= self._config.steps_per_lease, "I12 lease too long")
        require(bool(rows or plan.retires), "L4 a plan without work")
        for row in rows:
            require(row.slot in self._slots, "I15 row in an empty slot", row)
            slot = self._slots[row.slot]
            require(slot.admit.sequence == row.sequence, "I15 row names another sequence", row)
            held = len(slot.table) * self._config.block_size
            require(row.kv_token_limit == held, "I15 wrong KV limit", row)
            if plan.num_steps > 1:
                require(row.sample, "I12 a lease with a row that does not sample", row)

    def _run_step(self, rows: Sequence[Row]) -> list[RowResult]:
        ended = [self._slots[row.slot].state not in _IDLE for row in rows]
        for row, is_ended in zip(rows, ended, strict=True):
            if not is_ended:
                self._write(row)
        return [
            RowResult((), self._masked(row)) if is_ended else self._attend(row)
            for row, is_ended in zip(rows, ended, strict=True)
        ]

    def _masked(self, row: Row) -> RowState:
        state = self._slots[row.slot].state
        require(state is not RowState.LENGTH, "I12 planned past the maximum", row)
        return RowState.MASKED

    def _write(self, row: Row) -> None:
        slot = self._slots[row.slot]
        end = slot.computed + row.token_count
        require(row.token_count > 0 and end <= len(slot.ids), "I15 runs unknown tokens", row)
        require(row.sample == (end == len(slot.ids)), "I15 samples at the wrong place", row)
        require(end <= row.kv_token_limit, "L4 blocks were not granted ahead", row)
        for position in range(slot.computed, end):
            block = slot.table[position // self._config.block_size]
            if self._table_counts[block] > 1:
                self._check_sharers(slot, block)
            self._cache.write(slot.table, position, slot.digests[position])

    def _check_sharers(self, writer: SlotState, block: int) -> None:
        """Others may hold a block that is written in the plan that admits them: they read later."""
        for slot in self._slots.values():
            if slot is not writer and block in slot.table:
                is_new = slot.admitted_by == self._last_number
                require(is_new, "I7 writes a shared block", writer.admit.sequence, block)

    def _attend(self, row: Row) -> RowResult:
        slot = self._slots[row.slot]
        start, slot.computed = slot.computed, slot.computed + row.token_count
        is_poisoned = self._cache.reads_poison(
            slot.admit.sequence, slot.admitted_by, slot.table, slot.digests[: slot.computed]
        )
        if is_poisoned or (row.sample and self._random.random() < self.poison_rate):
            self._cache.spoil(slot.admit.sequence, slot.table, start, slot.computed)
            if not row.sample:
                return RowResult((), RowState.RUNNING)
            slot.state = RowState.NON_FINITE
            return RowResult((), RowState.NON_FINITE)
        return self._sample(slot) if row.sample else RowResult((), RowState.RUNNING)

    def _sample(self, slot: SlotState) -> RowResult:
        index = len(slot.ids) - slot.admit.prompt_length
        token_id, slot.state = sample(slot.digests[-1], index, slot.options, self._vocabulary_size)
        slot.ids.append(token_id)
        slot.digests.append(extend_chain(slot.digests[-1], token_id))
        logprobs: tuple[TokenLogprobs, ...] = ()
        if slot.options.logprob_count is not None:
            logprobs = (TokenLogprobs(-float(token_id), ()),)
        return RowResult((token_id,), slot.state, logprobs)
