"""Carries out the same plans on the CPU engine and on the GPU engine without a GPU, and compares.

Run as a script with TRITON_INTERPRET=1: kernels are interpreted, streams and events stand still,
and a graph runs its kernels each time. What is compared is what the router would be told.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from engine_driver import EngineDriver, admit, prompt_ids, random_model, small_geometry

from santacoder_shard.gpu_engine import GpuEngine
from santacoder_shard.gpu_graphs import StepGraphs
from santacoder_shard.step import (
    BlockGrant,
    Plan,
    Retire,
    SamplingParameters,
    StepOutcome,
    TokenLogprobs,
)

SLOT_COUNT, BLOCKS_PER_SEQUENCE, TOKENS_PER_STEP = 4, 8, 64
LARGEST_LOGPROB_ERROR = 1e-4
OPTIONS: tuple[dict[str, Any], ...] = (
    {"sampling": SamplingParameters(temperature=0.9, top_p=0.9, seed=5)},
    {
        "sampling": SamplingParameters(repetition_penalty=1.5, frequency_penalty=0.5),
        "logprob_count": 3,
    },
    {
        "sampling": SamplingParameters(
            temperature=1.3,
            top_k=30,
            typical_p=0.8,
            presence_penalty=1.0,
            seed=2**63 + 7,
            sample_index=3,
        )
    },
    {"ignore_eos": False, "remaining_min_tokens": 4, "logit_bias": ((5, 50.0),)},
)


class StandStill:
    """A stream or an event where everything has happened already."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        """Made like either."""

    def record(self) -> None:
        """Nothing to record."""

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def query(self) -> bool:
        """Whether it has happened."""
        return True


class Rerun:
    """A graph that runs what was captured."""

    def __init__(self, run: Callable[[int], None], size: int) -> None:
        self._run, self._size = run, size

    def replay(self) -> None:
        """Run it again."""
        self._run(self._size)


@contextlib.contextmanager
def no_gpu() -> Any:
    """What of torch.cuda the engine uses, without a GPU."""
    empty = torch.empty

    def unpinned(*shape: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return empty(*shape, **options)

    with contextlib.ExitStack() as patches:
        for target, name, double in (
            (torch.cuda, "Stream", StandStill),
            (torch.cuda, "Event", StandStill),
            (torch.cuda, "stream", lambda _stream: contextlib.nullcontext()),
            (torch.cuda, "current_stream", StandStill),
            (torch.cuda, "get_device_capability", lambda _device: (8, 0)),
            (torch.cuda, "graph_pool_handle", lambda: None),
            (torch.Tensor, "pin_memory", lambda tensor: tensor),
            (torch, "empty", unpinned),
            (StepGraphs, "_capture", lambda _graphs, run, size: Rerun(run, size)),
        ):
            patches.enter_context(patch.object(target, name, double))
        yield


class Driver(EngineDriver):
    """Keeps what is told of each slot, without the logits, which the GPU engine does not keep."""

    def _note(self, plan: Plan, outcome: StepOutcome) -> None:
        for row, told in zip(plan.rows, outcome.rows, strict=True):
            self.ids.setdefault(row.slot, []).extend(told.token_ids)

    def logprobs(self) -> list[TokenLogprobs]:
        """All that were told, in order."""
        return [
            report for outcome in self.outcomes for row in outcome.rows for report in row.logprobs
        ]


def carry_out(driver: EngineDriver) -> dict[int, list[int]]:
    """Prompts together, leases, a chunk beside decoding rows, preemption, a slot's next use."""
    for slot, options in enumerate(OPTIONS):
        driver.start(slot, prompt_ids(9 + slot, seed=slot), **options)
    driver.run([driver.row(slot, 9 + slot) for slot in range(SLOT_COUNT)], num_steps=2)
    for _ in range(3):
        driver.run([driver.row(slot) for slot in range(SLOT_COUNT)], num_steps=2)
    _move_each_into_the_others_slot(driver, 1, 2)
    driver.run([driver.row(1), driver.row(2), driver.row(0)], num_steps=3)
    driver.run(retires=(Retire(1, 1),))
    driver.start(0, prompt_ids(27, seed=50))
    driver.run([driver.row(1), driver.row(0, 20, sample=False), driver.row(2)])
    driver.run([driver.row(0, 7), driver.row(1)])
    driver.run([driver.row(0), driver.row(1)], num_steps=2)
    _admit_with_rows(driver, 3)
    driver.run([driver.row(3), driver.row(0)], num_steps=3)
    return driver.ids


def _admit_with_rows(driver: EngineDriver, slot: int) -> None:
    """A plan that retires a sequence, admits the next and runs its whole prompt beside others."""
    first = slot * BLOCKS_PER_SEQUENCE
    prompt = prompt_ids(21, seed=60)
    driver.run(
        [driver.row(0), driver.row(slot, len(prompt))],
        retires=(Retire(slot + 1, 1),),
        admits=(admit(slot, prompt, **OPTIONS[0]),),
        grants=(BlockGrant(slot, 0, tuple(range(first, first + BLOCKS_PER_SEQUENCE))),),
    )


def _move_each_into_the_others_slot(driver: EngineDriver, first: int, second: int) -> None:
    outputs = {slot: list(driver.ids[slot]) for slot in (first, second)}
    driver.run(retires=(Retire(first + 1, 1), Retire(second + 1, 1)))
    for slot, source in ((first, second), (second, first)):
        prompt = prompt_ids(9 + source, seed=source)
        text = (*prompt, *outputs[source])
        driver.start(slot, text, **{**OPTIONS[source], "prompt_length": len(prompt)})
        driver.run([driver.row(slot, len(text))])


def main() -> None:
    """Exits with 1 and says where they differ, or says that they agree."""
    model = random_model(small_geometry(context_token_count=128))
    with torch.inference_mode(), no_gpu():
        cpu = Driver(copy.deepcopy(model), SLOT_COUNT, BLOCKS_PER_SEQUENCE)
        gpu = Driver(
            model,
            SLOT_COUNT,
            BLOCKS_PER_SEQUENCE,
            tokens_per_step=TOKENS_PER_STEP,
            make_engine=lambda model, _parallel, config: GpuEngine(
                model, config, torch.device("cpu")
            ),
        )
        wanted, got = carry_out(cpu), carry_out(gpu)
    if wanted != got:
        sys.exit(f"ids differ: {wanted} and {got}")
    reports = list(zip(cpu.logprobs(), gpu.logprobs(), strict=True))
    for ours, theirs in reports:
        if abs(ours.chosen - theirs.chosen) > LARGEST_LOGPROB_ERROR:
            sys.exit(f"log probabilities differ: {ours} and {theirs}")
    print(f"{sum(map(len, got.values()))} ids and {len(reports)} log probabilities agree")


if __name__ == "__main__":
    main()
