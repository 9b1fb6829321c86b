"""Drives an engine with small plans and keeps every row of logits, so that tests can compare bits.

It knows plans and the engine, no router: it grants blocks and numbers plans by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from santacoder_shard.engine import Engine, EngineConfig
from santacoder_shard.geometry import Geometry
from santacoder_shard.model import SantaCoder
from santacoder_shard.parallel import Parallel
from santacoder_shard.step import (
    Admit,
    BlockGrant,
    Plan,
    Retire,
    Row,
    RowState,
    SamplingParameters,
    StepOutcome,
)
from santacoder_shard.worker import PlanRunner

BLOCK_SIZE = 16
END_OF_TEXT_ID = 5
SENTINEL_ID = 6


def small_geometry(**changes: Any) -> Geometry:
    """Two layers of width 64, four heads on one K and V head, unless changed."""
    fields: dict[str, Any] = {
        "layer_count": 2,
        "head_count": 4,
        "kv_head_count": 1,
        "head_size": 16,
        "embedding_size": 64,
        "inner_size": 256,
        "context_token_count": 512,
        "vocabulary_size": 128,
        "layer_norm_epsilon": 1e-5,
        "activation": "gelu_tanh",
    }
    return Geometry(**fields | changes)


def random_model(geometry: Geometry, seed: int = 0) -> SantaCoder:
    """A whole model with random parameters, large enough that ids vary and attention matters."""
    generator = torch.Generator().manual_seed(seed)
    model = SantaCoder(geometry, 1, torch.float32)
    for name, parameter in model.named_parameters():
        is_norm_weight = name.rsplit(".", 1)[-1].startswith("ln_") and name.endswith("weight")
        scale = 2.0 / geometry.embedding_size**0.5 if "layers" in name else 0.3
        parameter.data.normal_(1.0 if is_norm_weight else 0.0, scale, generator=generator)
    return model


def prompt_ids(count: int, seed: int, token_count: int = 120) -> tuple[int, ...]:
    """Random ids, none of which ends a text."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(10, token_count, (count,), generator=generator).tolist())


def admit(slot: int, token_ids: Sequence[int], **changes: Any) -> Admit:
    """A greedy sequence that no id ends; its number is the slot's plus 1."""
    fields: dict[str, Any] = {
        "sequence": slot + 1,
        "generation": 1,
        "slot": slot,
        "token_ids": tuple(token_ids),
        "prompt_length": len(token_ids),
        "computed_length": 0,
        "sampling": SamplingParameters(),
        "remaining_min_tokens": 0,
        "remaining_max_tokens": 10_000,
        "ignore_eos": True,
        "stop_ids": (),
        "logit_bias": (),
        "logprob_count": None,
    }
    return Admit(**fields | changes)


class EngineDriver:
    """An engine, the outcomes of its plans, and each slot's ids and logits in the order sampled."""

    def __init__(
        self,
        model: SantaCoder,
        slot_count: int = 32,
        blocks_per_sequence: int = 32,
        parallel: Parallel | None = None,
        token_count: int = 120,
        tokens_per_step: int = 512,
        make_engine: Callable[[SantaCoder, Parallel, EngineConfig], PlanRunner] = Engine,
    ) -> None:
        self.blocks_per_sequence = blocks_per_sequence
        self.block_count = slot_count * blocks_per_sequence
        self.engine = make_engine(
            model,
            parallel or Parallel(),
            EngineConfig(
                slot_count=slot_count,
                block_count=self.block_count,
                blocks_per_sequence=blocks_per_sequence,
                tokens_per_step=tokens_per_step,
                token_count=token_count,
                end_of_text_id=END_OF_TEXT_ID,
                sentinel_ids=(SENTINEL_ID,),
            ),
        )
        self.ids: dict[int, list[int]] = {}
        self.logits: dict[int, list[torch.Tensor]] = {}
        self.outcomes: list[StepOutcome] = []
        self._granted: dict[int, int] = {}
        self._plan_number = 0
        self._forward_logits: list[torch.Tensor] = []
        model.register_forward_hook(self._keep)

    def run(
        self,
        rows: Sequence[Row] = (),
        *,
        interrupted: Callable[[], bool] = lambda: False,
        on_step: Callable[[StepOutcome], None] = lambda outcome: None,
        **fields: Any,
    ) -> list[StepOutcome]:
        """Run one plan; its outcomes. Fields not given are empty, one step, no cap."""
        self._plan_number += 1
        defaults: dict[str, Any] = {
            "retires": (),
            "admits": (),
            "grants": (),
            "copies": (),
            "num_steps": 1,
            "time_cap_seconds": 0.0,
            "interruptible": True,
            "step_deadline_seconds": 0.0,
        }
        plan = Plan(number=self._plan_number, rows=tuple(rows), **defaults | fields)
        outcomes: list[StepOutcome] = []

        def emit(outcome: StepOutcome) -> None:
            outcomes.append(outcome)
            self._note(plan, outcome)
            on_step(outcome)

        self.engine.run(plan, emit, interrupted)
        self.engine.drain(lambda: False)
        self.outcomes += outcomes
        return outcomes

    def start(
        self,
        slot: int,
        token_ids: Sequence[int],
        blocks: Sequence[int] | None = None,
        **fields: Any,
    ) -> None:
        """Admit a sequence with a full table of blocks: its slot's own, unless given."""
        first = slot * self.blocks_per_sequence
        if blocks is None:
            blocks = range(first, first + self.blocks_per_sequence)
        self._granted[slot] = len(blocks) * BLOCK_SIZE
        self.run(
            admits=(admit(slot, token_ids, **fields),),
            grants=(BlockGrant(slot, 0, tuple(blocks)),),
        )

    def row(self, slot: int, token_count: int = 1, sample: bool = True) -> Row:
        """A row that may use all blocks which the slot started with."""
        return Row(slot, token_count, sample, self._granted[slot])

    def prefill(self, slot: int, token_count: int, chunk_size: int | None = None) -> None:
        """Run a prompt in chunks, one a plan, and sample after its last token."""
        chunk_size = chunk_size or token_count
        for first in range(0, token_count, chunk_size):
            count = min(chunk_size, token_count - first)
            self.run([self.row(slot, count, sample=first + count == token_count)])

    def generate(
        self, slot: int, token_ids: Sequence[int], count: int, chunk_size: int | None = None
    ) -> list[int]:
        """Admit, run the prompt and sample `count` ids, a plan each."""
        self.start(slot, token_ids)
        self.prefill(slot, len(token_ids), chunk_size)
        for _ in range(count - 1):
            self.run([self.row(slot)])
        return self.ids[slot]

    def retire(self, slot: int) -> None:
        """Take the sequence that `start` put there out of its slot."""
        self.run(retires=(Retire(slot + 1, 1),))

    def all_logits(self, slot: int) -> torch.Tensor:
        """Logits [sampled, V] of a slot's sampled positions, in order."""
        return torch.stack(self.logits[slot])

    def _keep(self, module: object, arguments: object, output: torch.Tensor | None) -> None:
        if output is not None:
            self._forward_logits = list(output.clone())

    def _note(self, plan: Plan, outcome: StepOutcome) -> None:
        rows_of_logits = iter(self._forward_logits)
        for row, row_outcome in zip(plan.rows, outcome.rows, strict=True):
            if row_outcome.token_ids or row_outcome.state is RowState.NON_FINITE:
                self.ids.setdefault(row.slot, []).extend(row_outcome.token_ids)
                if self._forward_logits:
                    self.logits.setdefault(row.slot, []).append(next(rows_of_logits))
        self._forward_logits = []
