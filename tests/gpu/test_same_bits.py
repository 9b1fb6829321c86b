"""A row's logits on the GPU, bit for bit, depend on no neighbour, chunk, lease, cache or graph.

`shard/NUMERICS.md` lists what that rests on.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engine_driver import prompt_ids, random_model, small_geometry
from gpu_driver import GpuDriver, on_device, real_model

from santacoder_shard.model import SantaCoder
from santacoder_shard.step import Row

GEOMETRIES = {
    "multi_query": small_geometry(),
    "multi_head": small_geometry(kv_head_count=4, activation="gelu_erf"),
}
WIDE = ("multi_query_of_real_width", "multi_head_of_real_width")
SLOT_COUNT = 256
PROMPT = prompt_ids(300, seed=7)
OUTPUT_COUNT = 24
WATCHED = 13
BATCH_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256)


@pytest.fixture(scope="module", params=[*GEOMETRIES, *WIDE])
def model(request: pytest.FixtureRequest) -> SantaCoder:
    if request.param in WIDE:
        return real_model(2, kv_head_count=1 if request.param == WIDE[0] else 16)
    return on_device(random_model(GEOMETRIES[request.param]))


@pytest.fixture(scope="module")
def used_driver(model: SantaCoder) -> GpuDriver:
    return GpuDriver(model, SLOT_COUNT, token_count=token_count(model))


def token_count(model: SantaCoder) -> int:
    """Ids that exist; the rows of the head behind them are padding."""
    return model.geometry.vocabulary_size - 8


@pytest.fixture
def driver(used_driver: GpuDriver) -> Iterator[GpuDriver]:
    """The same engine for all tests, empty; blocks hold whatever the tests before have left."""
    used_driver.watched = (WATCHED,)
    yield used_driver
    used_driver.clear()


@pytest.fixture(scope="module")
def alone(used_driver: GpuDriver) -> torch.Tensor:
    """Logits [OUTPUT_COUNT, V] of PROMPT run by itself, whole, a plan a token."""
    used_driver.watched = (WATCHED,)
    used_driver.generate(WATCHED, PROMPT, OUTPUT_COUNT)
    logits = used_driver.all_logits(WATCHED)
    used_driver.clear()
    assert torch.isfinite(logits).all()
    # Else a fault in attention or in the positions would not show.
    assert len(set(logits.argmax(1).tolist())) > OUTPUT_COUNT // 4
    return logits


def start_others(driver: GpuDriver, slots: range) -> None:
    for slot in slots:
        if slot != WATCHED:
            driver.generate(slot, prompt_ids(3 + 29 * slot % 200, seed=slot), 1)


def decode(driver: GpuDriver, slot: int, count: int) -> None:
    for _ in range(count):
        driver.run([driver.row(slot)])


def likeliest(driver: GpuDriver, logits: torch.Tensor) -> list[int]:
    """The ids that greedy sampling takes."""
    chosen: list[int] = logits[:, : driver.token_count].argmax(1).tolist()
    return chosen


def assert_equal(driver: GpuDriver, wanted: torch.Tensor, slot: int = WATCHED) -> None:
    logits = driver.all_logits(slot)
    differing = [step for step in range(len(logits)) if not torch.equal(logits[step], wanted[step])]
    assert len(logits) == len(wanted) and not differing, f"steps {differing} differ"


def test_a_row_is_the_same_in_every_batch(driver: GpuDriver, alone: torch.Tensor) -> None:
    start_others(driver, range(SLOT_COUNT))
    driver.generate(WATCHED, PROMPT, 1)
    for size in BATCH_SIZES:
        others = [slot for slot in range(SLOT_COUNT) if slot != WATCHED][: size - 1]
        # In another place each time.
        slots = [*others[: size // 2], WATCHED, *others[size // 2 :]]
        driver.run([driver.row(slot) for slot in slots])
    assert_equal(driver, alone[: 1 + len(BATCH_SIZES)])


def test_a_prompt_is_the_same_beside_others_that_decode(
    driver: GpuDriver, alone: torch.Tensor
) -> None:
    start_others(driver, range(64))
    driver.start(WATCHED, PROMPT)
    others = [slot for slot in range(64) if slot != WATCHED]
    driver.run([driver.row(WATCHED, len(PROMPT)), *map(driver.row, others)])
    for _ in range(4):
        driver.run([*map(driver.row, others), driver.row(WATCHED)])
    assert_equal(driver, alone[:5])


@pytest.mark.parametrize("chunk_size", [1, 7, 16, 63, 64, 65, 256, 299])
def test_chunked_equals_whole(driver: GpuDriver, alone: torch.Tensor, chunk_size: int) -> None:
    driver.generate(WATCHED, PROMPT, 4, chunk_size)
    assert_equal(driver, alone[:4])


def test_chunks_beside_other_prompts_equal_whole(driver: GpuDriver, alone: torch.Tensor) -> None:
    start_others(driver, range(8))
    driver.start(WATCHED, PROMPT)
    driver.start(20, prompt_ids(300, seed=20))
    for first in range(0, 300, 100):
        ends = first == 200
        driver.run(
            [driver.row(20, 100, ends), *map(driver.row, range(8)), driver.row(WATCHED, 100, ends)]
        )
    decode(driver, WATCHED, 3)
    assert_equal(driver, alone[:4])


def test_cached_equals_uncached(driver: GpuDriver, alone: torch.Tensor) -> None:
    driver.generate(0, (*PROMPT[:256], 11, 12, 13), 1)
    driver.retire(0)
    first = WATCHED * driver.blocks_per_sequence
    # The first 16 blocks are those of slot 0, which ran the same 256 ids.
    driver.start(WATCHED, PROMPT, [*range(16), *range(first, first + 16)], computed_length=256)
    driver.run([driver.row(WATCHED, 44)])
    decode(driver, WATCHED, 3)
    assert_equal(driver, alone[:4])


def test_a_copied_block_equals_the_one_it_was_copied_from(
    driver: GpuDriver, alone: torch.Tensor
) -> None:
    driver.generate(0, PROMPT, 1)
    first = WATCHED * driver.blocks_per_sequence
    driver.start(WATCHED, PROMPT, [*range(18), *range(first, first + 14)], computed_length=299)
    # Block 18 is half full and goes on being written by slot 0: the other gets a copy of it.
    driver.run([driver.row(0), driver.row(WATCHED)], copies=((18, first),))
    decode(driver, WATCHED, 3)
    assert_equal(driver, alone[:4])


def test_preempted_equals_not(driver: GpuDriver, alone: torch.Tensor) -> None:
    ids = driver.generate(WATCHED, PROMPT, 5)
    driver.retire(WATCHED)
    driver.generate(WATCHED, prompt_ids(90, seed=3), 3)
    driver.retire(WATCHED)
    driver.logits.clear()
    again = (*PROMPT, *ids[:5])
    driver.start(WATCHED, again, prompt_length=len(PROMPT), generation=2)
    driver.prefill(WATCHED, len(again), chunk_size=64)
    decode(driver, WATCHED, 4)
    assert_equal(driver, alone[5:10])


@pytest.mark.parametrize("lengths", [(8, 8), (1, 4, 3, 8), (16,)], ids=str)
@pytest.mark.parametrize("crowd", [1, 32, 256])
def test_leases_change_nothing(
    driver: GpuDriver, alone: torch.Tensor, lengths: tuple[int, ...], crowd: int
) -> None:
    slots = [slot for slot in range(crowd) if slot != WATCHED]
    start_others(driver, range(crowd))
    driver.generate(WATCHED, PROMPT, 1)
    for length in lengths:
        driver.lease([*slots[: crowd - 1], WATCHED], length)
    # What the lease has put into the cache shows in the step behind it.
    driver.run([driver.row(WATCHED)])
    last = 1 + sum(lengths)
    assert driver.ids[WATCHED] == likeliest(driver, alone[: last + 1])
    assert torch.equal(driver.logits[WATCHED][-1], alone[last])


def test_a_lease_that_begins_with_the_prompt_changes_nothing(
    driver: GpuDriver, alone: torch.Tensor
) -> None:
    start_others(driver, range(4))
    driver.start(WATCHED, PROMPT)
    rows: list[Row] = [*map(driver.row, range(4)), driver.row(WATCHED, len(PROMPT))]
    driver.run(rows, num_steps=8)
    driver.run([driver.row(WATCHED)])
    assert driver.ids[WATCHED] == likeliest(driver, alone[:9])
    assert torch.equal(driver.logits[WATCHED][-1], alone[8])


def test_eager_equals_graph(model: SantaCoder, alone: torch.Tensor) -> None:
    eager = GpuDriver(model, 16, token_count=token_count(model), is_eager=True)
    eager.watched = (WATCHED,)
    eager.generate(WATCHED, PROMPT, 4, chunk_size=100)
    start_others(eager, range(8))
    for _ in range(4):
        eager.run([*map(eager.row, range(8)), eager.row(WATCHED)])
    assert_equal(eager, alone[:8])
