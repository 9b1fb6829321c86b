"""Chooses ids by the GPU's sampler in Triton's interpreter and by the CPU's, and compares.

`TRITON_INTERPRET=1 python tests/interpreted_sampler.py CHECK`; CHECK is one of those at the end.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import torch
from device_sampler import DeviceSampler, compare
from engine_driver import small_geometry
from sampled_texts import Text, logits_of, random_text, specified

from santacoder_shard.gpu_buffers import SlotState, StepBuffers
from santacoder_shard.gpu_choice import GpuChoice
from santacoder_shard.gpu_logprobs import ReportRequest, queue_reports
from santacoder_shard.gpu_sampling import sampling_of
from santacoder_shard.kernels.sampling.launch import Sampling
from santacoder_shard.sampler import token_logprobs
from santacoder_shard.step import SamplingParameters


def check_random() -> None:
    generator = random.Random(0)
    device = DeviceSampler(token_count=300, row_count=8, block=64)
    for _ in range(7):
        compare(device, [random_text(generator, 300) for _ in range(8)])


FILTERS: tuple[dict[str, float], ...] = (
    {"top_k": 1},
    {"top_k": 1200},
    {"top_k": 5000},
    {"top_p": 1e-9},
    {"top_p": 0.5},
    {"min_p": 1.0},
    {"typical_p": 0.5},
    {"typical_p": 1e-9},
    {"top_k": 1300, "top_p": 0.9, "typical_p": 0.9},
)


def check_equals() -> None:
    """More ids in one bin than are looked at together; most of them alike."""
    token_count = 2500
    device = DeviceSampler(token_count, row_count=2 * len(FILTERS), block=1024)
    level = torch.full((token_count,), -1.5)
    uneven = level.clone()
    uneven[::3] += 0.001
    base = SamplingParameters(temperature=1.0, seed=3)
    texts = [
        Text(logits, (1, 2), 1, replace(base, **options))  # type: ignore[arg-type]
        for options in FILTERS
        for logits in (level, uneven)
    ]
    compare(device, texts)


def check_bans() -> None:
    """Ending ids are banned, unless they are all there are; they come when the time has passed."""
    device = DeviceSampler(token_count=100, row_count=4, block=32)
    logits = torch.zeros(100)
    logits[40:60] = 30.0
    for end_ids in (tuple(range(40, 60)), tuple(range(100)), tuple(range(99))):
        for temperature in (0.0, 1.0):
            text = Text(logits, (5, 6), 1, SamplingParameters(temperature), (), end_ids, 2)
            compare(device, [text, replace(text, remaining_min_tokens=0)])
    text = Text(logits, (5, 6), 1, SamplingParameters(), (), tuple(range(40, 60)), 2)
    device.begin([text])
    ids = [device.choose([logits], Sampling.DRAW, min(step, 1))[0] for step in range(3)]
    assert ids == [0, 0, -1], "two are banned"


def check_history() -> None:
    """Penalties over many steps on the device alone, as over a text that the host has counted."""
    generator = random.Random(5)
    device = DeviceSampler(token_count=60, row_count=3, block=32)
    options: tuple[dict[str, float], ...] = (
        {"repetition_penalty": 1.7, "temperature": 0.7},
        {"presence_penalty": 1.5, "frequency_penalty": 0.4},
        {"repetition_penalty": 0.6, "frequency_penalty": -0.3, "temperature": 1.0, "top_k": 20},
    )
    texts = [
        replace(random_text(generator, 60), parameters=SamplingParameters(**chosen))  # type: ignore[arg-type]
        for chosen in options
    ]
    device.begin(texts)
    for step in range(12):
        texts = [replace(text, logits=logits_of(generator, 60)) for text in texts]
        ids = device.choose([text.logits for text in texts], Sampling.FILTER, min(step, 1))
        wanted = [specified(text) for text in texts]
        assert ids == wanted, f"step {step}"
        texts = [
            replace(
                text,
                token_ids=(*text.token_ids, token_id),
                remaining_min_tokens=max(0, text.remaining_min_tokens - 1),
            )
            for text, token_id in zip(texts, ids, strict=True)
        ]


def check_crowd() -> None:
    """A row alone is the row in a crowd, beside one that is not finite and one that did not run."""
    generator = random.Random(9)
    texts = [random_text(generator, 200) for _ in range(6)]
    texts = [replace(t, parameters=replace(t.parameters, temperature=0.8)) for t in texts]
    device = DeviceSampler(token_count=200, row_count=8, block=64)
    device.begin(texts)
    crowd = device.choose([text.logits for text in texts], Sampling.SURPRISE)
    sick = replace(texts[2], logits=texts[2].logits.clone())
    for bad in (float("nan"), float("inf"), float("-inf")):
        sick.logits[150] = bad
        device.begin([*texts[:2], sick, *texts[3:]])
        logits = [*(t.logits for t in texts[:2]), sick.logits, *(t.logits for t in texts[3:])]
        ids = device.choose([*logits, texts[0].logits], Sampling.SURPRISE)
        assert ids == [*crowd[:2], -1, *crowd[3:], -1], f"beside {bad}"
    for text, token_id in zip(texts, crowd, strict=True):
        for sampling in (sampling_of(text.slot()), Sampling.SURPRISE):
            device.begin([text])
            assert device.choose([text.logits], sampling) == [token_id], f"alone: {text}"


def check_logprobs() -> None:
    """Reports as the CPU makes them, with equals, and the same whoever else wants one."""
    token_count, row_count = 120, 4
    state = SlotState.empty(row_count, 2, torch.device("cpu"))
    buffers = StepBuffers(
        small_geometry(), state, 8, 4, token_count, torch.float32, torch.device("cpu")
    )
    torch.manual_seed(1)
    buffers.logits[:, :token_count] = 3 * torch.randn(row_count, token_count)
    buffers.logits[2:, :token_count] = (buffers.logits[2:, :token_count]).round()
    buffers.logits[:, token_count:] = 3e38
    GpuChoice(buffers)(torch.full((row_count,), -1, dtype=torch.int32), Sampling.LIKELIEST)
    chosen_ids = [5, 119, 0, 7]
    buffers.out_ids.copy_(torch.tensor(chosen_ids))
    requests = [ReportRequest(place, count) for place, count in ((3, 20), (0, 1), (2, 0))]
    (queued,) = queue_reports(buffers, requests)
    for request in requests:
        place = request.sample_place
        told = queued.arrived()[place]
        (alone,) = queue_reports(buffers, [request])
        logits = buffers.logits[place, :token_count]
        wanted = token_logprobs(logits, chosen_ids[place], request.top_count)
        assert list(dict(told.top)) == list(dict(wanted.top))
        values = [[report.chosen, *dict(report.top).values()] for report in (told, wanted)]
        # Exponentials and the order of their sum differ in the last places.
        torch.testing.assert_close(
            *(torch.tensor(line, dtype=torch.float64) for line in values), rtol=0, atol=1e-12
        )
        assert alone.arrived() == {place: told}


CHECKS = {
    "random": check_random,
    "equals": check_equals,
    "bans": check_bans,
    "history": check_history,
    "crowd": check_crowd,
    "logprobs": check_logprobs,
}


if __name__ == "__main__":
    with torch.inference_mode():
        CHECKS[sys.argv[1]]()
    sys.stdout.write("agrees\n")
