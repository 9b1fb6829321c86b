"""A seed gives the same ids on the GPU alone and in a crowd, in chunks and leases, in any slot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engine_driver import prompt_ids, random_model, small_geometry
from gpu_driver import GpuDriver, on_device

from santacoder_shard.step import SamplingParameters

SLOT_COUNT, OUTPUT_COUNT = 64, 24
PROMPT = prompt_ids(70, seed=5)
OPTIONS: dict[str, dict[str, Any]] = {
    "temperature": {"sampling": SamplingParameters(temperature=1.0, seed=1)},
    "top_k": {"sampling": SamplingParameters(temperature=1.5, top_k=20, seed=2)},
    "top_p": {"sampling": SamplingParameters(temperature=1.2, top_p=0.9, seed=3)},
    "min_p": {"sampling": SamplingParameters(temperature=1.2, min_p=0.05, seed=2**63 - 1)},
    "typical_p": {"sampling": SamplingParameters(temperature=1.0, typical_p=0.9, seed=5)},
    "second_answer": {"sampling": SamplingParameters(temperature=1.0, seed=1, sample_index=1)},
    "penalties": {
        "sampling": SamplingParameters(
            repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=-0.4
        )
    },
    "sampled_with_penalties": {
        "sampling": SamplingParameters(temperature=0.8, top_p=0.95, frequency_penalty=1.0, seed=6)
    },
    "bias": {"logit_bias": ((17, 3.0), (18, -100.0))},
    "logprobs": {"logprob_count": 5},
    "minimum": {"ignore_eos": False, "remaining_min_tokens": OUTPUT_COUNT, "stop_ids": (20, 21)},
    "greedy": {},
}


@pytest.fixture(scope="module")
def used_driver() -> GpuDriver:
    # Flat enough that many ids are likely.
    model = random_model(small_geometry())
    model.token_embedding.data *= 0.2
    return GpuDriver(on_device(model), SLOT_COUNT)


@pytest.fixture
def driver(used_driver: GpuDriver) -> Iterator[GpuDriver]:
    yield used_driver
    used_driver.clear()


def run_alone(driver: GpuDriver, slot: int, fields: dict[str, Any]) -> tuple[object, ...]:
    driver.start(slot, PROMPT, **fields)
    driver.prefill(slot, len(PROMPT))
    for _ in range(OUTPUT_COUNT - 1):
        driver.run([driver.row(slot)])
    return said(driver, slot)


def said(driver: GpuDriver, slot: int) -> tuple[object, ...]:
    """Every id and every bit of every log probability."""
    return tuple(driver.ids[slot]), tuple(driver.logprobs[slot])


@pytest.fixture(scope="module")
def alone(used_driver: GpuDriver) -> dict[str, tuple[object, ...]]:
    answers = {}
    for name, fields in OPTIONS.items():
        answers[name] = run_alone(used_driver, 0, fields)
        used_driver.clear()
    return answers


def test_options_choose_differently(alone: dict[str, tuple[object, ...]]) -> None:
    ids = [answer[0] for answer in alone.values()]
    # Greedy, its log probabilities and its minimum are one and the same.
    assert len(set(ids)) >= len(OPTIONS) - 2
    assert alone["logprobs"][0] == alone["greedy"][0]


@pytest.mark.parametrize("name", OPTIONS)
def test_another_slot_changes_nothing(
    driver: GpuDriver, alone: dict[str, tuple[object, ...]], name: str
) -> None:
    assert run_alone(driver, 37, OPTIONS[name]) == alone[name]


@pytest.mark.parametrize("lease", [1, 8])
def test_a_crowd_of_all_options_changes_nothing(
    driver: GpuDriver, alone: dict[str, tuple[object, ...]], lease: int
) -> None:
    names = list(OPTIONS) * (SLOT_COUNT // len(OPTIONS))
    slots = range(len(names))
    for slot, name in enumerate(names):
        driver.start(slot, PROMPT, **OPTIONS[name])
        driver.prefill(slot, len(PROMPT), chunk_size=7 + slot)
    left = OUTPUT_COUNT - 1
    while left:
        count = min(lease, left)
        # Backwards every other time.
        driver.lease(slots if left % 2 else slots[::-1], count)
        left -= count
    for slot, name in enumerate(names):
        assert said(driver, slot) == alone[name], f"{name} in slot {slot}"


def test_preempted_equals_not(driver: GpuDriver, alone: dict[str, tuple[object, ...]]) -> None:
    for slot, (name, fields) in enumerate(OPTIONS.items()):
        wanted = alone[name][0]
        assert isinstance(wanted, tuple)
        # What is left of a minimum shrinks with what has come.
        left = max(0, fields.get("remaining_min_tokens", 0) - 10)
        again = fields | {"prompt_length": len(PROMPT), "remaining_min_tokens": left}
        driver.start(slot, (*PROMPT, *wanted[:10]), **again)
        driver.prefill(slot, len(PROMPT) + 10, chunk_size=64)
        for _ in range(OUTPUT_COUNT - 11):
            driver.run([driver.row(slot)])
        assert tuple(driver.ids[slot]) == wanted[10:], name
