"""Runs steps on the GPU's kernels in Triton's interpreter beside the CPU's model, and compares.

`TRITON_INTERPRET=1 python tests/interpreted_steps.py DTYPE KV_HEADS LARGEST_ERROR`; that is the
largest difference of a logit over the logits' spread.
"""

from __future__ import annotations

import copy
import sys

import torch
from engine_driver import prompt_ids, random_model, small_geometry

from santacoder_shard.gpu_attention import SPREAD_ROW_LIMIT, TILE_ROWS
from santacoder_shard.gpu_buffers import SlotState, StepBuffers, StepRows
from santacoder_shard.gpu_model import GpuModel
from santacoder_shard.inputs import Chunk, build_inputs
from santacoder_shard.kernels.sampling.launch import Sampling
from santacoder_shard.kv_cache import KVCache
from santacoder_shard.parallel import Parallel

SLOT_COUNT, WIDTH, TOKEN_COUNT = 3, 32, 120
CPU = torch.device("cpu")


class BothModels:
    """One random model on both paths, each with a cache; three slots with their own blocks."""

    def __init__(self, dtype: torch.dtype, kv_head_count: int) -> None:
        geometry = small_geometry(kv_head_count=kv_head_count)
        model = random_model(geometry).to(dtype)
        model.dtype = dtype
        self._reference = copy.deepcopy(model)
        self._reference.pack()
        block_count = SLOT_COUNT * WIDTH
        self._tables = torch.arange(block_count).flip(0).view(SLOT_COUNT, WIDTH)
        self._reference_cache = KVCache(geometry, 1, block_count, torch.float32, CPU)
        state = SlotState.empty(SLOT_COUNT, WIDTH, CPU)
        state.tables.copy_(self._tables)
        state.remaining.fill_(1000)
        self.buffers = StepBuffers(geometry, state, 64, SPREAD_ROW_LIMIT, TOKEN_COUNT, dtype, CPU)
        cache = KVCache(geometry, 1, block_count, dtype, CPU)
        self._model = GpuModel(model, cache, self.buffers, overlap=False, can_describe=True)

    def step(self, chunks: list[Chunk], is_decode: bool) -> tuple[float, bool]:
        """The largest error over the spread of the logits, and whether the ids are equal."""
        rows, sample_rows = self._fill(chunks)
        self._model.body(rows, is_decode)
        self._model.head(sample_rows)
        self._model.choose(sample_rows, Sampling.LIKELIEST)
        wanted = self._reference(
            build_inputs(chunks, self._tables), self._reference_cache, Parallel()
        )
        error = (self.buffers.logits[: len(chunks)] - wanted).abs().max() / wanted.std()
        likeliest = wanted[:, :TOKEN_COUNT].argmax(1).int()
        return float(error), torch.equal(self.buffers.out_ids[: len(chunks)], likeliest)

    def _fill(self, chunks: list[Chunk]) -> tuple[StepRows, torch.Tensor]:
        columns: list[tuple[int, int, int]] = []
        tiles: list[tuple[int, int]] = []
        for index, chunk in enumerate(chunks):
            count, first_row = len(chunk.token_ids), len(columns)
            tiles += [
                (first_row + first, min(TILE_ROWS, count - first))
                for first in range(0, count, TILE_ROWS)
            ]
            columns += [
                (chunk.slot, token_id, chunk.first_position + place)
                for place, token_id in enumerate(chunk.token_ids)
            ]
            self.buffers.sample_rows[index] = len(columns) - 1
        rows = StepRows.view(self.buffers.words, len(columns))
        rows.tiles.zero_()
        rows.tiles[:, : len(tiles)] = torch.tensor(tiles).T
        slots, tokens, positions = torch.tensor(columns).T
        rows.slots.copy_(slots)
        rows.tokens.copy_(tokens)
        rows.positions.copy_(positions)
        rows.limits.fill_(WIDTH * 16)
        return rows, self.buffers.sample_rows[: len(chunks)]


def main() -> None:
    dtype, kv_head_count, largest = sys.argv[1:]
    models = BothModels(getattr(torch, dtype), int(kv_head_count))
    first, second = prompt_ids(70, seed=1), prompt_ids(30, seed=2)
    steps = (
        # Two prompts, their next tokens, a token beside a new prompt, and one past a split's end.
        ([Chunk(0, first[:40], 0, True), Chunk(1, second[:21], 0, True)], False),
        ([Chunk(0, first[40:41], 40, True), Chunk(1, second[21:22], 21, True)], True),
        ([Chunk(0, first[41:66], 41, True), Chunk(2, second[:9], 0, True)], False),
        ([Chunk(0, first[66:67], 66, True)], True),
    )
    for chunks, is_decode in steps:
        error, ids_agree = models.step(chunks, is_decode)
        if error > float(largest) or not ids_agree:
            sys.exit(f"error {error}; ids agree: {ids_agree}")
        sys.stdout.write(f"step agrees, error {error:.1e}\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
