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
from santacoder_shard.gpu_buffers import SlotState, StepBuffers
from santacoder_shard.gpu_graphs import StepGraphs
from santacoder_shard.gpu_logprobs import QueuedReports, ReportRequest, queue_reports
from santacoder_shard.gpu_model import SPREAD_ROW_LIMIT, GpuModel
from santacoder_shard.gpu_rows import NOT_SAMPLED, PackedStep, PlannedRow, StepWords, pack_step
from santacoder_shard.gpu_sampling import SamplingUploads, sampling_of
from santacoder_shard.gpu_slots import SlotUploads
from santacoder_shard.gpu_transfer import IdRing
from santacoder_shard.kernels.choice.triton_kernel import NON_FINITE_ID
from santacoder_shard.kernels.sampling.launch import Sampling
from santacoder_shard.kv_cache import KVCache
from santacoder_shard.model import SantaCoder
from santacoder_shard.slots import PlanError, Slot, SlotTable
from santacoder_shard.step import Plan, Row, RowOutcome, RowState, StepOutcome, TokenLogprobs

# Enough that the device never waits for the host, few enough that an interrupt takes hold soon.
STEPS_AHEAD = 3
Emit = Callable[[StepOutcome], None]


@dataclass(slots=True)
class _LaunchedStep:
    """A step on the device: whose rows it runs, where its ids will be, and who is told."""

    plan_number: int
    step: int
    rows: Sequence[PlannedRow]
    ring_place: int
    emit: Emit
    launched_at: float
    final: bool = False
    reports: Sequence[QueuedReports] = ()


class GpuEngine:
    """One GPU's state and the model; used by one thread. Compiles, captures and warms up."""

    def __init__(
        self, model: SantaCoder, config: EngineConfig, tokens_per_step: int, device: torch.device
    ) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._config = config
        self._context_token_count = model.geometry.context_token_count
        self._cache = KVCache(model.geometry, 1, config.block_count, model.dtype, device)
        self._slots = SlotTable(
            config.slot_count,
            config.blocks_per_sequence,
            self._cache.scratch_block,
            config.token_count,
            frozenset((config.end_of_text_id, *config.sentinel_ids)),
        )
        state = SlotState.empty(config.slot_count, config.blocks_per_sequence, device)
        row_limit = max(tokens_per_step, config.slot_count)
        self._buffers = StepBuffers(
            model.geometry,
            state,
            row_limit,
            SPREAD_ROW_LIMIT,
            config.token_count,
            model.dtype,
            device,
        )
        self._uploads = SlotUploads(state)
        self._sampling_uploads = SamplingUploads(self._buffers.options, config.token_count)
        self._words = StepWords(self._buffers)
        self._ring = IdRing(config.slot_count, STEPS_AHEAD + 2, self._buffers.out_ids)
        overlap = torch.cuda.get_device_capability(device) >= (9, 0)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            kernels = GpuModel(model, self._cache, self._buffers, overlap)
            self._graphs = StepGraphs(kernels, self._buffers, row_limit)
            # Once, so that no request waits for what is compiled and loaded.
            queue_reports(self._buffers, [ReportRequest(sample_place=0, top_count=1)])
        self._launched: deque[_LaunchedStep] = deque()
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
                self.drain()
                emit(StepOutcome(plan.number, 0, 0, True, (), 0.0))
                return
            deadline = plan.time_cap_seconds and time.monotonic() + plan.time_cap_seconds
            step, rows = 0, plan.rows
            while True:
                self._launch(plan.number, step, rows, emit)
                step += 1
                while len(self._launched) > STEPS_AHEAD:
                    self._collect()
                is_late = bool(deadline) and time.monotonic() >= deadline
                is_cut = is_late or (plan.interruptible and interrupted())
                if step == plan.num_steps or is_cut or self._all_ended(plan.rows):
                    break
                if step == 1:
                    # Prompts are run in the first step; what follows is the id sampled last.
                    rows = tuple(Row(row.slot, 1, True, row.kv_token_limit) for row in rows)
            self._launched[-1].final = True

    def drain(self) -> None:
        """Wait for every step launched so far, and emit it."""
        while self._launched:
            self._collect()

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
        admitted = [(index, slot) for index, slot in slots if slot is not None]
        self._uploads.admit(admitted)
        self._sampling_uploads.admit(admitted)
        self._uploads.grant(plan.grants)
        self._cache.copy_blocks(plan.copies)

    def _all_ended(self, rows: Sequence[Row]) -> bool:
        slots = [self._slots.get(row.slot) for row in rows]
        return all(slot is None or slot.ended for slot in slots)

    def _launch(self, plan_number: int, step: int, rows: Sequence[Row], emit: Emit) -> None:
        planned = [
            PlannedRow.plan(row, self._slots.get(row.slot), self._context_token_count)
            for row in rows
        ]
        packed = pack_step(planned, self._graphs)
        self._words.upload(packed)
        slots = {row.sample_place: row.slot for row in planned if row.slot is not None}
        slots.pop(NOT_SAMPLED, None)
        self._replay(packed, max(map(sampling_of, slots.values()), default=Sampling.LIKELIEST))
        ring_place = self._ring.next_place()
        launched = _LaunchedStep(plan_number, step, planned, ring_place, emit, time.perf_counter())
        launched.reports = queue_reports(self._buffers, _report_requests(slots))
        self._ring.fetch(ring_place)
        self._launched.append(launched)

    def _replay(self, packed: PackedStep, sampling: Sampling) -> None:
        if packed.is_decode and packed.is_whole and sampling is Sampling.LIKELIEST:
            self._graphs.step(packed.size)
            return
        self._graphs.body(packed.size, packed.is_decode)
        if packed.sample_size:
            self._graphs.head(packed.sample_size)
            self._graphs.choose(packed.sample_size, sampling)

    def _collect(self) -> None:
        """Wait for the oldest step; emit it, with what has ended behind it of the same plan."""
        first = self._launched[0]
        self._ring.wait(first.ring_place)
        steps = [self._launched.popleft()]
        while (
            self._launched
            and self._launched[0].plan_number == first.plan_number
            and (self._launched[0].final or len(self._launched) > 1)
            and self._ring.is_ready(self._launched[0].ring_place)
        ):
            steps.append(self._launched.popleft())
        now = time.perf_counter()
        seconds = now - max(self._collected_at, first.launched_at)
        self._collected_at = now
        outcomes = [self._outcomes(step) for step in steps]
        rows = tuple(_joined(parts) for parts in zip(*outcomes, strict=True))
        final = steps[-1].final
        first.emit(StepOutcome(first.plan_number, first.step, len(steps), final, rows, seconds))

    def _outcomes(self, step: _LaunchedStep) -> list[RowOutcome]:
        """Each row's outcome, in order, and the slots moved on as the device has moved them."""
        ids = self._ring.ids(step.ring_place)
        reports: dict[int, TokenLogprobs] = {}
        for queued in step.reports:
            reports |= queued.arrived()
        return [_outcome(row, ids, reports) for row in step.rows]


