"""Sequences that sample, each with its own logits and options, and the ids the CPU chooses."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from engine_driver import admit
from torch import Tensor

from santacoder_shard.sampler import SamplingBatch, SamplingRow, sample
from santacoder_shard.slots import Slot
from santacoder_shard.step import SamplingParameters


@dataclass(frozen=True)
class Text:
    """A sequence that samples: raw logits [N], its ids so far, and how it samples."""

    logits: Tensor
    token_ids: tuple[int, ...]
    prompt_length: int
    parameters: SamplingParameters
    logit_bias: tuple[tuple[int, float], ...] = ()
    end_ids: tuple[int, ...] = ()
    remaining_min_tokens: int = 0

    def slot(self) -> Slot:
        fields: dict[str, Any] = {
            "prompt_length": self.prompt_length,
            "sampling": self.parameters,
            "remaining_min_tokens": self.remaining_min_tokens,
            "stop_ids": self.end_ids,
            "logit_bias": self.logit_bias,
        }
        admitted = admit(0, self.token_ids, **fields)
        return Slot(admitted, frozenset(), list(self.token_ids), 0, self.remaining_min_tokens, 99)


def sampling_row(text: Text) -> SamplingRow:
    return SamplingRow(
        text.parameters,
        text.token_ids,
        text.prompt_length,
        banned_ids=text.end_ids if text.remaining_min_tokens > 0 else (),
        logit_bias=text.logit_bias,
    )


def specified(text: Text) -> int:
    """The id that the CPU's sampler chooses."""
    batch = SamplingBatch((sampling_row(text),), len(text.logits))
    return int(sample(text.logits[None], batch).token_ids)


def logits_of(generator: random.Random, token_count: int) -> Tensor:
    """Spread or narrow, and often with many equals."""
    torch.manual_seed(generator.randrange(2**31))
    values = torch.randn(token_count) * generator.choice([0.0, 0.01, 1.0, 3.0, 3.0, 20.0])
    step = generator.choice([0.0, 0.0, 0.25, 2.0])
    return (values / step).round() * step if step else values


def parameters_of(generator: random.Random) -> SamplingParameters:
    """Each option often left alone."""

    def maybe(default: float, *values: float) -> float:
        return generator.choice([default, default, *values])

    draw = generator.uniform
    return SamplingParameters(
        temperature=maybe(1.0, 0.0, 0.01, 0.7, 5.0, draw(0.3, 2)),
        top_k=int(maybe(0, 1, 2, 17, 50, 299, 1000)),
        top_p=maybe(1.0, 1e-9, 0.5, 0.95, 0.999999, draw(0, 1) or 1.0),
        min_p=maybe(0.0, 1.0, 0.05, 0.001),
        typical_p=maybe(1.0, 1.0, 1e-9, 0.5, 0.95, draw(0, 1) or 1.0),
        repetition_penalty=maybe(1.0, 1.0, 1.0, 0.1, 1.3, 10.0),
        presence_penalty=maybe(0.0, 0.0, -2.0, 0.7),
        frequency_penalty=maybe(0.0, 0.0, -0.3, 2.0),
        seed=generator.randrange(2**64),
        sample_index=generator.randrange(2**32),
    )


def random_text(generator: random.Random, token_count: int) -> Text:
    length = generator.randrange(1, 40)
    ids = [generator.randrange(token_count) for _ in range(length)]
    biased = generator.sample(range(token_count + 5), generator.choice([0, 0, 1, 30]))
    return Text(
        logits_of(generator, token_count),
        tuple(ids),
        generator.randrange(1, length + 1),
        parameters_of(generator),
        tuple((token_id, generator.uniform(-9, 9)) for token_id in biased),
        tuple(generator.sample(range(token_count), generator.randrange(40))),
        generator.choice([0, 0, 3]),
    )
