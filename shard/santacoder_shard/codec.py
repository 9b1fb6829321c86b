"""shard.proto bytes to plain steps and back. Knows no gRPC, so the transport can change.

Bad bytes raise `FrameError`, whose text is one line: `<field.path>: <what is wrong>; got <value>`.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from santacoder.shard.v1 import shard_pb2
from santacoder_shard.step import (
    Admit,
    BlockGrant,
    Plan,
    Retire,
    Row,
    SamplingParameters,
    StepOutcome,
    TokenLogprobs,
)

PROTOCOL_VERSION = 1
_WORD_BYTES = 4
_Number = TypeVar("_Number", int, float)


class FrameError(ValueError):
    """A frame that is not as shard.proto says; its text is one line that names the field."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens the stream; fields as in shard.proto."""

    protocol_version: int
    epoch: int
    rank: int


@dataclass(frozen=True, slots=True)
class PlanFrame:
    """A plan and the epoch it was made for."""

    epoch: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Cuts the lease of this plan short."""

    plan_number: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the worker is; the age counts from the last step's end, or the stream's opening."""

    last_plan_number: int
    step_count: int
    age_seconds: float
    running: bool


def decode_request(data: bytes) -> Hello | PlanFrame | Interrupt:
    """Read one ExecuteRequest; FrameError if it is malformed, empty or of an unknown kind."""
    try:
        message = shard_pb2.ExecuteRequest.FromString(data)
    except DecodeError:
        raise FrameError(f"frame: not an ExecuteRequest; got {len(data)} bytes") from None
    kind = message.WhichOneof("frame")
    if kind == "plan":
        return PlanFrame(message.plan.epoch, _plan(message.plan))
    if kind == "interrupt":
        return Interrupt(message.interrupt.plan_number)
    if kind == "hello":
        hello = message.hello
        return Hello(hello.protocol_version, hello.epoch, hello.rank)
    raise FrameError("frame: missing; got none; allowed hello, plan, interrupt")


def decode_describe(data: bytes) -> bool:
    """Read a DescribeRequest: whether the tokenizer file is wanted."""
    try:
        return shard_pb2.DescribeRequest.FromString(data).include_tokenizer
    except DecodeError:
        raise FrameError(f"request: not a DescribeRequest; got {len(data)} bytes") from None


def encode_accepted(plan_number: int, digest: bytes) -> bytes:
    """ExecuteResponse that says a plan has arrived."""
    accepted = shard_pb2.PlanAccepted(plan_number=plan_number, digest=digest)
    return shard_pb2.ExecuteResponse(accepted=accepted).SerializeToString()


def encode_result(outcome: StepOutcome, digest: bytes, with_rows: bool) -> bytes:
    """ExecuteResponse for steps that have run; rows are left out on ranks other than 0."""
    result = shard_pb2.StepResult(
        plan_number=outcome.plan_number,
        first_step=outcome.first_step,
        steps_run=outcome.steps_run,
        final=outcome.final,
        device_time_us=round(outcome.device_seconds * 1e6),
        digest=digest,
    )
    if with_rows:
        result.row_token_counts = pack_ids([len(row.token_ids) for row in outcome.rows])
        result.token_ids = pack_ids([token for row in outcome.rows for token in row.token_ids])
        result.row_states = bytes(row.state for row in outcome.rows)
        result.logprobs.extend(_logprobs(outcome))
    return shard_pb2.ExecuteResponse(result=result).SerializeToString()


def encode_heartbeat(progress: Progress) -> bytes:
    """ExecuteResponse that says how far the worker is."""
    heartbeat = shard_pb2.Heartbeat(
        last_plan_number=progress.last_plan_number,
        step_count=progress.step_count,
        progress_age_us=round(progress.age_seconds * 1e6),
        phase=shard_pb2.PHASE_RUNNING if progress.running else shard_pb2.PHASE_IDLE,
    )
    return shard_pb2.ExecuteResponse(heartbeat=heartbeat).SerializeToString()


def encode_error(rank: int, plan_number: int, message: str) -> bytes:
    """ExecuteResponse that says the whole rank has failed."""
    error = shard_pb2.ShardError(rank=rank, plan_number=plan_number, message=message)
    return shard_pb2.ExecuteResponse(error=error).SerializeToString()


def pack_ids(ids: Iterable[int]) -> bytes:
    """Integers as little-endian uint32."""
    return _little_endian(array("I", ids)).tobytes()


def _plan(message: shard_pb2.Plan) -> Plan:
    if message.number == 0:
        raise FrameError("plan.number: missing; got 0; allowed 1 and above")
    copies = _ids(message.block_copies, "plan.block_copies")
    if len(copies) % 2:
        raise FrameError(
            f"plan.block_copies: not pairs; got {len(copies)} ids; allowed even counts"
        )
    rows = _rows(message.rows)
    _check_steps(message.num_steps, rows)
    return Plan(
        number=message.number,
        retires=tuple(Retire(item.sequence, item.generation) for item in message.retires),
        admits=tuple(_admit(item, f"plan.admits[{i}]") for i, item in enumerate(message.admits)),
        grants=tuple(
            BlockGrant(
                item.slot,
                item.first_index,
                _ids(item.block_ids, f"plan.block_grants[{i}].block_ids"),
            )
            for i, item in enumerate(message.block_grants)
        ),
        copies=tuple(zip(copies[::2], copies[1::2], strict=True)),
        rows=rows,
        num_steps=message.num_steps,
        time_cap_seconds=message.time_cap_us / 1e6,
        interruptible=message.interruptible,
        step_deadline_seconds=message.step_deadline_us / 1e6,
    )


