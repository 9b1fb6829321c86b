"""A row's logits, bit for bit, depend on no neighbour, chunk, lease, cache hit or block."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engine_driver import EngineDriver, prompt_ids, random_model, small_geometry

from santacoder_shard.model import SantaCoder
from santacoder_shard.step import BlockGrant, Row

GEOMETRIES = {
    "multi_query": small_geometry(),
    "multi_head": small_geometry(kv_head_count=4, activation="gelu_erf"),
    # The widths of the real model, where kernels are chosen that small shapes never meet.
    "real_width": small_geometry(
        layer_count=1, head_count=16, head_size=128, embedding_size=2048, inner_size=8192
    ),
}
PROMPT = prompt_ids(150, seed=7)
OUTPUT_COUNT = 12


@pytest.fixture(scope="module", params=GEOMETRIES)
def model(request: pytest.FixtureRequest) -> Iterator[SantaCoder]:
    before = torch.get_num_threads()
    torch.set_num_threads(2 if request.param == "real_width" else 1)
    yield random_model(GEOMETRIES[request.param])
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(model: SantaCoder) -> torch.Tensor:
    """Logits [OUTPUT_COUNT, V] of PROMPT run by itself, whole, a plan a token."""
    driver = EngineDriver(model)
    driver.generate(0, PROMPT, OUTPUT_COUNT)
    return driver.all_logits(0)


def decode(driver: EngineDriver, slot: int, count: int) -> None:
    for _ in range(count):
        driver.run([driver.row(slot)])


def test_alone_equals_among_31_others(model: SantaCoder, alone: torch.Tensor) -> None:
    driver = EngineDriver(model)
    others = [slot for slot in range(32) if slot != 13]
    for slot in others:
        driver.generate(slot, prompt_ids(3 + 3 * slot, seed=slot), 1)
    driver.start(13, PROMPT)
    # The prompt runs as one chunk in a step where the others decode.
    driver.run([driver.row(slot, 150 if slot == 13 else 1) for slot in range(32)])
    for _ in range(OUTPUT_COUNT - 1):
        driver.run([driver.row(slot) for slot in range(32)])
    assert torch.equal(driver.all_logits(13), alone)


def test_the_order_and_number_of_rows_change_nothing(
    model: SantaCoder, alone: torch.Tensor
) -> None:
    driver = EngineDriver(model)
    for slot in range(9):
        driver.generate(slot, PROMPT if slot == 4 else prompt_ids(20 * slot + 1, seed=slot), 1)
    for step in range(OUTPUT_COUNT - 1):
        slots = [slot for slot in range(9) if slot == 4 or slot >= step % 9]
        driver.run([driver.row(slot) for slot in (slots if step % 2 else reversed(slots))])
    assert torch.equal(driver.all_logits(4), alone)


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 15, 63, 64, 65, 149])
def test_chunked_equals_whole(model: SantaCoder, alone: torch.Tensor, chunk_size: int) -> None:
    if chunk_size <= 2 and model.geometry.inner_size > 1000:
        pytest.skip("slow at this width, and the chunks of 1 and 2 are run at the others")
    driver = EngineDriver(model)
    driver.generate(0, PROMPT, OUTPUT_COUNT, chunk_size)
    assert torch.equal(driver.all_logits(0), alone)


def test_cached_equals_uncached(model: SantaCoder, alone: torch.Tensor) -> None:
    driver = EngineDriver(model)
    driver.start(0, (*PROMPT[:128], 11, 12, 13))
    driver.prefill(0, 131, chunk_size=50)
    driver.retire(0)
    # The first 8 blocks are those of slot 0, which ran the same 128 ids.
    driver.start(1, PROMPT, blocks=[*range(8), *range(40, 56)], computed_length=128)
    driver.run([driver.row(1, 22)])
    decode(driver, 1, OUTPUT_COUNT - 1)
    assert torch.equal(driver.all_logits(1), alone)


def test_a_copied_block_equals_the_one_it_was_copied_from(
    model: SantaCoder, alone: torch.Tensor
) -> None:
    driver = EngineDriver(model)
    driver.generate(0, PROMPT, 1)
    driver.start(1, PROMPT, blocks=[*range(9), *range(40, 56)], computed_length=149)
    # Block 9 is half full and goes on being written by slot 0: slot 1 gets a copy of it.
    driver.run([driver.row(0), driver.row(1)], copies=((9, 40),))
    decode(driver, 1, OUTPUT_COUNT - 1)
    assert torch.equal(driver.all_logits(1), alone)


def test_preempted_equals_not(model: SantaCoder, alone: torch.Tensor) -> None:
    driver = EngineDriver(model)
    ids = driver.generate(0, PROMPT, 5)
    driver.retire(0)
    driver.generate(0, prompt_ids(90, seed=3), 3)
    driver.start(2, (*PROMPT, *ids[:5]), prompt_length=len(PROMPT), generation=2)
    driver.prefill(2, len(PROMPT) + 5, chunk_size=64)
    decode(driver, 2, OUTPUT_COUNT - 6)
    assert torch.equal(driver.all_logits(2), alone[5:])


@pytest.mark.parametrize("lease_lengths", [(11,), (1, 4, 6), (8, 3)])
def test_lease_lengths_change_nothing(
    model: SantaCoder, alone: torch.Tensor, lease_lengths: tuple[int, ...]
) -> None:
    driver = EngineDriver(model)
    driver.generate(0, PROMPT, 1)
    for num_steps in lease_lengths:
        driver.run([driver.row(0)], num_steps=num_steps)
    assert torch.equal(driver.all_logits(0), alone)


def test_scattered_blocks_granted_late_change_nothing(
    model: SantaCoder, alone: torch.Tensor
) -> None:
    driver = EngineDriver(model)
    driver.start(3, PROMPT, blocks=(77, 5, 300, 6, 2, 900, 41, 40, 39, 999))
    driver.prefill(3, 150, chunk_size=70)
    decode(driver, 3, 10)
    driver.run([Row(3, 1, True, 176)], grants=(BlockGrant(3, 10, (0,)),))
    assert torch.equal(driver.all_logits(3), alone)
