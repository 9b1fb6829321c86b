"""Carries out plans on one GPU. Steps are launched ahead of their results; ids come back in order.

What only the device knows while steps are in flight, each slot's last id, position and end, stays
on the device; the host repeats it from the ids that come back. A plan's last steps may still be
running when `run` returns: the next plan is launched behind them, and `drain` waits for what is
left. Ids are chosen on the device whatever a row's options are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from santacoder_shard.engine import EngineConfig
from santacoder_shard.gpu_attention import SPREAD_ROW_LIMIT
from santacoder_shard.gpu_buffers import SlotState, StepBuffers
from santacoder_shard.gpu_graphs import StepGraphs
from santacoder_shard.gpu_logprobs import QueuedReports, ReportRequest, queue_reports
from santacoder_shard.gpu_model import GpuModel
from santacoder_shard.gpu_outcomes import Emit, PlanOutcomes
from santacoder_shard.gpu_rows import NOT_SAMPLED, PackedStep, PlannedRow, StepWords, pack_step
from santacoder_shard.gpu_sampling import SamplingUploads, sampling_of
from santacoder_shard.gpu_slots import SlotUploads
from santacoder_shard.gpu_transfer import IdRing, PinnedRing
from santacoder_shard.kernels.sampling.launch import Sampling
from santacoder_shard.kv_cache import KVCache
from santacoder_shard.model import SantaCoder
from santacoder_shard.parallel import Parallel
from santacoder_shard.slots import PlanError, Slot, SlotTable
from santacoder_shard.step import Plan, Row, StepOutcome, TokenLogprobs

# Enough that the device never waits for the host, few enough that an interrupt takes hold soon.
STEPS_AHEAD = 3
# Between two looks whether a step has ended or a plan has come: a twentieth of the shortest step.
LOOK_SECONDS = 30e-6


@dataclass(frozen=True, slots=True)
class _PlannedStep:
    """A step as it will be launched: its rows, what the device is given, and what it has to do."""

    rows: Sequence[PlannedRow]
    packed: PackedStep
    sampling: Sampling
    requests: Sequence[ReportRequest]


@dataclass(slots=True)
class _LaunchedStep:
    """A step on the device: whose rows it runs, and where its ids will be."""

    outcomes: PlanOutcomes
    planned: _PlannedStep
    ring_place: int
    launched_at: float
    reports: Sequence[QueuedReports]
    final: bool = False


class GpuEngine:
    """One GPU's state and the model; used by one thread. Compiles, captures and warms up."""

    def __init__(
        self,
        model: SantaCoder,
        config: EngineConfig,
        device: torch.device,
        parallel: Parallel | None = None,
    ) -> None:
        parallel = parallel or Parallel()
        self._is_alone = parallel.size == 1
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._config = config
        self._context_token_count = model.geometry.context_token_count
        self._cache = KVCache(
            model.geometry, parallel.size, config.block_count, model.dtype, device
        )
        self._slots = SlotTable(
            config.slot_count,
            config.blocks_per_sequence,
            self._cache.scratch_block,
            config.token_count,
            frozenset((config.end_of_text_id, *config.sentinel_ids)),
            keeps_tables=False,
        )
        state = SlotState.empty(config.slot_count, config.blocks_per_sequence, device)
        row_limit = max(config.tokens_per_step, config.slot_count)
        self._buffers = StepBuffers(
            model.geometry,
            state,
            row_limit,
            SPREAD_ROW_LIMIT,
            config.token_count,
            model.dtype,
            device,
            parallel.size,
        )
        ring = PinnedRing(max(self._buffers.words.numel(), config.blocks_per_sequence))
        self._uploads = SlotUploads(state, ring)
        self._sampling_uploads = SamplingUploads(self._buffers.options, config.token_count)
        self._words = StepWords(self._buffers, ring)
        self._ring = IdRing(config.slot_count, STEPS_AHEAD + 2, self._buffers.out_ids)
        overlap = torch.cuda.get_device_capability(device) >= (9, 0)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            kernels = GpuModel(model, self._cache, self._buffers, overlap, parallel)
            self._graphs = StepGraphs(kernels, self._buffers, row_limit)
            # Once, so that no request waits for what is compiled and loaded.
            queue_reports(self._buffers, [ReportRequest(sample_place=0, top_count=1)])
        self._launched: deque[_LaunchedStep] = deque()
        # Of the plan being launched; their state is not on the device yet.
        self._admitted: list[tuple[int, Slot]] = []
        self._collected_at = 0.0

    @torch.inference_mode()
    def run(self, plan: Plan, emit: Emit, interrupted: Callable[[], bool]) -> None:
        """Launch `plan` in the order of its fields; `emit` as steps end, the last one `final`.

        Returns before the last steps have ended; they are emitted by the next call or by `drain`.
        A lease ends early at its time cap, when `interrupted` says so, and when nothing can run.
        Raises PlanError if the plan contradicts this rank's state, which is then undefined.
        """
        with torch.cuda.stream(self._stream):
            self._apply(plan)
            if not plan.rows:
                self._upload_admitted()
                while self._launched:
                    self._collect()
                emit(StepOutcome(plan.number, 0, 0, True, (), 0.0))
                return
            deadline = plan.time_cap_seconds and time.monotonic() + plan.time_cap_seconds
            outcomes = PlanOutcomes(plan.number, emit, len(plan.rows), time.perf_counter())
            step, planned = 0, self._plan_step(plan.rows)
            while True:
                self._launch(outcomes, planned)
                step += 1
                while len(self._launched) > STEPS_AHEAD:
                    self._collect()
                is_late = bool(deadline) and time.monotonic() >= deadline
                is_cut = is_late or (plan.interruptible and interrupted())
                # Ranks of a group do not know of each other's haste: they run every step.
                if step == plan.num_steps or (
                    self._is_alone and (is_cut or self._all_ended(planned))
                ):
                    break
                planned = self._next_step(plan.rows, planned, step)
            self._launched[-1].final = True

    def drain(self, plan_waits: Callable[[], bool]) -> None:
        """Emit every step launched so far as it ends; leaves the rest once `plan_waits`."""
        while self._launched and not plan_waits():
            if self._ring.is_ready(self._launched[0].ring_place):
                self._collect()
            else:
                # Not a wait for the device: a plan that comes must go behind the step that runs.
                time.sleep(LOOK_SECONDS)

    def _apply(self, plan: Plan) -> None:
        if plan.num_steps > 1 and not all(row.sample for row in plan.rows):
            raise PlanError(
                f"plan.num_steps: a lease needs rows that all sample; got {plan.num_steps}"
            )
        self._slots.retire(plan.retires)
        for admit in plan.admits:
            self._slots.admit(admit)
        for grant in plan.grants:
            self._slots.grant(grant)
        slots = [(admit.slot, self._slots.get(admit.slot)) for admit in plan.admits]
        self._admitted = [(index, slot) for index, slot in slots if slot is not None]
        self._uploads.grant(plan.grants)
        self._cache.copy_blocks(plan.copies)

    def _all_ended(self, planned: _PlannedStep) -> bool:
        return all(row.slot is None or row.slot.ended for row in planned.rows)

    def _plan_step(self, rows: Sequence[Row]) -> _PlannedStep:
        planned = [
            PlannedRow.plan(row, self._slots.get(row.slot), self._context_token_count)
            for row in rows
        ]
        packed = pack_step(planned, self._graphs)
        slots = {row.sample_place: row.slot for row in planned if row.slot is not None}
        slots.pop(NOT_SAMPLED, None)
        sampling = max(map(sampling_of, slots.values()), default=Sampling.LIKELIEST)
        return _PlannedStep(planned, packed, sampling, _report_requests(slots))

    def _next_step(self, rows: Sequence[Row], last: _PlannedStep, step: int) -> _PlannedStep:
        """A lease's step after `last`: the same, as long as every row goes on."""
        if step > 1 and all(row.goes_on(self._context_token_count) for row in last.rows):
            for row in last.rows:
                if row.slot is not None:
                    row.slot.launched_length += 1
            return last
        # Prompts are run in the first step; what follows is the id sampled last.
        return self._plan_step([Row(row.slot, 1, True, row.kv_token_limit) for row in rows])

    def _launch(self, outcomes: PlanOutcomes, planned: _PlannedStep) -> None:
        self._replay(planned.packed, planned.sampling)
        reports = queue_reports(self._buffers, planned.requests)
        ring_place = self._ring.next_place()
        self._ring.fetch(ring_place)
        now = time.perf_counter()
        self._launched.append(_LaunchedStep(outcomes, planned, ring_place, now, reports))

    def _upload_admitted(self) -> None:
        self._uploads.admit(self._admitted)
        self._sampling_uploads.admit(self._admitted)
        self._admitted = []

    def _replay(self, packed: PackedStep, sampling: Sampling) -> None:
        self._words.upload_rows(packed)
        if packed.is_decode:
            self._upload_admitted()
        if packed.is_decode and packed.is_whole and sampling is Sampling.LIKELIEST:
            self._words.upload_samples(packed)
            self._graphs.step(packed.size)
            return
        self._graphs.body(packed.size, packed.is_decode)
        # Prompts are named whole: what their slots sample by is wanted behind the layers alone.
        self._upload_admitted()
        if packed.sample_size:
            self._words.upload_samples(packed)
            self._graphs.head(packed.sample_size)
            self._graphs.choose(packed.sample_size, sampling)

    def _collect(self) -> None:
        """Wait for the oldest step, and take its ids; tell what is due."""
        step = self._launched.popleft()
        self._ring.wait(step.ring_place)
        now = time.perf_counter()
        seconds = now - max(self._collected_at, step.launched_at)
        self._collected_at = now
        logprobs: dict[int, TokenLogprobs] = {}
        for queued in step.reports:
            logprobs |= queued.arrived()
        outcomes, packed = step.outcomes, step.planned.packed
        outcomes.take(step.planned.rows, self._ring.ids(step.ring_place), logprobs, seconds)
        # Whoever has just begun waits for a first id.
        if step.final or not packed.is_decode or outcomes.is_due(now):
            outcomes.tell(now, step.final)


def _report_requests(slots: Mapping[int, Slot]) -> list[ReportRequest]:
    """The reports that sampled rows want, given their slots by place."""
    return [
        ReportRequest(place, slot.admit.logprob_count)
        for place, slot in slots.items()
        if slot.admit.logprob_count is not None
    ]