def _check_steps(num_steps: int, rows: tuple[Row, ...]) -> None:
    if num_steps == 0 and rows:
        raise FrameError("plan.num_steps: rows without a step; got 0; allowed 1 and above")
    if num_steps > 1 and not all(row.sample for row in rows):
        raise FrameError(
            f"plan.num_steps: a lease in which a row does not sample; got {num_steps}; allowed 1"
        )


def _rows(message: shard_pb2.Rows) -> tuple[Row, ...]:
    if message.drafts:
        raise FrameError(f"plan.rows.drafts: not offered by this rank; got {len(message.drafts)}")
    slots = _ids(message.slots, "plan.rows.slots")
    columns = {
        "token_counts": _ids(message.token_counts, "plan.rows.token_counts"),
        "samples": message.samples,
        "kv_token_limits": _ids(message.kv_token_limits, "plan.rows.kv_token_limits"),
    }
    for name, column in columns.items():
        _check_length(f"plan.rows.{name}", len(column), len(slots))
    if message.samples.strip(b"\x00\x01"):
        raise FrameError("plan.rows.samples: not a flag; got a byte above 1; allowed 0, 1")
    if len(set(slots)) != len(slots):
        raise FrameError("plan.rows.slots: a slot twice in one plan")
    if 0 in columns["token_counts"]:
        raise FrameError("plan.rows.token_counts: no tokens; got 0; allowed 1 and above")
    return tuple(
        Row(slot, count, bool(sample), limit)
        for slot, count, sample, limit in zip(slots, *columns.values(), strict=True)
    )


def _admit(message: shard_pb2.Admit, path: str) -> Admit:
    token_ids = _words(message.token_ids, f"{path}.token_ids")
    for name, length in (
        ("prompt_length", message.prompt_length),
        ("computed_length", message.computed_length),
    ):
        if length > len(token_ids):
            raise FrameError(
                f"{path}.{name}: out of range; got {length}; allowed 0..{len(token_ids)}"
            )
    bias_ids = _ids(message.bias_ids, f"{path}.bias_ids")
    bias_values = _floats(message.bias_values, f"{path}.bias_values")
    _check_length(f"{path}.bias_values", len(bias_values), len(bias_ids))
    return Admit(
        sequence=message.sequence,
        generation=message.generation,
        slot=message.slot,
        token_ids=token_ids,
        prompt_length=message.prompt_length,
        computed_length=message.computed_length,
        sampling=_sampling(message.sampling),
        remaining_min_tokens=message.remaining_min_tokens,
        remaining_max_tokens=message.remaining_max_tokens,
        ignore_eos=message.ignore_eos,
        stop_ids=_ids(message.stop_ids, f"{path}.stop_ids"),
        logit_bias=tuple(zip(bias_ids, bias_values, strict=True)),
        logprob_count=message.logprob_count if message.wants_logprobs else None,
    )


def _sampling(message: shard_pb2.Sampling) -> SamplingParameters:
    return SamplingParameters(
        temperature=message.temperature,
        top_k=message.top_k,
        top_p=message.top_p,
        min_p=message.min_p,
        typical_p=message.typical_p,
        repetition_penalty=message.repetition_penalty,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        seed=message.seed,
        sample_index=message.sample_index,
    )


def _logprobs(outcome: StepOutcome) -> Iterable[shard_pb2.TokenLogprobs]:
    first = 0
    for row in outcome.rows:
        for offset, entry in enumerate(row.logprobs):
            yield _token_logprobs(first + offset, entry)
        first += len(row.token_ids)


def _token_logprobs(token_index: int, entry: TokenLogprobs) -> shard_pb2.TokenLogprobs:
    return shard_pb2.TokenLogprobs(
        token_index=token_index,
        chosen=entry.chosen,
        top_ids=pack_ids([token for token, _ in entry.top]),
        top_logprobs=_little_endian(array("f", [value for _, value in entry.top])).tobytes(),
    )


def _check_length(path: str, length: int, expected: int) -> None:
    if length != expected:
        raise FrameError(f"{path}: columns differ in length; got {length}; allowed {expected}")


def _ids(data: bytes, path: str) -> tuple[int, ...]:
    return tuple(_words(data, path))


def _words(data: bytes, path: str) -> array[int]:
    _check_words(data, path)
    return _little_endian(array("I", data))


def _floats(data: bytes, path: str) -> tuple[float, ...]:
    _check_words(data, path)
    return tuple(_little_endian(array("f", data)))


def _check_words(data: bytes, path: str) -> None:
    if len(data) % _WORD_BYTES:
        raise FrameError(f"{path}: not packed 32-bit words; got {len(data)} bytes")


def _little_endian(words: array[_Number]) -> array[_Number]:
    """The wire is little-endian whatever the machine; there and back are the same swap."""
    if sys.byteorder == "big":
        words.byteswap()
    return words