def _report_requests(slots: Mapping[int, Slot]) -> list[ReportRequest]:
    """The reports that sampled rows want, given their slots by place."""
    return [
        ReportRequest(place, slot.admit.logprob_count)
        for place, slot in slots.items()
        if slot.admit.logprob_count is not None
    ]


def _outcome(
    row: PlannedRow, ids: Sequence[int], reports: Mapping[int, TokenLogprobs]
) -> RowOutcome:
    slot = row.slot
    if slot is None or slot.ended:
        return RowOutcome((), RowState.MASKED)
    if not row.runs:
        return RowOutcome((), RowState.KV_LIMIT)
    slot.computed_length += row.row.token_count
    if not row.row.sample:
        return RowOutcome((), RowState.RUNNING)
    token_id = ids[row.sample_place]
    if token_id == NON_FINITE_ID:
        slot.ended = True
        return RowOutcome((), RowState.NON_FINITE)
    state = slot.accept(token_id)
    report = reports.get(row.sample_place)
    return RowOutcome((token_id,), state, () if report is None else (report,))


def _joined(parts: Sequence[RowOutcome]) -> RowOutcome:
    """One row's outcomes of consecutive steps as one: its ids in order, its last state.

    A row that ended in an earlier step is masked in later ones, but what it ended with is told.
    """
    if len(parts) == 1:
        return parts[0]
    telling = [part for part in parts if part.state is not RowState.MASKED] or parts[:1]
    return RowOutcome(
        tuple(token_id for part in parts for token_id in part.token_ids),
        telling[-1].state,
        tuple(report for part in parts for report in part.logprobs),
    )
