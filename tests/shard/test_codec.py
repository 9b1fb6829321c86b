"""Frames keep what was put in them, and malformed ones end in one line that names the field."""

from __future__ import annotations

import math
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_frames import hello, interrupt, packed, unpacked

from santacoder.shard.v1 import shard_pb2
from santacoder_shard import codec
from santacoder_shard.step import (
    Admit,
    BlockGrant,
    Plan,
    Retire,
    Row,
    RowOutcome,
    RowState,
    SamplingParameters,
    StepOutcome,
    TokenLogprobs,
)

WORD = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**64 - 1)
FLOAT = st.floats(width=32, allow_nan=False)
DOUBLE = st.floats(allow_nan=False)
IDS = st.lists(WORD, max_size=6).map(tuple)

sampling_parameters = st.builds(
    SamplingParameters,
    temperature=DOUBLE,
    top_k=WORD,
    top_p=DOUBLE,
    min_p=DOUBLE,
    typical_p=DOUBLE,
    repetition_penalty=DOUBLE,
    presence_penalty=DOUBLE,
    frequency_penalty=DOUBLE,
    seed=LONG,
    sample_index=WORD,
)


@st.composite
def admits(draw: st.DrawFn) -> Admit:
    token_ids = draw(IDS)
    return Admit(
        sequence=draw(LONG),
        generation=draw(WORD),
        slot=draw(WORD),
        token_ids=array("I", token_ids),
        prompt_length=draw(st.integers(0, len(token_ids))),
        computed_length=draw(st.integers(0, len(token_ids))),
        sampling=draw(sampling_parameters),
        remaining_min_tokens=draw(WORD),
        remaining_max_tokens=draw(WORD),
        ignore_eos=draw(st.booleans()),
        stop_ids=draw(IDS),
        logit_bias=tuple(draw(st.lists(st.tuples(WORD, FLOAT), max_size=4))),
        logprob_count=draw(st.none() | WORD),
    )


rows = st.builds(
    Row, slot=WORD, token_count=st.integers(1, 2**32 - 1), sample=st.booleans(), kv_token_limit=WORD
)
plans = st.builds(
    Plan,
    number=st.integers(1, 2**64 - 1),
    retires=st.lists(st.builds(Retire, LONG, WORD), max_size=3).map(tuple),
    admits=st.lists(admits(), max_size=3).map(tuple),
    grants=st.lists(st.builds(BlockGrant, WORD, WORD, IDS), max_size=3).map(tuple),
    copies=st.lists(st.tuples(WORD, WORD), max_size=3).map(tuple),
    rows=st.lists(rows, max_size=5, unique_by=lambda row: row.slot).map(tuple),
    num_steps=st.just(1),
    time_cap_seconds=st.integers(0, 2**40).map(lambda us: us / 1e6),
    interruptible=st.booleans(),
    step_deadline_seconds=st.integers(0, 2**40).map(lambda us: us / 1e6),
)


def admit_message(admit: Admit) -> shard_pb2.Admit:
    sampling = {name: getattr(admit.sampling, name) for name in SamplingParameters.__slots__}
    bias_values = [value for _, value in admit.logit_bias]
    return shard_pb2.Admit(
        sequence=admit.sequence,
        generation=admit.generation,
        slot=admit.slot,
        token_ids=packed(admit.token_ids),
        prompt_length=admit.prompt_length,
        computed_length=admit.computed_length,
        sampling=shard_pb2.Sampling(**sampling),
        remaining_min_tokens=admit.remaining_min_tokens,
        remaining_max_tokens=admit.remaining_max_tokens,
        ignore_eos=admit.ignore_eos,
        stop_ids=packed(admit.stop_ids),
        bias_ids=packed(token for token, _ in admit.logit_bias),
        bias_values=struct.pack(f"<{len(bias_values)}f", *bias_values),
        wants_logprobs=admit.logprob_count is not None,
        logprob_count=admit.logprob_count or 0,
    )


