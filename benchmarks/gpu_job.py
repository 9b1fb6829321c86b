"""The GPU engine in this process, with random weights of the real shape, and sequences it runs.

Plans are what the router would send: leases, blocks granted as they are needed, the next plan given
while the last steps of the one before still run. They are made beforehand, as the router's time is
not the engine's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from santacoder_shard.engine import EngineConfig
from santacoder_shard.geometry import Geometry
from santacoder_shard.gpu_engine import GpuEngine
from santacoder_shard.kv_cache import BLOCK_SIZE
from santacoder_shard.model import SantaCoder
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

TOKEN_COUNT = 49152
WEIGHT_DEVIATION = 0.02
EXPECTED_STATES = frozenset((RowState.RUNNING, RowState.LENGTH))


def geometry(layer_count: int = 24) -> Geometry:
    """SantaCoder's own sizes."""
    return Geometry(
        layer_count=layer_count,
        head_count=16,
        kv_head_count=1,
        head_size=128,
        embedding_size=2048,
        inner_size=8192,
        context_token_count=2048,
        vocabulary_size=49280,
        layer_norm_epsilon=1e-5,
        activation="gelu_tanh",
    )


def random_model(shape: Geometry, device: torch.device) -> SantaCoder:
    """Half precision, made on the device; norms that change nothing."""
    generator = torch.Generator(device).manual_seed(0)
    with device:
        model = SantaCoder(shape, 1, torch.float16)
    for name, parameter in model.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        if kind.startswith("ln_"):
            parameter.data.fill_(float(kind.endswith("weight")))
        else:
            parameter.data.normal_(0.0, WEIGHT_DEVIATION, generator=generator)
    return model


@dataclass(slots=True)
class _Sequence:
    """A slot's sequence as planned so far; its blocks are the slot's own, in order."""

    number: int
    length: int
    granted_block_count: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """When a plan ended, by `time.perf_counter`, and how many ids came of it."""

    at: float
    token_count: int


class Job:
    """An engine and its slots. Contents of blocks outlive the sequences that wrote them."""

    def __init__(self, layer_count: int, slot_count: int, tokens_per_step: int) -> None:
        shape = geometry(layer_count)
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.tokens_per_step = tokens_per_step
        self._width = shape.context_token_count // BLOCK_SIZE
        config = EngineConfig(
            slot_count=slot_count,
            block_count=slot_count * self._width,
            blocks_per_sequence=self._width,
            tokens_per_step=tokens_per_step,
            token_count=TOKEN_COUNT,
            end_of_text_id=TOKEN_COUNT - 5,
            sentinel_ids=(),
        )
        model = random_model(shape, self.device)
        self.engine = GpuEngine(model, config, self.device)
        self._sequences: dict[int, _Sequence] = {}
        self._draw = random.Random(1)
        self._plan_number, self._sequence_number = 0, 0
        self._finished: list[Finished] = []
        self._token_count = 0

    def prompt(self, count: int) -> tuple[int, ...]:
        """Ids never drawn before."""
        return tuple(self._draw.choices(range(TOKEN_COUNT - 8), k=count))

    def prompt_plan(
        self, lengths: dict[int, int], cached: int = 0, new_token_count: int = 10_000
    ) -> Plan:
        """New sequences take these slots, prompts of these lengths, and run them to their end.

        `cached`: how many of the tokens are taken to be in the slot's blocks already.
        """
        retires = [Retire(self._sequences[s].number, 1) for s in lengths if s in self._sequences]
        admits = [
            self._admit(slot, length, cached, new_token_count) for slot, length in lengths.items()
        ]
        counts = {slot: length - cached for slot, length in lengths.items()}
        return self._plan(counts, 1, tuple(retires), tuple(admits))

    def lease(self, slots: Sequence[int], step_count: int) -> Plan:
        """So many steps of a token each."""
        return self._plan(dict.fromkeys(slots, 1), step_count)

    def run(self, plans: Sequence[Plan]) -> list[Finished]:
        """Run the plans one behind the other; when each ended."""
        self._finished = []
        for plan in plans:
            self.engine.run(plan, self._emit, lambda: False)
        self.engine.drain(lambda: False)
        return self._finished

    def _admit(self, slot: int, length: int, cached: int, new_token_count: int) -> Admit:
        self._sequence_number += 1
        self._sequences[slot] = _Sequence(self._sequence_number, cached)
        return Admit(
            sequence=self._sequence_number,
            generation=1,
            slot=slot,
            token_ids=self.prompt(length),
            prompt_length=length,
            computed_length=cached,
            sampling=SamplingParameters(),
            remaining_min_tokens=0,
            remaining_max_tokens=new_token_count,
            ignore_eos=True,
            stop_ids=(),
            logit_bias=(),
            logprob_count=None,
        )

    def _plan(
        self,
        counts: dict[int, int],
        step_count: int,
        retires: tuple[Retire, ...] = (),
        admits: tuple[Admit, ...] = (),
    ) -> Plan:
        grants: list[BlockGrant] = []
        rows: list[Row] = []
        for slot, count in counts.items():
            sequence = self._sequences[slot]
            sequence.length += count + step_count - 1
            have, wanted = sequence.granted_block_count, -(-sequence.length // BLOCK_SIZE)
            if wanted > have:
                first = slot * self._width
                grants.append(BlockGrant(slot, have, tuple(range(first + have, first + wanted))))
                sequence.granted_block_count = wanted
            rows.append(Row(slot, count, True, sequence.granted_block_count * BLOCK_SIZE))
        self._plan_number += 1
        return Plan(
            number=self._plan_number,
            retires=retires,
            admits=admits,
            grants=tuple(grants),
            copies=(),
            rows=tuple(rows),
            num_steps=step_count,
            time_cap_seconds=0.0,
            interruptible=True,
            step_deadline_seconds=0.0,
        )

    def _emit(self, outcome: StepOutcome) -> None:
        for row in outcome.rows:
            if row.state not in EXPECTED_STATES:
                raise RuntimeError(f"plan {outcome.plan_number}: a row is {row.state!r}")
            self._token_count += len(row.token_ids)
        if outcome.final:
            self._finished.append(Finished(time.perf_counter(), self._token_count))
            self._token_count = 0
