"""Router errors: the tree, and the `google.rpc.Status` of each; `reasons.py` lists the reasons.

    RouterError
    |-- InvalidRequest      INVALID_ARGUMENT      the request is wrong; carries every violation
    |-- Unauthenticated     UNAUTHENTICATED       nobody knows who calls
    |-- PermissionDenied    PERMISSION_DENIED     the caller is known, and may not do this
    |-- Unsupported         FAILED_PRECONDITION   right in itself, but not with this checkpoint
    |-- AlreadyExists       ALREADY_EXISTS        its name is taken
    |-- Stalled             CANCELLED             nobody reads the answer
    |-- Overloaded          RESOURCE_EXHAUSTED    no room or time for it now
    |-- Unavailable         UNAVAILABLE           nobody is there to run it
    |-- DeadlineExceeded    DEADLINE_EXCEEDED     too late
    `-- InternalError       INTERNAL              our fault; shows an id, the log has the rest

Refuses to know prompts, completions, paths and stack traces: none may appear in a message.
Clients branch on code and reason, never on the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from santacoder_router.reasons import Reason as Reason

ERROR_DOMAIN = "santacoder"
MESSAGE_BYTE_LIMIT = 512
VALUE_CHARACTER_LIMIT = 64
VIOLATION_LIMIT = 16
# Details travel as one metadata value, in base64; clients take 8 KiB of metadata in all.
VIOLATIONS_BYTE_LIMIT = 3072


def shown(value: object) -> str:
    """A value as messages show it: ASCII, escaped, on one line, at most 64 characters."""
    text = str(value)[: VALUE_CHARACTER_LIMIT + 1].encode("unicode_escape").decode("ascii")
    if len(text) <= VALUE_CHARACTER_LIMIT:
        return text
    return text[: VALUE_CHARACTER_LIMIT - 3] + "..."


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong. `got` may be the caller's; all else is our own words.

    `path` is the field's, from the request down. `metadata` goes into `ErrorInfo` with the reason.
    """

    path: str
    reason: Reason
    what: str
    got: object
    allowed: str
    advice: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """All but the path."""
        text = f"{self.what}; got {shown(self.got)}; allowed {self.allowed}"
        return f"{text}. {self.advice}" if self.advice else text

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class RouterError(Exception):
    """An error with a gRPC status. Raise one of its children.

    `metadata` goes into `ErrorInfo`; `retry_after_seconds` into `RetryInfo`, and says that the same
    call may succeed then. Without it the call should not be repeated.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, object] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        self.reason = reason
        self.message = _one_line(message)
        self.metadata = {key: shown(value) for key, value in (metadata or {}).items()}
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.message)

    def to_status(self, request_id: str) -> status_pb2.Status:
        """The error as it goes over the wire. `request_id` is the valid or the server-made id."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        info = error_details_pb2.ErrorInfo(
            reason=self.reason, domain=ERROR_DOMAIN, metadata=self.metadata
        )
        status.details.add().Pack(info)
        if self.retry_after_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_after_seconds * 1e9))
            status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status.details.add().Pack(error_details_pb2.RequestInfo(request_id=shown(request_id)))
        return status


class InvalidRequest(RouterError):
    """The request breaks the contract. The first violation gives message and reason."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[Violation]) -> None:
        if not violations:
            raise ValueError("an invalid request has at least one violation")
        self.violations = tuple(violations)
        first, others = self.violations[0], len(self.violations) - 1
        message = f"{first} (and {others} more)" if others else str(first)
        super().__init__(first.reason, message, metadata=first.metadata)

    def to_status(self, request_id: str) -> status_pb2.Status:
        """As for every error, with a `BadRequest` of the first 16 violations, fewer if long."""
        status = super().to_status(request_id)
        bad_request = error_details_pb2.BadRequest()
        for violation in self.violations[:VIOLATION_LIMIT]:
            bad_request.field_violations.add(
                field=_one_line(violation.path),
                description=_one_line(violation.problem),
                reason=violation.reason,
            )
            if bad_request.ByteSize() > VIOLATIONS_BYTE_LIMIT:
                del bad_request.field_violations[-1]
                break
        status.details.add().Pack(bad_request)
        return status


class Unauthenticated(RouterError):
    """The call brings no token that is good."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(RouterError):
    """The caller has no right to the method."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unsupported(RouterError):
    """The request is right in itself, but not with this checkpoint or these settings."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AlreadyExists(RouterError):
    """The request's id belongs to one that is running."""

    code = grpc.StatusCode.ALREADY_EXISTS


class Stalled(RouterError):
    """The caller does not read its answer."""

    code = grpc.StatusCode.CANCELLED


class Overloaded(RouterError):
    """There is no room or time for the request. Worth repeating only with `retry_after_seconds`."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(RouterError):
    """There is nobody to run the request."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(RouterError):
    """The call's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class InternalError(RouterError):
    """Our fault. `error_id` is 16 hex digits, under which the log has the cause."""

    code = grpc.StatusCode.INTERNAL

    def __init__(self, error_id: str, reason: Reason = Reason.INTERNAL) -> None:
        super().__init__(reason, f"internal error; id {error_id}")


def _one_line(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        text = "".join(character if " " <= character <= "~" else "?" for character in text)
    return text[:MESSAGE_BYTE_LIMIT]
