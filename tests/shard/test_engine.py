"""A plan is carried out as shard.proto says: order, states, limits, leases, copies, failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from engine_driver import (
    BLOCK_SIZE,
    END_OF_TEXT_ID,
    SENTINEL_ID,
    EngineDriver,
    admit,
    prompt_ids,
    random_model,
    small_geometry,
)

from santacoder_shard import sampler
from santacoder_shard.engine import Engine
from santacoder_shard.slots import PlanError
from santacoder_shard.step import BlockGrant, Retire, Row, RowState, SamplingParameters, StepOutcome

PROMPT = prompt_ids(20, seed=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def driver() -> EngineDriver:
    return EngineDriver(random_model(small_geometry()), slot_count=4, blocks_per_sequence=8)


def greedy_ids(count: int, **fields: Any) -> list[int]:
    """What PROMPT goes on with when nothing ends it."""
    driver = EngineDriver(random_model(small_geometry()), slot_count=1, blocks_per_sequence=8)
    driver.start(0, PROMPT, **fields)
    driver.prefill(0, len(PROMPT))
    driver.run([driver.row(0)], num_steps=count - 1)
    return driver.ids[0]


def states(outcomes: list[StepOutcome], row: int = 0) -> list[RowState]:
    return [outcome.rows[row].state for outcome in outcomes]


def force(token_id: int) -> tuple[tuple[int, float], ...]:
    """A bias that makes an id certain."""
    return ((token_id, 1e6),)


def test_an_engine_has_run_before_its_first_plan() -> None:
    model = random_model(small_geometry())
    ran: list[torch.Tensor] = []
    model.register_forward_hook(lambda _, arguments, output: ran.append(output))
    driver = EngineDriver(model, slot_count=1, blocks_per_sequence=8)
    assert [logits.shape for logits in ran] == [(1, 128), (1, 128)]
    driver.start(0, PROMPT)
    driver.prefill(0, len(PROMPT))
    assert driver.ids[0] == greedy_ids(2)[:1]


def test_a_lease_answers_every_step_and_only_the_last_is_final(driver: EngineDriver) -> None:
    driver.start(0, PROMPT)
    driver.prefill(0, len(PROMPT))
    outcomes = driver.run([driver.row(0)], num_steps=5)
    assert [(o.plan_number, o.first_step, o.steps_run) for o in outcomes] == [
        (3, step, 1) for step in range(5)
    ]
    assert [o.final for o in outcomes] == [False] * 4 + [True]
    assert driver.ids[0] == greedy_ids(6)
    assert all(o.device_seconds > 0 for o in outcomes)


def test_a_lease_may_begin_with_prompts(driver: EngineDriver) -> None:
    driver.start(0, PROMPT)
    outcomes = driver.run([driver.row(0, len(PROMPT))], num_steps=5)
    assert [o.first_step for o in outcomes] == [0, 1, 2, 3, 4]
    assert driver.ids[0] == greedy_ids(5)


def test_a_plan_that_only_retires_answers_once_without_rows(driver: EngineDriver) -> None:
    outcomes = driver.run(retires=(Retire(9, 1),))
    assert [(o.steps_run, o.final, o.rows) for o in outcomes] == [(0, True, ())]


def test_a_chunk_that_does_not_sample_has_no_ids_and_runs_on(driver: EngineDriver) -> None:
    driver.start(0, PROMPT)
    outcomes = driver.run([driver.row(0, 15, sample=False)])
    assert outcomes[0].rows[0].token_ids == () and states(outcomes) == [RowState.RUNNING]
    driver.run([driver.row(0, 5)])
    assert driver.ids[0] == greedy_ids(2)[:1]


@pytest.mark.parametrize("end_id", [END_OF_TEXT_ID, SENTINEL_ID])
def test_end_of_text_and_sentinels_end_a_row_which_is_masked_from_then_on(
    driver: EngineDriver, end_id: int
) -> None:
    driver.start(0, PROMPT, ignore_eos=False, logit_bias=force(end_id))
    driver.start(1, PROMPT)
    driver.run([driver.row(0, 20), driver.row(1, 20)])
    last = driver.run([driver.row(0), driver.row(1)], num_steps=3)
    assert driver.ids[0] == [end_id]
    assert states(driver.outcomes[2:]) == [RowState.END_OF_TEXT] + [RowState.MASKED] * 3
    assert driver.ids[1] == greedy_ids(4) and last[-1].final


def test_with_ignore_eos_no_id_ends_the_text_and_none_is_banned(driver: EngineDriver) -> None:
    driver.start(0, PROMPT, ignore_eos=True, remaining_min_tokens=9, logit_bias=force(SENTINEL_ID))
    driver.prefill(0, len(PROMPT))
    driver.run([driver.row(0)], num_steps=3)
    assert driver.ids[0] == [SENTINEL_ID] * 4
    assert states(driver.outcomes[1:]) == [RowState.RUNNING] * 4


def test_stop_ids_end_a_row_and_so_does_the_remaining_maximum(driver: EngineDriver) -> None:
    ids = greedy_ids(8)
    stop = next(i for i in range(1, 8) if ids[i] not in ids[:i])
    driver.start(0, PROMPT, stop_ids=(ids[stop],))
    driver.start(1, PROMPT, remaining_max_tokens=2)
    driver.run([driver.row(0, 20), driver.row(1, 20)])
    outcomes = driver.run([driver.row(0), driver.row(1)], num_steps=7)
    assert driver.ids[0] == ids[: stop + 1] and driver.ids[1] == ids[:2]
    assert states(outcomes)[stop - 1] is RowState.STOP_ID
    assert states(outcomes, row=1)[0] is RowState.LENGTH


def test_a_plan_ends_with_the_step_in_which_its_last_row_ends(driver: EngineDriver) -> None:
    driver.start(0, PROMPT, remaining_max_tokens=3)
    driver.prefill(0, len(PROMPT))
    outcomes = driver.run([driver.row(0)], num_steps=10)
    assert states(outcomes) == [RowState.RUNNING, RowState.LENGTH]
    assert outcomes[-1].final
    masked = driver.run([driver.row(0)], num_steps=10)
    assert states(masked) == [RowState.MASKED] and masked[0].final


def test_ending_ids_do_not_come_before_the_remaining_minimum(driver: EngineDriver) -> None:
    biases = ((END_OF_TEXT_ID, 4e6), (SENTINEL_ID, 3e6), (77, 2e6), (50, 1e6))
    fields: dict[str, Any] = {"ignore_eos": False, "stop_ids": (77,), "logit_bias": biases}
    driver.start(0, PROMPT, remaining_min_tokens=3, **fields)
    driver.prefill(0, len(PROMPT))
    driver.run([driver.row(0)], num_steps=9)
    assert driver.ids[0] == [50, 50, 50, END_OF_TEXT_ID]


def test_ids_that_do_not_exist_are_never_sampled() -> None:
    model = random_model(small_geometry())
    model.token_embedding[100:] *= 50.0
    driver = EngineDriver(model, slot_count=1, blocks_per_sequence=8, token_count=100)
    driver.start(0, prompt_ids(5, seed=2, token_count=100))
    driver.prefill(0, 5)
    driver.run([driver.row(0)], num_steps=60)
    assert int(driver.all_logits(0).argmax(-1).max()) >= 100
    assert max(driver.ids[0]) < 100


def test_a_row_without_room_waits_and_goes_on_when_blocks_come(driver: EngineDriver) -> None:
    driver.run(admits=(admit(0, PROMPT),), grants=(BlockGrant(0, 0, (0, 1)),))
    driver.start(1, PROMPT)
    driver.run([Row(0, 20, True, 32), driver.row(1, 20)])
    outcomes = driver.run([Row(0, 1, True, 32), driver.row(1)], num_steps=14)
    assert states(outcomes) == [RowState.RUNNING] * 12 + [RowState.KV_LIMIT] * 2
    assert len(driver.ids[0]) == 13 and len(driver.ids[1]) == 15
    driver.run([Row(0, 1, True, 48)], grants=(BlockGrant(0, 2, (31,)),))
    assert driver.ids[0] == greedy_ids(14)


def test_a_lease_in_which_no_row_has_room_ends_at_once(driver: EngineDriver) -> None:
    driver.start(0, PROMPT)
    driver.prefill(0, len(PROMPT))
    outcomes = driver.run([Row(0, 1, True, 21)], num_steps=9)
    assert states(outcomes) == [RowState.RUNNING, RowState.KV_LIMIT] and outcomes[-1].final


def test_an_interrupt_ends_a_lease_after_the_step_it_is_in(driver: EngineDriver) -> None:
    driver.start(0, PROMPT)
    driver.prefill(0, len(PROMPT))
    seen: list[StepOutcome] = []
    outcomes = driver.run(
        [driver.row(0)], num_steps=50, on_step=seen.append, interrupted=lambda: len(seen) >= 2
    )
    assert len(outcomes) == 3 and outcomes[-1].final
    steady = driver.run([driver.row(0)], num_steps=4, interruptible=False, interrupted=lambda: True)
    assert len(steady) == 4
    assert driver.ids[0] == greedy_ids(8)


def test_the_time_cap_ends_a_lease(driver: EngineDriver) -> None:
    driver.start(0, PROMPT)
    driver.prefill(0, len(PROMPT))
    assert len(driver.run([driver.row(0)], num_steps=50, time_cap_seconds=1e-9)) == 1
    assert len(driver.run([driver.row(0)], num_steps=5, time_cap_seconds=1e9)) == 5


@pytest.mark.fault("S7")
def test_a_row_that_is_not_finite_ends_alone_and_without_an_id() -> None:
    model = random_model(small_geometry())
    model.position_embedding[22] = torch.nan
    driver = EngineDriver(model, slot_count=2, blocks_per_sequence=8)
    driver.start(0, PROMPT[:10])
    driver.start(1, PROMPT)
    driver.run([driver.row(0, 10), driver.row(1, 20)])
    outcomes = driver.run([driver.row(0), driver.row(1)], num_steps=5)
    assert states(outcomes, row=1) == [
        RowState.RUNNING,
        RowState.RUNNING,
        RowState.NON_FINITE,
        RowState.MASKED,
        RowState.MASKED,
    ]
    assert driver.ids[1] == greedy_ids(3)
    alone = EngineDriver(random_model(small_geometry()), slot_count=1, blocks_per_sequence=8)
    alone.generate(0, PROMPT[:10], 6)
    assert torch.equal(driver.all_logits(0), alone.all_logits(0))


@pytest.mark.fault("S4")
def test_a_row_that_cannot_be_sampled_ends_alone_and_without_an_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[tuple[int, str]] = []
    model = random_model(small_geometry())
    driver = EngineDriver(model, slot_count=2, blocks_per_sequence=8)
    assert isinstance(driver.engine, Engine)
    driver.engine._on_row_failure = lambda sequence, error: failures.append((sequence, str(error)))
    driver.start(0, PROMPT[:10])
    driver.start(1, PROMPT, sampling=SamplingParameters(temperature=0.8, seed=4))
    driver.run([driver.row(0, 10), driver.row(1, 20)])

    def explode(*_: object) -> int:
        raise ZeroDivisionError("an option")

    monkeypatch.setattr(sampler, "_choose", explode)
    outcomes = driver.run([driver.row(0), driver.row(1)], num_steps=3)
    assert states(outcomes, row=1) == [RowState.MASKED] * 3
    assert states(outcomes) == [RowState.RUNNING] * 3
    assert [message for _, message in failures] == ["an option"]
    alone = EngineDriver(random_model(small_geometry()), slot_count=1, blocks_per_sequence=8)
    alone.generate(0, PROMPT[:10], 4)
    assert torch.equal(driver.all_logits(0), alone.all_logits(0))


@pytest.mark.fault("S7")
def test_blocks_that_held_nan_do_not_harm_their_next_owner() -> None:
    model = random_model(small_geometry())
    poisoned = EngineDriver(model, slot_count=2, blocks_per_sequence=8)
    position_row = model.position_embedding[40].clone()
    model.position_embedding[40] = torch.nan
    poisoned.start(0, prompt_ids(60, seed=4), blocks=range(8))
    poisoned.start(1, PROMPT, blocks=range(8, 16))
    poisoned.run([poisoned.row(0, 60), poisoned.row(1, 20)])
    assert states(poisoned.outcomes[2:]) == [RowState.NON_FINITE]
    assert states(poisoned.outcomes[2:], row=1) == [RowState.RUNNING]
    poisoned.retire(0)
    model.position_embedding[40] = position_row
    # Once in two blocks, where the slot's table held those with NaN before; once in all.
    for blocks in (range(2), range(8)):
        poisoned.ids[0] = []
        poisoned.start(0, PROMPT, blocks=blocks)
        poisoned.prefill(0, 20)
        poisoned.run([poisoned.row(0)], num_steps=3)
        assert poisoned.ids[0] == greedy_ids(4)
        poisoned.retire(0)


def test_retiring_is_idempotent_and_keyed_by_generation(driver: EngineDriver) -> None:
    driver.start(0, PROMPT, sequence=7, generation=2)
    driver.run(retires=(Retire(7, 1), Retire(7, 3), Retire(8, 2)))
    driver.prefill(0, len(PROMPT))
    assert driver.ids[0] == greedy_ids(2)[:1]
    driver.run(retires=(Retire(7, 2), Retire(7, 2)))
    driver.run(retires=(Retire(7, 2),))
    assert states(driver.run([driver.row(0)])) == [RowState.MASKED]


def test_a_plan_retires_before_it_admits_and_grants_before_it_copies(driver: EngineDriver) -> None:
    driver.start(0, PROMPT)
    driver.prefill(0, len(PROMPT))
    again = admit(0, PROMPT, sequence=50, computed_length=19)
    grants = (BlockGrant(0, 0, (20, 21)),)
    # Block 1 is copied after block 21 was granted, so the copy is what the row attends to.
    driver.run(
        [Row(0, 1, True, 32)],
        retires=(Retire(1, 1),),
        admits=(again,),
        grants=grants,
        copies=((0, 20), (1, 21)),
    )
    assert driver.ids[0] == greedy_ids(2)[:1] * 2
    assert torch.equal(*driver.logits[0])


def test_a_seed_gives_the_same_ids_alone_in_a_crowd_and_after_preemption(
    driver: EngineDriver,
) -> None:
    sampling = SamplingParameters(temperature=1.0, seed=11, repetition_penalty=1.2)
    alone = greedy_ids(10, sampling=sampling)
    assert alone != greedy_ids(10)
    for slot in range(3):
        driver.start(slot, PROMPT, sampling=replace(sampling, seed=10 + slot))
    driver.run([driver.row(slot, 20) for slot in range(3)])
    driver.run([driver.row(slot) for slot in range(3)], num_steps=4)
    driver.retire(1)
    driver.start(3, (*PROMPT, *alone[:5]), prompt_length=20, sampling=sampling)
    driver.prefill(3, 25)
    driver.run([driver.row(3)], num_steps=4)
    assert driver.ids[1] + driver.ids[3] == alone


def test_log_probabilities_come_with_the_rows_that_want_them(driver: EngineDriver) -> None:
    driver.start(0, PROMPT, logprob_count=2)
    driver.start(1, PROMPT)
    outcomes = driver.run([driver.row(0, 20), driver.row(1, 20)])
    wanted, unwanted = outcomes[0].rows
    expected = driver.logits[0][0][:120].double().log_softmax(-1)
    assert unwanted.logprobs == ()
    assert wanted.logprobs[0].chosen == pytest.approx(float(expected.max()), abs=1e-6)
    assert [i for i, _ in wanted.logprobs[0].top] == expected.topk(2).indices.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": [Row(4, 1, True, 16)]}, "plan.slot: no such slot; got 4; allowed 0 to 3"),
        ({"admits": (admit(0, PROMPT),)}, "plan.admits.slot: the slot is taken; got 0"),
        ({"admits": (admit(1, (3, 120)),)}, "unknown id in sequence 2; got 120; allowed 0 to 119"),
        ({"grants": (BlockGrant(0, 9, (1,)),)}, "first_index: does not append; got 9 to 10"),
        ({"grants": (BlockGrant(0, 8, (1,)),)}, "does not append; got 8 to 9; allowed 8 to 8"),
        ({"rows": [Row(0, 20, True, 129)]}, "got 129; allowed up to 128"),
        ({"rows": [Row(0, 21, True, 128)]}, "slot 0 has 0 of 20 tokens computed; got 21"),
        ({"rows": [Row(0, 10, True, 128)]}, "slot 0 has 0 of 20 tokens computed; got 10"),
        ({"rows": [Row(0, 10, False, 128)], "num_steps": 2}, "a lease needs rows that all sample"),
    ],
)
def test_a_plan_that_contradicts_the_rank_is_an_error_that_names_the_field(
    driver: EngineDriver, fields: dict[str, Any], message: str
) -> None:
    driver.start(0, PROMPT)
    with pytest.raises(PlanError, match=r"^plan\.[a-z_.]+: ") as caught:
        driver.run(**fields)
    assert message in str(caught.value)


def test_a_block_that_does_not_exist_is_an_error(driver: EngineDriver) -> None:
    with pytest.raises(PlanError, match="no such block; got 32; allowed 0 to 31"):
        driver.start(0, PROMPT, blocks=[32])


def test_positions_end_where_the_model_ends() -> None:
    geometry = small_geometry(context_token_count=24)
    driver = EngineDriver(random_model(geometry), slot_count=1, blocks_per_sequence=2)
    assert 2 * BLOCK_SIZE > 24
    driver.start(0, PROMPT)
    driver.prefill(0, 20)
    driver.run([driver.row(0)], num_steps=4)
    with pytest.raises(PlanError, match="past the model's positions; got position 24"):
        driver.run([driver.row(0)])
