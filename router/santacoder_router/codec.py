"""Turns core plans into shard.proto frames and shard.proto results into core results.

Knows the wire and the plan, and nothing of streams, ranks or time. Lists of integers are packed
little-endian uint32. Every count that came over the wire is checked before it is used.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Sequence

from santacoder.shard.v1 import shard_pb2
from santacoder_router.core import plan as core
from santacoder_router.handshake import Description

# A look-up: calling the enumeration costs as much as the rest of a row.
ROW_STATES = {int(state): state for state in core.RowState}


class CodecError(Exception):
    """A frame from a shard that contradicts itself or the plan it answers."""


def pack_uint32(values: Sequence[int]) -> bytes:
    """Packs integers of 0 to 2^32 - 1 as little-endian uint32."""
    return struct.pack(f"<{len(values)}I", *values)


def unpack_uint32(data: bytes) -> tuple[int, ...]:
    """Reads packed little-endian uint32; raises CodecError if the length is no multiple of four."""
    if len(data) % 4:
        raise CodecError(f"packed integers: {len(data)} bytes is no multiple of 4")
    return struct.unpack(f"<{len(data) // 4}I", data)


def encode_hello(protocol_version: int, epoch: int, rank: int) -> bytes:
    """The frame that opens a rank's stream."""
    hello = shard_pb2.Hello(protocol_version=protocol_version, epoch=epoch, rank=rank)
    return shard_pb2.ExecuteRequest(hello=hello).SerializeToString()


def encode_interrupt(plan_number: int) -> bytes:
    """The frame that cuts the lease of a plan short."""
    interrupt = shard_pb2.Interrupt(plan_number=plan_number)
    return shard_pb2.ExecuteRequest(interrupt=interrupt).SerializeToString()


def encode_plan(
    plan: core.StepPlan, epoch: int, lease_seconds: float, step_deadline_seconds: float
) -> bytes:
    """The frame of a plan, the same for every rank. `lease_seconds` caps a lease of many steps."""
    # Filled in place, here and below: a message that is handed to another's constructor is copied.
    frame = shard_pb2.ExecuteRequest()
    message = frame.plan
    message.epoch = epoch
    message.number = plan.number
    message.num_steps = plan.num_steps
    message.step_deadline_us = round(step_deadline_seconds * 1e6)
    if plan.num_steps > 1:
        message.time_cap_us = round(lease_seconds * 1e6)
        message.interruptible = True
    for retire in plan.retires:
        message.retires.add(sequence=retire.sequence, generation=retire.generation)
    for admit in plan.admits:
        _put_admit(admit, message.admits.add())
    for grant in plan.grants:
        block_ids = pack_uint32(grant.block_ids)
        message.block_grants.add(
            slot=grant.slot, first_index=grant.first_index, block_ids=block_ids
        )
    if plan.copies:
        ends = [end for copy in plan.copies for end in (copy.source, copy.target)]
        message.block_copies = pack_uint32(ends)
    _put_rows(plan.rows, message.rows)
    return frame.SerializeToString()


def _put_rows(rows: Sequence[core.Row], message: shard_pb2.Rows) -> None:
    message.slots = pack_uint32([row.slot for row in rows])
    message.token_counts = pack_uint32([row.token_count for row in rows])
    message.samples = bytes([row.sample for row in rows])
    message.kv_token_limits = pack_uint32([row.kv_token_limit for row in rows])


def _put_admit(admit: core.Admit, message: shard_pb2.Admit) -> None:
    message.sequence = admit.sequence
    message.generation = admit.generation
    message.slot = admit.slot
    message.token_ids = pack_uint32(admit.token_ids)
    message.prompt_length = admit.prompt_length
    message.computed_length = admit.computed_length
    message.remaining_min_tokens = admit.remaining_min_tokens
    message.remaining_max_tokens = admit.remaining_max_tokens
    message.ignore_eos = admit.ignore_eos
    if admit.stop_ids:
        message.stop_ids = pack_uint32(admit.stop_ids)
    if admit.logit_bias:
        ids, values = zip(*admit.logit_bias, strict=True)
        message.bias_ids = pack_uint32(ids)
        message.bias_values = struct.pack(f"<{len(values)}f", *values)
    if admit.logprob_count is not None:
        message.wants_logprobs = True
        message.logprob_count = admit.logprob_count
    _put_sampling(admit.sampling, message.sampling)