def plan_message(plan: Plan, epoch: int) -> shard_pb2.Plan:
    return shard_pb2.Plan(
        epoch=epoch,
        number=plan.number,
        retires=[
            shard_pb2.Retire(sequence=item.sequence, generation=item.generation)
            for item in plan.retires
        ],
        admits=[admit_message(admit) for admit in plan.admits],
        block_grants=[
            shard_pb2.BlockGrant(
                slot=grant.slot, first_index=grant.first_index, block_ids=packed(grant.block_ids)
            )
            for grant in plan.grants
        ],
        block_copies=packed(block for pair in plan.copies for block in pair),
        rows=shard_pb2.Rows(
            slots=packed(row.slot for row in plan.rows),
            token_counts=packed(row.token_count for row in plan.rows),
            samples=bytes(row.sample for row in plan.rows),
            kv_token_limits=packed(row.kv_token_limit for row in plan.rows),
        ),
        num_steps=plan.num_steps,
        time_cap_us=round(plan.time_cap_seconds * 1e6),
        interruptible=plan.interruptible,
        step_deadline_us=round(plan.step_deadline_seconds * 1e6),
    )


@given(plans, LONG)
def test_a_plan_keeps_every_field_over_the_wire(plan: Plan, epoch: int) -> None:
    frame = shard_pb2.ExecuteRequest(plan=plan_message(plan, epoch)).SerializeToString()
    assert codec.decode_request(frame) == codec.PlanFrame(epoch, plan)


def test_hello_and_interrupt_keep_their_fields() -> None:
    assert codec.decode_request(hello(1, 9, 2)) == codec.Hello(1, 9, 2)
    assert codec.decode_request(interrupt(7)) == codec.Interrupt(7)


logprob_entries = st.builds(
    TokenLogprobs, FLOAT, st.lists(st.tuples(WORD, FLOAT), max_size=3).map(tuple)
)


@st.composite
def row_outcomes(draw: st.DrawFn) -> RowOutcome:
    token_ids = draw(IDS)
    wanted = draw(st.booleans())
    count = len(token_ids) if wanted else 0
    entries = draw(st.lists(logprob_entries, min_size=count, max_size=count))
    return RowOutcome(token_ids, draw(st.sampled_from(RowState)), tuple(entries))


outcomes = st.builds(
    StepOutcome,
    plan_number=LONG,
    first_step=WORD,
    steps_run=WORD,
    final=st.booleans(),
    rows=st.lists(row_outcomes(), max_size=4).map(tuple),
    device_seconds=st.integers(0, 2**40).map(lambda us: us / 1e6),
)


def decoded_rows(result: shard_pb2.StepResult) -> tuple[RowOutcome, ...]:
    ids = unpacked(result.token_ids)
    entries = {
        entry.token_index: TokenLogprobs(
            entry.chosen,
            tuple(
                zip(
                    unpacked(entry.top_ids),
                    struct.unpack(f"<{len(entry.top_logprobs) // 4}f", entry.top_logprobs),
                    strict=True,
                )
            ),
        )
        for entry in result.logprobs
    }
    rows, first = [], 0
    counts = unpacked(result.row_token_counts)
    for count, state in zip(counts, result.row_states, strict=True):
        places = range(first, first + count)
        logprobs = tuple(entries[place] for place in places if place in entries)
        rows.append(RowOutcome(ids[first : first + count], RowState(state), logprobs))
        first += count
    return tuple(rows)


@given(outcomes, st.binary(max_size=16))
def test_an_outcome_keeps_every_field_over_the_wire(outcome: StepOutcome, digest: bytes) -> None:
    frame = codec.encode_result(outcome, digest, with_rows=True)
    result = shard_pb2.ExecuteResponse.FromString(frame).result
    assert result.digest == digest
    assert outcome == StepOutcome(
        plan_number=result.plan_number,
        first_step=result.first_step,
        steps_run=result.steps_run,
        final=result.final,
        rows=decoded_rows(result),
        device_seconds=result.device_time_us / 1e6,
    )


def test_ranks_other_than_0_send_no_ids() -> None:
    outcome = StepOutcome(4, 0, 1, True, (RowOutcome((5,), RowState.RUNNING),), 0.001)
    frame = codec.encode_result(outcome, b"d", with_rows=False)
    result = shard_pb2.ExecuteResponse.FromString(frame).result
    assert (result.plan_number, result.final, result.digest) == (4, True, b"d")
    assert not result.token_ids and not result.row_states and not result.row_token_counts


