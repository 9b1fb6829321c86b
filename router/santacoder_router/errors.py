"""Router errors: the tree, the closed list of reasons, and the `google.rpc.Status` of each.

    RouterError
    |-- InvalidRequest      INVALID_ARGUMENT      the request is wrong; carries every violation
    |-- Unsupported         FAILED_PRECONDITION   right in itself, but not with this checkpoint
    |-- AlreadyExists       ALREADY_EXISTS        its name is taken
    |-- Overloaded          RESOURCE_EXHAUSTED    no room or time for it now
    |-- Unavailable         UNAVAILABLE           nobody is there to run it
    |-- DeadlineExceeded    DEADLINE_EXCEEDED     too late
    `-- InternalError       INTERNAL              our fault; shows an id, the log has the rest

Refuses to know prompts, completions, paths and stack traces: none may appear in a message.
Clients branch on code and reason, never on the text.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

ERROR_DOMAIN = "santacoder"
MESSAGE_BYTE_LIMIT = 512
VALUE_CHARACTER_LIMIT = 64
VIOLATION_LIMIT = 16
# Details travel as one metadata value, in base64; clients take 8 KiB of metadata in all.
VIOLATIONS_BYTE_LIMIT = 3072


class Reason(enum.StrEnum):
    """Why a call was refused or failed, as sent in `ErrorInfo.reason`. The list is closed."""

    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    """The bytes are no message of the type the method takes."""
    PROTOCOL_ORDER = "PROTOCOL_ORDER"
    """A session's messages came in the wrong order."""
    PROMPT_MISSING = "PROMPT_MISSING"
    """No prompt is set."""
    PROMPT_EMPTY = "PROMPT_EMPTY"
    """The prompt is set and holds nothing."""
    PROMPT_TOO_LARGE = "PROMPT_TOO_LARGE"
    """The prompt is over the byte limit; it was not tokenized."""
    CONTEXT_LENGTH = "CONTEXT_LENGTH"
    """Prompt and new tokens together do not fit the context; the metadata has the counts."""
    TOKENIZER_BUDGET = "TOKENIZER_BUDGET"
    """Tokenizing took longer than the time it is given."""
    TOKEN_ID_RANGE = "TOKEN_ID_RANGE"
    """A token id is negative or beyond the vocabulary."""
    TOKEN_ID_UNASSIGNED = "TOKEN_ID_UNASSIGNED"
    """A token id is in the padding between the tokenizer's last id and the embedding's last row."""
    TOKEN_ID_LIST = "TOKEN_ID_LIST"
    """A list of ids in an option is too long or holds an id that does not exist."""
    FIM_EMPTY = "FIM_EMPTY"
    """Both parts of an infill prompt are empty."""
    FIM_UNSUPPORTED = "FIM_UNSUPPORTED"
    """Fill-in-the-middle is not served: the checkpoint cannot, or it is switched off."""
    TEMPERATURE_RANGE = "TEMPERATURE_RANGE"
    """`temperature` is out of range."""
    TOP_K_RANGE = "TOP_K_RANGE"
    """`top_k` is out of range."""
    TOP_P_RANGE = "TOP_P_RANGE"
    """`top_p` is out of range."""
    MIN_P_RANGE = "MIN_P_RANGE"
    """`min_p` is out of range."""
    TYPICAL_P_RANGE = "TYPICAL_P_RANGE"
    """`typical_p` is out of range."""
    REPETITION_PENALTY_RANGE = "REPETITION_PENALTY_RANGE"
    """`repetition_penalty` is out of range; it is a factor, so 1 means none."""
    PRESENCE_PENALTY_RANGE = "PRESENCE_PENALTY_RANGE"
    """`presence_penalty` is out of range."""
    FREQUENCY_PENALTY_RANGE = "FREQUENCY_PENALTY_RANGE"
    """`frequency_penalty` is out of range."""
    SEED_RANGE = "SEED_RANGE"
    """`seed` is out of range."""
    LOGIT_BIAS_RANGE = "LOGIT_BIAS_RANGE"
    """A logit bias is out of range."""
    EMPTY_DISTRIBUTION = "EMPTY_DISTRIBUTION"
    """Every token is banned, so that there is nothing to choose from."""
    MAX_NEW_TOKENS_RANGE = "MAX_NEW_TOKENS_RANGE"
    """`max_new_tokens` is out of range."""
    MIN_NEW_TOKENS_RANGE = "MIN_NEW_TOKENS_RANGE"
    """`min_new_tokens` is out of range or above `max_new_tokens`."""
    STOP_LIST = "STOP_LIST"
    """There are too many stop strings, or one is empty or too long."""
    TOP_N_RANGE = "TOP_N_RANGE"
    """`logprobs` is out of range."""
    COUNT_RANGE = "COUNT_RANGE"
    """`completion_count` is out of range."""
    ENUM_UNKNOWN = "ENUM_UNKNOWN"
    """An enum field holds a number this server does not know."""
    DURATION_RANGE = "DURATION_RANGE"
    """`time_budget` is out of range or no valid duration."""
    CACHE_SALT = "CACHE_SALT"
    """`cache_salt` is too long."""
    REQUEST_ID = "REQUEST_ID"
    """`request_id` has a character or a length that is not allowed."""
    REQUEST_ID_IN_USE = "REQUEST_ID_IN_USE"
    """A request of this id is running now."""
    ID_COUNT = "ID_COUNT"
    """There are too many ids to detokenize."""
    QUEUE_FULL = "QUEUE_FULL"
    """Too many requests are waiting."""
    PREFILL_BACKLOG = "PREFILL_BACKLOG"
    """Too many prompt tokens are waiting."""
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    """The request waited longer than a request may."""
    SESSION_LIMIT = "SESSION_LIMIT"
    """Too many sessions are open."""
    WARMING = "WARMING"
    """The shards are not ready yet."""
    DRAINING = "DRAINING"
    """The server is stopping and takes no new requests."""
    SHARD_LOST = "SHARD_LOST"
    """The shards died, and the request could not be carried over to new ones."""
    ROUTER_FAULT = "ROUTER_FAULT"
    """The router itself has failed and is stopping."""
    DEADLINE = "DEADLINE"
    """The call's deadline passed."""
    NON_FINITE = "NON_FINITE"
    """The model gave NaN or infinity for this request."""
    INTERNAL = "INTERNAL"
    """A fault of the server; the message holds the id under which the log has it."""


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


class Unsupported(RouterError):
    """The request is right in itself, but not with this checkpoint or these settings."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class AlreadyExists(RouterError):
    """The request's id belongs to one that is running."""

    code = grpc.StatusCode.ALREADY_EXISTS


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
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return plain[:MESSAGE_BYTE_LIMIT]
