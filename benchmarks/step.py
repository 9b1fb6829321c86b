"""Times a decode step in process, without a service: `python benchmarks/step.py [--model FOLDER]`.

For finding where a step's time goes; no claim rests on it. `--profile` lists the operators.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import torch
from cpu import DEMO_CHECKPOINT
from torch.profiler import ProfilerActivity, profile

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.inputs import Chunk, build_inputs
from santacoder_shard.kv_cache import BLOCK_SIZE, KVCache
from santacoder_shard.model import SantaCoder
from santacoder_shard.parallel import Parallel
from santacoder_shard.weights import load_model

ROW_COUNTS = (1, 8)
FIRST_POSITION = 64
WARM_UP_COUNT = 5
PROFILED_STEPS = 20


class Stepper:
    """A model, and a cache with a full context for each row."""

    def __init__(self, model: SantaCoder) -> None:
        slot_count, width = max(ROW_COUNTS), model.geometry.context_token_count // BLOCK_SIZE
        block_count = slot_count * width
        device = model.token_embedding.device
        model.pack()
        self._model = model
        self._cache = KVCache(model.geometry, 1, block_count, model.dtype, device)
        self._tables = torch.arange(block_count).view(slot_count, width)

    def run(self, row_count: int, position: int) -> None:
        """One token of each row at `position`; what the cache holds before does not matter."""
        chunks = [Chunk(slot, [slot], position, sample=True) for slot in range(row_count)]
        self._model(build_inputs(chunks, self._tables), self._cache, Parallel())


def milliseconds(stepper: Stepper, row_count: int, step_count: int) -> tuple[float, float]:
    """Medians of a step: by the clock, and of processor time over all threads."""
    wall: list[float] = []
    processor: list[float] = []
    for number in range(step_count):
        began = time.perf_counter(), time.process_time()
        stepper.run(row_count, FIRST_POSITION + number)
        wall.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    return 1000 * statistics.median(wall), 1000 * statistics.median(processor)


def operator_table(stepper: Stepper, row_count: int) -> str:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for number in range(PROFILED_STEPS):
            stepper.run(row_count, FIRST_POSITION + number)
    averages = profiler.key_averages()
    return str(averages.table(sort_by="self_cpu_time_total", row_limit=15))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a decode step in process.")
    parser.add_argument("--model", type=Path, default=DEMO_CHECKPOINT)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    checkpoint = open_checkpoint(options.model, options.model.name, "")
    device = torch.device("cpu")
    with torch.inference_mode():
        stepper = Stepper(load_model(checkpoint, 0, 1, torch.float32, device))
        for row_count in ROW_COUNTS:
            milliseconds(stepper, row_count, WARM_UP_COUNT)
            wall, processor = milliseconds(stepper, row_count, options.steps)
            print(f"{row_count} rows: {wall:.1f} ms a step, {processor:.1f} ms of processor time")
            if options.profile:
                print(operator_table(stepper, row_count))


if __name__ == "__main__":
    main()
