"""Plans to frames and results from frames."""

from __future__ import annotations

import struct

import pytest

from santacoder.shard.v1 import shard_pb2
from santacoder_router import codec
from santacoder_router.core import plan as core

SAMPLING = core.SamplingParameters(0.5, 3, 0.9, 0.1, 0.8, 1.5, 0.25, -0.5, 2**63 - 1, 4)
ADMIT = core.Admit(7, 2, 1, (5, 2**32 - 1), 1, 0, SAMPLING, 3, 9, True, (6,), ((8, -1.5),), None)


def plan_of(**parts: object) -> core.StepPlan:
    empty = {"retires": (), "admits": (), "grants": (), "copies": (), "rows": (), "num_steps": 1}
    return core.StepPlan(number=3, **{**empty, **parts})  # type: ignore[arg-type]


def decoded(plan: core.StepPlan) -> shard_pb2.Plan:
    frame = codec.encode_plan(plan, epoch=9, lease_seconds=0.0025, step_deadline_seconds=5.0)
    return shard_pb2.ExecuteRequest.FromString(frame).plan


def test_every_part_of_a_plan_is_in_its_frame() -> None:
    message = decoded(
        plan_of(
            retires=(core.Retire(1, 2),),
            admits=(ADMIT,),
            grants=(core.BlockGrant(1, 4, (10, 11)),),
            copies=(core.BlockCopy(20, 21), core.BlockCopy(22, 23)),
            rows=(core.Row(7, 1, 2, False, 32), core.Row(8, 3, 1, True, 48)),
        )
    )
    assert (message.epoch, message.number, message.num_steps) == (9, 3, 1)
    assert [(r.sequence, r.generation) for r in message.retires] == [(1, 2)]
    [grant] = message.block_grants
    assert (grant.slot, grant.first_index) == (1, 4)
    assert grant.block_ids == struct.pack("<2I", 10, 11)
    assert message.block_copies == struct.pack("<4I", 20, 21, 22, 23)
    assert message.rows.slots == struct.pack("<2I", 1, 3)
    assert message.rows.token_counts == struct.pack("<2I", 2, 1)
    assert message.rows.samples == b"\x00\x01"
    assert message.rows.kv_token_limits == struct.pack("<2I", 32, 48)
    assert message.step_deadline_us == 5_000_000


def test_every_field_of_an_admit_is_in_its_frame() -> None:
    [admit] = decoded(plan_of(admits=(ADMIT,))).admits
    assert (admit.sequence, admit.generation, admit.slot) == (7, 2, 1)
    assert admit.token_ids == struct.pack("<2I", 5, 2**32 - 1)
    assert (admit.prompt_length, admit.computed_length) == (1, 0)
    assert (admit.remaining_min_tokens, admit.remaining_max_tokens) == (3, 9)
    assert admit.ignore_eos
    assert admit.stop_ids == struct.pack("<I", 6)
    assert admit.bias_ids == struct.pack("<I", 8)
    assert admit.bias_values == struct.pack("<f", -1.5)
    sampling = admit.sampling
    for name in core.SamplingParameters.__slots__:
        assert getattr(sampling, name) == getattr(SAMPLING, name), name


@pytest.mark.parametrize(("count", "wanted"), [(None, (False, 0)), (0, (True, 0)), (5, (True, 5))])
def test_no_logprobs_and_none_beside_the_chosen_differ(
    count: int | None, wanted: tuple[bool, int]
) -> None:
    admit = ADMIT._replace(logprob_count=count)
    [message] = decoded(plan_of(admits=(admit,))).admits
    assert (message.wants_logprobs, message.logprob_count) == wanted


def test_only_a_lease_is_capped_and_interruptible() -> None:
    step, lease = decoded(plan_of(num_steps=1)), decoded(plan_of(num_steps=4))
    assert (step.time_cap_us, step.interruptible) == (0, False)
    assert (lease.time_cap_us, lease.interruptible) == (2500, True)


TOKEN_COUNT = 7


def result_message(**fields: object) -> shard_pb2.StepResult:
    standing: dict[str, object] = {
        "plan_number": 3,
        "first_step": 1,
        "steps_run": 2,
        "final": True,
        "row_token_counts": struct.pack("<3I", 2, 0, 1),
        "token_ids": struct.pack("<3I", 4, 5, 6),
        "row_states": bytes([1, 7, 2]),
        "device_time_us": 1500,
    }
    return shard_pb2.StepResult(**{**standing, **fields})  # type: ignore[arg-type]


def test_a_result_is_cut_into_rows() -> None:
    result = codec.decode_result(result_message(), 3, TOKEN_COUNT)
    assert [row.token_ids for row in result.rows] == [(4, 5), (), (6,)]
    states = [core.RowState.RUNNING, core.RowState.MASKED, core.RowState.END_OF_TEXT]
    assert [row.state for row in result.rows] == states
    assert (result.first_step, result.steps_run, result.final) == (1, 2, True)
    assert result.device_seconds == 0.0015


def logprobs(index: int, chosen: float) -> shard_pb2.TokenLogprobs:
    return shard_pb2.TokenLogprobs(
        token_index=index,
        chosen=chosen,
        top_ids=struct.pack("<I", 9),
        top_logprobs=struct.pack("<f", -0.5),
    )


def test_log_probabilities_go_to_the_rows_of_their_ids() -> None:
    message = result_message(logprobs=[logprobs(0, -1.0), logprobs(1, -2.0)])
    rows = codec.decode_result(message, 3, TOKEN_COUNT).rows
    assert [entry.chosen for entry in rows[0].logprobs] == [-1.0, -2.0]
    assert rows[0].logprobs[0].top == ((9, -0.5),)
    assert rows[2].logprobs == ()


@pytest.mark.fault("S15", "S16")
@pytest.mark.parametrize(
    "fields",
    [
        {"row_token_counts": struct.pack("<2I", 2, 1)},
        {"row_states": b"\x01\x01"},
        {"token_ids": struct.pack("<2I", 4, 5)},
        {"token_ids": b"\x01\x02\x03"},
        {"token_ids": struct.pack("<3I", 4, TOKEN_COUNT, 6)},
        {"token_ids": struct.pack("<3I", 4, 2**32 - 1, 6)},
        {"row_states": bytes([1, 7, 99])},
        {"row_states": bytes([1, 7, 0])},
        {"logprobs": [logprobs(3, -1.0)]},
        {"logprobs": [logprobs(0, -1.0)]},
        {"logprobs": [shard_pb2.TokenLogprobs(top_ids=bytes(4))]},
    ],
)
def test_a_result_that_contradicts_itself_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(codec.CodecError):
        codec.decode_result(result_message(**fields), 3, TOKEN_COUNT)


def test_hello_and_interrupt_carry_their_numbers() -> None:
    hello = shard_pb2.ExecuteRequest.FromString(codec.encode_hello(1, 2, 3)).hello
    assert (hello.protocol_version, hello.epoch, hello.rank) == (1, 2, 3)
    interrupt = shard_pb2.ExecuteRequest.FromString(codec.encode_interrupt(8)).interrupt
    assert interrupt.plan_number == 8


def test_a_description_keeps_every_field() -> None:
    message = shard_pb2.DescribeResponse(
        epoch=5, model_name="m", sentinel_ids=struct.pack("<2I", 1, 2), fim_enabled=True
    )
    description = codec.decode_description(message)
    assert (description.epoch, description.model_name) == (5, "m")
    assert description.sentinel_ids == (1, 2)
    assert description.fim_enabled