def test_a_heartbeat_says_progress_and_phase() -> None:
    frame = codec.encode_heartbeat(codec.Progress(6, 40, 1.5, running=True))
    heartbeat = shard_pb2.ExecuteResponse.FromString(frame).heartbeat
    assert heartbeat == shard_pb2.Heartbeat(
        last_plan_number=6,
        step_count=40,
        progress_age_us=1_500_000,
        phase=shard_pb2.PHASE_RUNNING,
    )


GOOD_ROWS: dict[str, Any] = {
    "slots": packed([0, 1]),
    "token_counts": packed([1, 1]),
    "samples": b"\x01\x01",
    "kv_token_limits": packed([16, 16]),
}


def plan_frame(**fields: Any) -> bytes:
    defaults: dict[str, Any] = {
        "epoch": 1,
        "number": 1,
        "rows": shard_pb2.Rows(**GOOD_ROWS),
        "num_steps": 1,
    }
    message = shard_pb2.Plan(**{**defaults, **fields})
    return shard_pb2.ExecuteRequest(plan=message).SerializeToString()


def rows_frame(**columns: Any) -> bytes:
    return plan_frame(rows=shard_pb2.Rows(**{**GOOD_ROWS, **columns}))


def admit_frame(**fields: Any) -> bytes:
    return plan_frame(admits=[shard_pb2.Admit(**fields)])


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        (b"\xff\xff", "frame: not an ExecuteRequest"),
        (b"", "frame: missing"),
        (plan_frame(number=0), "plan.number: "),
        (plan_frame(block_copies=packed([1, 2, 3])), "plan.block_copies: "),
        (plan_frame(block_copies=b"\x01"), "plan.block_copies: "),
        (plan_frame(num_steps=0), "plan.num_steps: "),
        (rows_frame(slots=b"\x01\x02\x03"), "plan.rows.slots: "),
        (rows_frame(slots=packed([3, 3])), "plan.rows.slots: "),
        (rows_frame(token_counts=packed([1])), "plan.rows.token_counts: "),
        (rows_frame(token_counts=packed([1, 0])), "plan.rows.token_counts: "),
        (rows_frame(samples=b"\x01"), "plan.rows.samples: "),
        (rows_frame(samples=b"\x01\x02"), "plan.rows.samples: "),
        (rows_frame(kv_token_limits=b""), "plan.rows.kv_token_limits: "),
        (rows_frame(drafts=[shard_pb2.Draft(row=0)]), "plan.rows.drafts: "),
        (admit_frame(token_ids=b"\x01"), "plan.admits[0].token_ids: "),
        (admit_frame(token_ids=packed([1]), prompt_length=2), "plan.admits[0].prompt_length: "),
        (admit_frame(computed_length=1), "plan.admits[0].computed_length: "),
        (admit_frame(bias_ids=packed([1, 2])), "plan.admits[0].bias_values: "),
        (
            plan_frame(block_grants=[shard_pb2.BlockGrant(block_ids=b"\x01")]),
            "plan.block_grants[0].block_ids: ",
        ),
    ],
)
def test_a_malformed_frame_ends_in_one_line_that_names_the_field(frame: bytes, field: str) -> None:
    with pytest.raises(codec.FrameError) as caught:
        codec.decode_request(frame)
    assert str(caught.value).startswith(field)
    assert "\n" not in str(caught.value)


def test_a_lease_with_a_row_that_does_not_sample_is_refused() -> None:
    unsampled = shard_pb2.Rows(**{**GOOD_ROWS, "samples": b"\x01\x00"})
    with pytest.raises(codec.FrameError, match=r"^plan\.num_steps: a lease"):
        codec.decode_request(plan_frame(rows=unsampled, num_steps=4))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        codec.decode_request(data)
    except codec.FrameError as error:
        assert "\n" not in str(error)


def test_log_probabilities_of_minus_infinity_survive() -> None:
    entry = TokenLogprobs(-math.inf, ((1, -math.inf),))
    outcome = StepOutcome(1, 0, 1, True, (RowOutcome((1,), RowState.RUNNING, (entry,)),), 0.0)
    frame = codec.encode_result(outcome, b"", with_rows=True)
    assert decoded_rows(shard_pb2.ExecuteResponse.FromString(frame).result)[0].logprobs == (entry,)
