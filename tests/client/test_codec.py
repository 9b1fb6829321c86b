"""Types and messages have the same words, and what is not understood is said."""

from __future__ import annotations

from dataclasses import fields

import pytest
from google.protobuf.descriptor import Descriptor

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import ServerError, types
from santacoder_client._codec import decode_accepted, decode_finish_reason


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (types.Accepted, pb.Accepted.DESCRIPTOR),
        (types.Choice, pb.Choice.DESCRIPTOR),
        (types.Limits, pb.Limits.DESCRIPTOR),
        (types.ModelInfo, pb.GetModelResponse.DESCRIPTOR),
        (types.Output, pb.Output.DESCRIPTOR),
        (types.PositionLogprobs, pb.PositionLogprobs.DESCRIPTOR),
        (types.Sampling, pb.Sampling.DESCRIPTOR),
        (types.SpecialToken, pb.SpecialToken.DESCRIPTOR),
        (types.Stopping, pb.Stopping.DESCRIPTOR),
        (types.Timings, pb.Timings.DESCRIPTOR),
        (types.TokenLogprob, pb.TokenLogprob.DESCRIPTOR),
        (types.Usage, pb.Usage.DESCRIPTOR),
    ],
)
def test_a_type_has_every_field_of_its_message(kind: type, message: Descriptor) -> None:
    words = {field.name.replace("_duration", "_seconds") for field in message.fields}
    assert {field.name for field in fields(kind)} == words


@pytest.mark.parametrize(
    ("kind", "prefix", "numbers"),
    [
        (types.FinishReason, "FINISH_REASON_", pb.FinishReason),
        (types.FimOrder, "FIM_ORDER_", pb.FimOrder),
        (types.Priority, "PRIORITY_", pb.Priority),
        (types.TruncatePolicy, "TRUNCATE_POLICY_", pb.TruncatePolicy),
    ],
)
def test_an_enum_has_every_member_of_its_message_s(
    kind: type[types.FinishReason], prefix: str, numbers: type[pb.FinishReason]
) -> None:
    assert [prefix + member.name for member in kind] == numbers.keys()[1:]


def test_a_finish_reason_from_the_future_is_a_server_error() -> None:
    with pytest.raises(ServerError, match="FinishReason 99, which this client is too old to know"):
        decode_finish_reason(99)
    with pytest.raises(ServerError, match="no finish reason"):
        decode_finish_reason(0)


def test_priority_is_normal_where_a_server_says_nothing() -> None:
    assert decode_accepted(pb.Accepted()).priority is types.Priority.NORMAL
