"""Drives the GPU engine as `engine_driver.py` does the CPU's; the one that knows its insides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from engine_driver import EngineDriver

from santacoder_shard.engine import EngineConfig
from santacoder_shard.geometry import Geometry
from santacoder_shard.model import SantaCoder
from santacoder_shard.parallel import Parallel
from santacoder_shard.step import Plan, Retire, RowState, StepOutcome, TokenLogprobs
from santacoder_shard.worker import PlanRunner

if TYPE_CHECKING:
    from santacoder_shard.gpu_engine import GpuEngine


def device() -> torch.device:
    """The GPU."""
    return torch.device("cuda", torch.cuda.current_device())


def settle() -> None:
    """Wait for the GPU: the engine's stream does not wait for the one that tests work on."""
    torch.cuda.synchronize()


def on_device(model: SantaCoder, dtype: torch.dtype = torch.float16) -> SantaCoder:
    """The model itself, its weights rounded and brought to the GPU."""
    model.dtype = dtype
    return model.to(device(), dtype)


def real_model(
    layer_count: int, kv_head_count: int = 1, vocabulary_size: int = 49280
) -> SantaCoder:
    """SantaCoder's widths, random weights as untrained models have them, made on the GPU."""
    geometry = Geometry(
        layer_count=layer_count,
        head_count=16,
        kv_head_count=kv_head_count,
        head_size=128,
        embedding_size=2048,
        inner_size=8192,
        context_token_count=2048,
        vocabulary_size=vocabulary_size,
        layer_norm_epsilon=1e-5,
        activation="gelu_tanh",
    )
    generator = torch.Generator(device()).manual_seed(layer_count)
    with device():
        model = SantaCoder(geometry, 1, torch.float16)
    for name, parameter in model.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        mean = 1.0 if kind.startswith("ln_") and kind.endswith("weight") else 0.0
        parameter.data.normal_(mean, 0.02, generator=generator)
    return model


class GpuDriver(EngineDriver):
    """Keeps logits of the slots in `watched` alone, from plans of one step.

    `is_eager`: without graphs.
    """

    def __init__(
        self,
        model: SantaCoder,
        slot_count: int = 32,
        blocks_per_sequence: int = 32,
        token_count: int = 120,
        tokens_per_step: int = 512,
        is_eager: bool = False,
    ) -> None:
        def make(model: SantaCoder, _: Parallel, config: EngineConfig) -> PlanRunner:
            self.gpu = _make_engine(model, config, is_eager)
            return self.gpu

        self.token_count = token_count
        self.watched: Sequence[int] = range(slot_count)
        self.logprobs: dict[int, list[TokenLogprobs]] = {}
        super().__init__(
            model,
            slot_count,
            blocks_per_sequence,
            token_count=token_count,
            tokens_per_step=tokens_per_step,
            make_engine=make,
        )

    def clear(self) -> None:
        """Take every sequence out and forget what it gave. Its blocks keep what they hold."""
        both = [Retire(slot + 1, generation) for slot in self._granted for generation in (1, 2)]
        self.run(retires=tuple(both))
        for kept in (self.ids, self.logits, self.logprobs, self._granted):
            kept.clear()
        self.outcomes.clear()

    def lease(self, slots: Sequence[int], step_count: int, **fields: Any) -> None:
        """So many steps of these slots in one plan."""
        self.run([self.row(slot) for slot in slots], num_steps=step_count, **fields)

    def _note(self, plan: Plan, outcome: StepOutcome) -> None:
        place = 0
        for row, told in zip(plan.rows, outcome.rows, strict=True):
            if not told.token_ids and told.state is not RowState.NON_FINITE:
                continue
            self.ids.setdefault(row.slot, []).extend(told.token_ids)
            self.logprobs.setdefault(row.slot, []).extend(told.logprobs)
            if plan.num_steps == 1 and row.slot in self.watched:
                self.logits.setdefault(row.slot, []).append(self._logits(place))
            place += 1

    def _logits(self, place: int) -> torch.Tensor:
        """What the last step's sampled row `place` was chosen from."""
        logits: torch.Tensor = self.gpu._buffers.logits[place].clone()
        settle()
        return logits


def _make_engine(model: SantaCoder, config: EngineConfig, is_eager: bool) -> GpuEngine:
    # Here, because where there is no GPU there may be no Triton.
    from santacoder_shard.gpu_engine import GpuEngine
    from santacoder_shard.gpu_graphs import StepGraphs

    if not is_eager:
        return GpuEngine(model, config, device())
    with patch.object(StepGraphs, "_capture", lambda _, run, size: _Eager(run, size)):
        return GpuEngine(model, config, device())


class _Eager:
    """Stands in for a captured graph: launches the kernels one by one."""

    def __init__(self, run: Callable[[int], None], size: int) -> None:
        self._run, self._size = run, size

    def replay(self) -> None:
        self._run(self._size)


def generate_together(
    driver: EngineDriver, prompts: Sequence[Sequence[int]], count: int, **fields: Any
) -> None:
    """Each prompt whole, in the slot of its place; then a token of each a plan, to `count` ids."""
    for slot, prompt in enumerate(prompts):
        driver.start(slot, prompt, **fields)
        driver.prefill(slot, len(prompt))
    for _ in range(count - 1):
        driver.run([driver.row(slot) for slot in range(len(prompts))])
