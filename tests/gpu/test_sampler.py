"""The sampler's kernels choose the ids of the CPU's sampler, from the same distributions."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from sampled_texts import Text, random_text

TOKEN_COUNT, ROW_COUNT = 49_152, 64


def with_a_peak(text: Text, seed: int) -> Text:
    """Logits as a trained model has them: a few ids stand out."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.5 * torch.randn(TOKEN_COUNT, generator=generator)
    peak = torch.randint(TOKEN_COUNT, (40,), generator=generator)
    logits[peak] += torch.linspace(0, 14, len(peak))
    return replace(text, logits=logits)


@pytest.mark.parametrize("is_peaked", [False, True], ids=["any_logits", "peaked"])
def test_ids_of_a_crowd_are_those_of_the_cpu(is_peaked: bool) -> None:
    # Here, because where there is no GPU there may be no Triton.
    from device_sampler import DeviceSampler, compare

    generator = random.Random(is_peaked)
    device = DeviceSampler(TOKEN_COUNT, ROW_COUNT, block=2048, device="cuda", dummy_count=128)
    for _ in range(3):
        texts = [random_text(generator, TOKEN_COUNT) for _ in range(ROW_COUNT)]
        if is_peaked:
            texts = [with_a_peak(text, seed) for seed, text in enumerate(texts)]
        compare(device, texts)
