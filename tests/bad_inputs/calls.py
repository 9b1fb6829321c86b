"""What a raw gRPC call is answered, in the table's words. Checks the form of every refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from bad_inputs.row import Place
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from running_service import WAIT_SECONDS

from santacoder.inference.v1 import inference_pb2 as pb

SERVICES = "/santacoder.inference.v1."
COMPLETE = f"{SERVICES}CompletionService/Complete"
STREAM = f"{SERVICES}CompletionService/StreamComplete"
SESSION = f"{SERVICES}CompletionService/CompletionSession"
TOKENIZE = f"{SERVICES}TokenizerService/Tokenize"
DETOKENIZE = f"{SERVICES}TokenizerService/Detokenize"
MODEL = f"{SERVICES}ModelService/GetModel"
OPENING = pb.CompletionSessionRequest(open=pb.SessionOpen()).SerializeToString()
MOST_MESSAGE_BYTES = 512


def unary(place: Place, path: str, data: bytes, **options: Any) -> str:
    """One message there, one back."""
    call: Any = place.channel.unary_unary(path)
    return answer_of(lambda: call(data, **{"timeout": WAIT_SECONDS, **options}))


def stream(place: Place, path: str, data: bytes) -> str:
    """One message there, as many back as there are."""
    call: Any = place.channel.unary_stream(path)
    return answer_of(lambda: list(call(data, timeout=WAIT_SECONDS)))


def converse(place: Place, frames: Iterable[bytes], path: str = SESSION) -> str:
    """A stream both ways, half-closed after the frames; a turn's error is the answer."""
    call: Any = place.channel.stream_stream(path)

    def talk() -> str | None:
        for data in call(iter(frames), timeout=WAIT_SECONDS):
            response = pb.CompletionSessionResponse.FromString(data)
            if response.HasField("error"):
                return said_of(response.error)
        return None

    return answer_of(talk)


def answer_of(call: Callable[[], object]) -> str:
    """OK, or status and reason; gRPC's own refusals have a status alone."""
    try:
        said = call()
    except grpc.RpcError as raised:
        error: Any = raised
        status = rpc_status.from_call(error)
        return error.code().name if status is None else said_of(status)
    return said if isinstance(said, str) else "OK"


def said_of(status: Any) -> str:
    """A status with details, which must be of the one form that all errors have."""
    message = status.message
    assert message.isascii() and message.isprintable() and len(message) <= MOST_MESSAGE_BYTES
    [code] = [code.name for code in grpc.StatusCode if code.value[0] == status.code]
    info, bad, named = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.RequestInfo(),
    )
    found = [
        kind for kind in (info, bad, named) for packed in status.details if packed.Unpack(kind)
    ]
    assert info in found and named in found and info.domain == "santacoder"
    for violation in bad.field_violations:
        assert violation.field and "; got " in violation.description
        assert "; allowed " in violation.description
    assert (code == "INVALID_ARGUMENT") == bool(bad.field_violations)
    return f"{code} {info.reason}"