def _put_sampling(sampling: core.SamplingParameters, message: shard_pb2.Sampling) -> None:
    message.temperature = sampling.temperature
    message.top_k = sampling.top_k
    message.top_p = sampling.top_p
    message.min_p = sampling.min_p
    message.typical_p = sampling.typical_p
    message.repetition_penalty = sampling.repetition_penalty
    message.presence_penalty = sampling.presence_penalty
    message.frequency_penalty = sampling.frequency_penalty
    message.seed = sampling.seed
    message.sample_index = sampling.sample_index


def decode_result(
    message: shard_pb2.StepResult, row_count: int, token_count: int
) -> core.StepResult:
    """Rank 0's answer to a plan of `row_count` rows, with ids from 0 to `token_count` - 1.

    Raises CodecError if columns disagree or an id does not exist.
    """
    counts = unpack_uint32(message.row_token_counts)
    token_ids = unpack_uint32(message.token_ids)
    states = message.row_states
    if len(counts) != row_count or len(states) != row_count:
        raise CodecError(
            f"plan {message.plan_number}: {len(counts)} counts and {len(states)} states"
            f" for {row_count} rows"
        )
    if sum(counts) != len(token_ids):
        raise CodecError(
            f"plan {message.plan_number}: {len(token_ids)} ids where the rows count {sum(counts)}"
        )
    if token_ids and max(token_ids) >= token_count:
        raise CodecError(
            f"plan {message.plan_number}: unknown id; got {max(token_ids)};"
            f" allowed 0..{token_count - 1}"
        )
    logprobs = _logprobs(message.logprobs, len(token_ids))
    rows = []
    start = 0
    for count, state in zip(counts, states, strict=True):
        end = start + count
        rows.append(_row_result(token_ids[start:end], state, range(start, end), logprobs))
        start = end
    return core.StepResult(
        plan_number=message.plan_number,
        first_step=message.first_step,
        steps_run=message.steps_run,
        final=message.final,
        rows=tuple(rows),
        device_seconds=message.device_time_us / 1e6,
    )


def _row_result(
    token_ids: tuple[int, ...],
    state: int,
    places: range,
    logprobs: dict[int, core.TokenLogprobs],
) -> core.RowResult:
    row_state = ROW_STATES.get(state)
    if row_state is None:
        raise CodecError(f"row state: unknown number {state}")
    of_row = tuple(logprobs[place] for place in places if place in logprobs) if logprobs else ()
    if of_row and len(of_row) != len(token_ids):
        raise CodecError(f"log probabilities: {len(of_row)} for {len(token_ids)} ids of a row")
    return core.RowResult(token_ids, row_state, of_row)


def _logprobs(
    messages: Iterable[shard_pb2.TokenLogprobs], token_count: int
) -> dict[int, core.TokenLogprobs]:
    found: dict[int, core.TokenLogprobs] = {}
    for message in messages:
        if message.token_index >= token_count:
            raise CodecError(f"log probabilities: index {message.token_index} of {token_count}")
        top_ids = unpack_uint32(message.top_ids)
        if len(message.top_logprobs) != 4 * len(top_ids):
            raise CodecError("log probabilities: as many values as ids are needed")
        values = struct.unpack(f"<{len(top_ids)}f", message.top_logprobs)
        pairs = tuple(zip(top_ids, values, strict=True))
        found[message.token_index] = core.TokenLogprobs(message.chosen, pairs)
    return found


def decode_description(message: shard_pb2.DescribeResponse) -> Description:
    """What a rank says about itself; raises CodecError if its id list is no list."""
    plain = {
        field.name: getattr(message, field.name)
        for field in dataclasses.fields(Description)
        if field.name != "sentinel_ids"
    }
    return Description(sentinel_ids=unpack_uint32(message.sentinel_ids), **plain)
