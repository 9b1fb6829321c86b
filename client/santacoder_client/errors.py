"""What can go wrong with a request, as exceptions; knows nothing of how a request is sent.

    SantaCoderError
    ├── InvalidRequest          the request is wrong; sending it again will not help
    │   ├── AlreadyExists       its request_id is in use
    │   ├── FailedPrecondition  this server does not serve it (infill without sentinels)
    │   ├── Unauthenticated     the server wants a token, and this is none of its
    │   └── PermissionDenied    the token has no right to this
    ├── Overloaded              no room now; `retry_after` says when to come back
    ├── Unavailable             no server, or one that cannot serve now
    ├── DeadlineExceeded        `timeout` passed
    ├── Cancelled               cancelled or superseded before it was answered
    └── ServerError             the server's fault

Branch on the class, `code` and `reason`; never on the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from santacoder_client._handshake import in_plain_words

# A connection that broke, which gRPC tells otherwise: grpc.aio where it was just writing, C-core
# where a server that is ending drops a call. A cancel of our own has words to it.
_BROKEN = {
    (grpc.StatusCode.INTERNAL, "Internal error from Core"),
    (grpc.StatusCode.CANCELLED, ""),
    (grpc.StatusCode.CANCELLED, "CANCELLED"),
}
Detail = TypeVar("Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong."""

    field: str
    """Path of the field in the message, such as `sampling.top_k`."""
    description: str
    """What is wrong with it."""
    reason: str | None = None
    """The UPPER_SNAKE reason of this violation."""


class SantaCoderError(Exception):
    """Any failure of a request.

    Example:
        >>> try:
        ...     client.complete("x = ", top_k=-1)
        ... except SantaCoderError as error:
        ...     print(error.code.name, error.reason, error.violations)
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """The gRPC status code."""
        self.reason = reason
        """The server's UPPER_SNAKE reason; None where no server gave one."""
        self.violations = violations
        """Fields that are wrong."""
        self.retry_after = retry_after
        """Seconds after which to try again; None where trying again will not help."""
        self.request_id = request_id
        """The request's id, if the server had given it one."""
        self.metadata = dict(metadata or {})
        """Facts behind the reason, such as the two counts of a prompt that is too long."""


class InvalidRequest(SantaCoderError):
    """The request is wrong; sending it again will not help."""


class AlreadyExists(InvalidRequest):
    """The `request_id` is in use by a request that is still running."""


class FailedPrecondition(InvalidRequest):
    """This server does not serve it, such as infill on a model without sentinels."""


class Unauthenticated(InvalidRequest):
    """The server wants to know who calls, and the token is missing, unknown or expired."""


class PermissionDenied(InvalidRequest):
    """The token is good, and has no right to this."""


class Overloaded(SantaCoderError):
    """No room now; `retry_after` says when to come back, None that it will not help."""


class Unavailable(SantaCoderError):
    """No server there, or one that cannot serve now; `reason` is None if none was reached."""


class DeadlineExceeded(SantaCoderError):
    """`timeout` passed before the answer was complete."""


class Cancelled(SantaCoderError):
    """The request was cancelled or superseded before it was answered."""


class ServerError(SantaCoderError):
    """The server's fault."""


def error_from_rpc(error: grpc.RpcError) -> SantaCoderError:
    """The exception for a failed call."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):  # details that contradict the status are no details
        status = None
    if status is None:
        message = in_plain_words(error.details() or "")
        is_broken = (error.code(), message) in _BROKEN
        code = grpc.StatusCode.UNAVAILABLE if is_broken else error.code()
        status = status_pb2.Status(code=code.value[0], message=message)
    return error_from_status(status)


def error_from_status(status: status_pb2.Status) -> SantaCoderError:
    """The exception for a `google.rpc.Status`, wherever it came from."""
    info = _detail(status, error_details_pb2.ErrorInfo)
    retry = _detail(status, error_details_pb2.RetryInfo)
    code = _code(status.code)
    return _class_of(code)(
        status.message or code.name,
        code=code,
        reason=info.reason or None,
        violations=tuple(
            Violation(violation.field, violation.description, violation.reason or None)
            for violation in _detail(status, error_details_pb2.BadRequest).field_violations
        ),
        retry_after=(
            retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
        ),
        request_id=_detail(status, error_details_pb2.RequestInfo).request_id or None,
        metadata=info.metadata,
    )


@contextmanager
def rpc_errors() -> Iterator[None]:
    """The one border at which gRPC's exceptions become this tree's."""
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error


@contextmanager
def async_rpc_errors() -> Iterator[None]:
    """The same for awaited calls; grpc.aio raises CancelledError for a call's own cancel too."""
    try:
        with rpc_errors():
            yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Cancelled("the request was cancelled", code=grpc.StatusCode.CANCELLED) from error


def _detail(status: status_pb2.Status, kind: type[Detail]) -> Detail:
    """The first detail of a kind that can be read; an empty one if there is none."""
    found = kind()
    for packed in status.details:
        with suppress(DecodeError):
            if packed.Unpack(found):
                break
    return found


def _code(number: int) -> grpc.StatusCode:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code
    return grpc.StatusCode.UNKNOWN


def _class_of(code: grpc.StatusCode) -> type[SantaCoderError]:
    match code:
        case grpc.StatusCode.ALREADY_EXISTS:
            return AlreadyExists
        case grpc.StatusCode.FAILED_PRECONDITION:
            return FailedPrecondition
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied
        case (
            grpc.StatusCode.INVALID_ARGUMENT
            | grpc.StatusCode.OUT_OF_RANGE
            | grpc.StatusCode.NOT_FOUND
        ):
            return InvalidRequest
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Overloaded
        case grpc.StatusCode.UNAVAILABLE:
            return Unavailable
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded
        case grpc.StatusCode.CANCELLED:
            return Cancelled
        case _:
            return ServerError
