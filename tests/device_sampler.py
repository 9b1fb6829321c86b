"""The GPU's sampler over texts, on a GPU or in Triton's interpreter, held against the CPU's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sampled_texts import Text, sampling_row, specified
from torch import Tensor

from santacoder_shard.gpu_sampling import SamplingUploads, sampling_of
from santacoder_shard.kernels.choice.triton_kernel import likeliest_kernel
from santacoder_shard.kernels.sampling.launch import SampledStep, Sampler, Sampling, SlotOptions
from santacoder_shard.sampler import distribution

END_ID_COUNT = 128


class DeviceSampler:
    """The kernels, over `row_count` rows of as many slots; row r of a step is of slot R - 1 - r."""

    def __init__(
        self,
        token_count: int,
        row_count: int,
        block: int,
        device: str = "cpu",
        dummy_count: int = 9,
    ) -> None:
        parts = -(-token_count // block)
        self.token_count, self.block = token_count, block
        options = SlotOptions.empty(row_count, parts * block, torch.device(device))
        with torch.device(device):
            self._best_values = torch.zeros(row_count, parts)
            self.step = SampledStep(
                logits=torch.full((row_count, token_count + dummy_count), 3e38),
                best_ids=torch.zeros(row_count, parts, dtype=torch.int32),
                row_slots=torch.arange(row_count, dtype=torch.int32).flip(0),
                positions=torch.full((row_count,), -1, dtype=torch.int32),
                end_ids=torch.full((row_count, END_ID_COUNT), -1, dtype=torch.int32),
                forced_ids=torch.full((row_count,), 7, dtype=torch.int32),
            )
            self.sample_rows = torch.arange(row_count, dtype=torch.int32)
        self.uploads = SamplingUploads(options, token_count)
        self.sampler = Sampler(options, self.step, token_count, block)

    def begin(self, texts: Sequence[Text]) -> None:
        """Put the texts into the slots of the first rows."""
        step, admitted = self.step, []
        step.positions.fill_(-1)
        for row, text in enumerate(texts):
            index = int(step.row_slots[row])
            step.end_ids[index] = -1
            ends = torch.tensor(sorted(text.end_ids), dtype=torch.int32)
            step.end_ids[index, : len(ends)].copy_(ends)
            step.positions[row] = len(text.token_ids) - 1
            admitted.append((index, text.slot()))
        self.uploads.admit(admitted)

    def choose(self, logits: Sequence[Tensor], sampling: Sampling, steps_on: int = 0) -> list[int]:
        """Ids of the rows, -1 where the likeliest is wanted, after `steps_on` more tokens."""
        step, count = self.step, len(logits)
        step.logits[:count, : self.token_count].copy_(torch.stack(list(logits)))
        step.positions[:count] += steps_on
        likeliest_kernel[(count, step.best_ids.shape[1])](
            step.logits,
            self._best_values,
            step.best_ids,
            self.token_count,
            step.logits.shape[1],
            BLOCK=self.block,
        )
        self.sampler(self.sample_rows[:count], sampling)
        ids: list[int] = step.forced_ids[:count].tolist()
        return ids


def compare(device: DeviceSampler, texts: Sequence[Text]) -> None:
    """Both samplers choose the same ids, from the same distributions."""
    device.begin(texts)
    sampling = max(sampling_of(text.slot()) for text in texts)
    ids = device.choose([text.logits for text in texts], sampling)
    for row, (text, token_id) in enumerate(zip(texts, ids, strict=True)):
        is_greedy = sampling_of(text.slot()) is Sampling.LIKELIEST
        assert token_id == -1 or not is_greedy, f"not left out; {text}"
        came = int(text.logits.argmax()) if token_id == -1 else token_id
        assert came == specified(text), f"id {came}, should be {specified(text)}; {text}"
        if text.parameters.temperature > 0:
            error = distribution_error(device, row, text)
            # Of the two float64 exponentials the last place may differ.
            assert error < 1e-12, f"distribution off by {error}; {text}"


def distribution_error(device: DeviceSampler, row: int, text: Text) -> float:
    """By how much the share of a part of the ids is off."""
    sums = device.sampler.part_sums[row].cpu().double()
    wanted = torch.zeros(len(sums) * device.block, dtype=torch.float64)
    wanted[: len(text.logits)] = distribution(text.logits, sampling_row(text))
    return float((sums / sums.sum() - wanted.view(len(sums), -1).sum(dim=1)).abs().max())
