"""Errors say one plain line, carry their details, and their reasons are a closed list."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

import santacoder_router
from santacoder_router import errors
from santacoder_router.errors import (
    InternalError,
    InvalidRequest,
    Overloaded,
    Reason,
    RouterError,
    Unavailable,
    Violation,
    shown,
)

Detail = TypeVar("Detail", bound=Message)


def details(status: status_pb2.Status, kind: type[Detail]) -> list[Detail]:
    found = []
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def violation(path: str = "sampling.top_k", got: object = 70_000) -> Violation:
    return Violation(path, Reason.TOP_K_RANGE, "out of range", got, "0..1000")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("InvalidRequest", grpc.StatusCode.INVALID_ARGUMENT),
        ("Unsupported", grpc.StatusCode.FAILED_PRECONDITION),
        ("AlreadyExists", grpc.StatusCode.ALREADY_EXISTS),
        ("Overloaded", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("Unavailable", grpc.StatusCode.UNAVAILABLE),
        ("DeadlineExceeded", grpc.StatusCode.DEADLINE_EXCEEDED),
        ("InternalError", grpc.StatusCode.INTERNAL),
    ],
)
def test_each_error_has_its_status(name: str, code: grpc.StatusCode) -> None:
    assert getattr(errors, name).code is code


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    drawn = dict(re.findall(r"[|`]-- (\w+) +([A-Z_]+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__: kind.code.name for kind in RouterError.__subclasses__()}


def test_an_invalid_request_lists_its_violations() -> None:
    status = InvalidRequest([violation(), violation("sampling.seed", -1)]).to_status("r-1")
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert status.message == (
        "sampling.top_k: out of range; got 70000; allowed 0..1000 (and 1 more)"
    )
    [bad] = details(status, error_details_pb2.BadRequest)
    assert [(v.field, v.description, v.reason) for v in bad.field_violations] == [
        ("sampling.top_k", "out of range; got 70000; allowed 0..1000", "TOP_K_RANGE"),
        ("sampling.seed", "out of range; got -1; allowed 0..1000", "TOP_K_RANGE"),
    ]
    [info] = details(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("TOP_K_RANGE", "santacoder")
    [named] = details(status, error_details_pb2.RequestInfo)
    assert named.request_id == "r-1"
    assert details(status, error_details_pb2.RetryInfo) == []


def test_only_the_first_sixteen_violations_are_sent() -> None:
    status = InvalidRequest([violation(f"field[{i}]") for i in range(300)]).to_status("r")
    [bad] = details(status, error_details_pb2.BadRequest)
    assert [v.field for v in bad.field_violations] == [f"field[{i}]" for i in range(16)]
    assert status.message.endswith("(and 299 more)")


def test_an_invalid_request_without_a_violation_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        InvalidRequest([])


def test_a_retry_that_helps_is_told_when() -> None:
    error = Overloaded(Reason.QUEUE_FULL, "queue: full", retry_after_seconds=1.25)
    [retry] = details(error.to_status("r"), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.25
    assert (
        details(Unavailable(Reason.DRAINING, "x").to_status("r"), error_details_pb2.RetryInfo) == []
    )


def test_metadata_goes_along_as_text() -> None:
    error = Overloaded(Reason.QUEUE_FULL, "queue: full", metadata={"queued_request_count": 512})
    [info] = details(error.to_status("r"), error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"queued_request_count": "512"}


def test_an_internal_error_shows_its_id_and_nothing_else() -> None:
    status = InternalError("0123456789abcdef").to_status("r")
    assert status.message == "internal error; id 0123456789abcdef"


@given(text=st.text(max_size=2000))
def test_whatever_is_in_it_a_message_is_one_short_line_of_ascii(text: str) -> None:
    error = InvalidRequest([violation(text, text)])
    for message in (error.message, Overloaded(Reason.QUEUE_FULL, text).message):
        assert len(message) <= 512
        assert re.fullmatch(r"[ -~]*", message)


def test_a_long_message_is_cut() -> None:
    assert Overloaded(Reason.QUEUE_FULL, "x" * 2000).message == "x" * 512


def test_a_status_fits_in_metadata_however_long_its_violations_are() -> None:
    status = InvalidRequest([violation("path" * 60, "x" * 100)] * 50).to_status("r" * 100)
    assert status.ByteSize() <= 4096
    [bad] = details(status, error_details_pb2.BadRequest)
    assert 5 < len(bad.field_violations) < 16


@given(value=st.text(max_size=200))
def test_a_shown_value_is_short_escaped_and_on_one_line(value: str) -> None:
    assert len(shown(value)) <= 64
    assert re.fullmatch(r"[ -~]*", shown(value))


def test_a_value_is_shown_whole_where_it_is_short_and_cut_where_not() -> None:
    assert shown(70_000) == "70000"
    assert shown("a\té") == r"a\t\xe9"
    assert shown("a" * 64) == "a" * 64
    assert shown("a" * 65) == "a" * 61 + "..."


def _enum_body() -> list[ast.stmt]:
    [definition] = ast.parse(inspect.getsource(Reason)).body
    assert isinstance(definition, ast.ClassDef)
    return definition.body[1:]


def test_every_reason_is_documented() -> None:
    body = _enum_body()
    names = body[0::2]
    texts = body[1::2]
    assert len(names) == len(texts) == len(Reason)
    for name, text in zip(names, texts, strict=True):
        assert isinstance(name, ast.Assign)
        assert isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant), ast.unparse(
            name
        )


def test_every_reason_is_upper_snake_and_its_own_name() -> None:
    for reason in Reason:
        assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", reason)
        assert reason == reason.name


def test_every_reason_is_used_and_no_other() -> None:
    [package] = santacoder_router.__path__
    used: set[str] = set()
    for path in Path(package).rglob("*.py"):
        used |= set(re.findall(r"\bReason\.([A-Z_]+)", path.read_text()))
    assert used == {reason.name for reason in Reason}
