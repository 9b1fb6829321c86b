"""Runs the GPU's engine on one rank and on two, without a GPU, and compares ids and logits.

Run as a script with TRITON_INTERPRET=1 and a folder. Ranks are processes that meet over gloo; what
they exchange, and in which order it is added, is what they would on GPUs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from checkpoints import Layout, make_checkpoint
from engine_driver import prompt_ids
from interpreted_engine import Driver, no_gpu
from rank_processes import run_on_ranks

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.gpu_engine import GpuEngine
from santacoder_shard.parallel import Parallel
from santacoder_shard.step import SamplingParameters
from santacoder_shard.weights import load_model

LAYOUTS: dict[str, Layout] = {"multi_query": "b", "multi_head": "b'"}
SAMPLINGS = (
    SamplingParameters(repetition_penalty=1.3),
    SamplingParameters(temperature=1.0, top_k=20, seed=3),
)


def generate(parallel: Parallel, folder: Path) -> dict[str, Any]:
    """Of each attention kind: every slot's ids, and the logits of the last step, to the bit."""
    return {kind: _generate(parallel, folder / kind) for kind in LAYOUTS}


def _generate(parallel: Parallel, folder: Path) -> dict[str, Any]:
    checkpoint = open_checkpoint(folder)
    cpu = torch.device("cpu")
    with torch.inference_mode(), no_gpu():
        model = load_model(checkpoint, parallel.rank, parallel.size, torch.float32, cpu)
        driver = Driver(
            model,
            len(SAMPLINGS),
            8,
            token_count=checkpoint.token_count,
            tokens_per_step=64,
            make_engine=lambda model, _parallel, config: GpuEngine(model, config, cpu, parallel),
        )
        for slot, sampling in enumerate(SAMPLINGS):
            driver.start(slot, prompt_ids(9 + slot, seed=slot), sampling=sampling)
        rows = [driver.row(slot, 9 + slot) for slot in range(len(SAMPLINGS))]
        driver.run(rows)
        driver.run([driver.row(slot) for slot in range(len(SAMPLINGS))], num_steps=3)
        engine: Any = driver.engine
        logits: torch.Tensor = engine._buffers.logits[: len(SAMPLINGS)]
        return {"ids": driver.ids, "logits": logits.clone()}


def main() -> None:
    """Exits with 1 and says where they differ, or says that they agree."""
    folder = Path(sys.argv[1])
    for kind, layout in LAYOUTS.items():
        make_checkpoint(folder / kind, layout, layers=1)
    alone = generate(Parallel(), folder)
    for rank, result in enumerate(run_on_ranks(generate, 2, folder)):
        for kind in LAYOUTS:
            if result[kind]["ids"] != alone[kind]["ids"]:
                sys.exit(f"{kind}, rank {rank}: {result[kind]['ids']} and {alone[kind]['ids']}")
            if not torch.equal(result[kind]["logits"], alone[kind]["logits"]):
                sys.exit(f"{kind}, rank {rank}: logits differ")
    print(f"{len(LAYOUTS)} kinds agree: {alone}")


if __name__ == "__main__":
    main()
