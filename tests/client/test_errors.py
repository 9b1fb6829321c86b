"""Failures of the server become the exception tree, once, by code and details alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import grpc
import pytest
from awaited import Ask
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from santacoder_client import (
    AlreadyExists,
    AsyncClient,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    SantaCoderError,
    ServerError,
    Unauthenticated,
    Unavailable,
    Violation,
    errors,
)
from santacoder_client.testing import Answer, Failure, FakeRouter

Serve = Callable[..., FakeRouter]

CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.INTERNAL: ServerError,
    grpc.StatusCode.UNKNOWN: ServerError,
    grpc.StatusCode.DATA_LOSS: ServerError,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,
    grpc.StatusCode.ABORTED: ServerError,
}


def failure_of(ask: Ask, target: str, streamed: bool) -> SantaCoderError:
    async def scenario(client: AsyncClient) -> SantaCoderError:
        with pytest.raises(SantaCoderError) as caught:
            if streamed:
                await client.stream("x").result()
            else:
                await client.complete("x")
        return caught.value

    return ask(target, scenario)


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
@pytest.mark.parametrize("code", CLASSES, ids=lambda code: code.name)
def test_the_code_decides_the_class(
    ask: Ask, serve: Serve, code: grpc.StatusCode, streamed: bool
) -> None:
    router = serve(Answer((), failure=Failure(code, "SOME_REASON", "what happened")))
    error = failure_of(ask, router.target, streamed)
    assert type(error) is CLASSES[code]
    assert (error.code, error.reason, str(error)) == (code, "SOME_REASON", "what happened")


def test_details_arrive_whole(ask: Ask, serve: Serve) -> None:
    violations = (
        Violation("sampling.top_k", "out of range; got -1; allowed 0..1000", "TOP_K_RANGE"),
        Violation("text", "too long", None),
    )
    failure = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "TOP_K_RANGE",
        violations=violations,
        retry_after=1.5,
        request_id="r-1",
        metadata=(("prompt_token_count", "3000"),),
    )
    for streamed in (False, True):
        error = failure_of(ask, serve(Answer((), failure=failure)).target, streamed)
        assert error.violations == violations
        assert error.retry_after == 1.5
        assert error.request_id == "r-1"
        assert error.metadata == {"prompt_token_count": "3000"}


def test_an_error_in_mid_stream_keeps_its_details(ask: Ask, serve: Serve) -> None:
    failure = Failure(
        grpc.StatusCode.INTERNAL, "INTERNAL", "internal error; id 0123", request_id="r"
    )
    error = failure_of(ask, serve(Answer(("a",), failure=failure)).target, streamed=True)
    assert isinstance(error, ServerError)
    assert (error.reason, error.request_id) == ("INTERNAL", "r")


def test_without_retry_info_there_is_no_hint_to_come_back(ask: Ask, serve: Serve) -> None:
    full = Answer((), failure=Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"))
    assert failure_of(ask, serve(full).target, streamed=False).retry_after is None


def test_no_server_is_unavailable_without_a_reason(ask: Ask) -> None:
    error = failure_of(ask, "127.0.0.1:1", streamed=True)
    assert isinstance(error, Unavailable)
    assert error.reason is None
    assert error.violations == ()


def test_details_that_cannot_be_read_are_left_out() -> None:
    broken = Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    whole = Any()
    whole.Pack(error_details_pb2.RequestInfo(request_id="r-2"))
    status = status_pb2.Status(code=3, message="bad", details=[broken, whole])
    error = errors.error_from_status(status)
    assert (type(error), error.reason, error.request_id) == (InvalidRequest, None, "r-2")


@pytest.mark.parametrize("details", [b"\xff\xff", status_pb2.Status(code=3).SerializeToString()])
def test_details_that_contradict_the_status_are_left_out(details: bytes) -> None:
    rpc_error = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL,
        initial_metadata=grpc.aio.Metadata(),
        trailing_metadata=grpc.aio.Metadata(("grpc-status-details-bin", details)),
        details="plain",
    )
    error = errors.error_from_rpc(rpc_error)
    assert (type(error), str(error), error.reason) == (ServerError, "plain", None)


@pytest.mark.fault("R1", "X1")
@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.CANCELLED, "", Unavailable),
        (grpc.StatusCode.CANCELLED, None, Unavailable),
        (grpc.StatusCode.CANCELLED, "CANCELLED", Unavailable),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", Unavailable),
        (grpc.StatusCode.CANCELLED, "Locally cancelled by application!", Cancelled),
        (grpc.StatusCode.CANCELLED, "Channel closed!", Cancelled),
        (grpc.StatusCode.INTERNAL, "internal error; id 0123", ServerError),
    ],
)
def test_a_call_that_was_dropped_is_told_from_one_that_was_cancelled(
    code: grpc.StatusCode, details: str | None, kind: type
) -> None:
    nothing = grpc.aio.Metadata()
    rpc_error = grpc.aio.AioRpcError(code, nothing, nothing, details=details)
    error = errors.error_from_rpc(rpc_error)
    assert (type(error), error.reason) == (kind, None)


def test_a_code_that_grpc_does_not_know_is_a_server_error() -> None:
    assert isinstance(errors.error_from_status(status_pb2.Status(code=99)), ServerError)


def test_errors_can_be_copied_and_so_sent_to_other_processes() -> None:
    error = errors.error_from_status(status_pb2.Status(code=8, message="full"))
    copied = copy.copy(error)
    assert (type(copied), str(copied)) == (Overloaded, "full")
    assert copied.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    drawing = errors.__doc__ or ""
    tree = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, SantaCoderError)
    ]
    assert len(tree) == 11
    for kind in tree:
        assert kind.__name__ in drawing
    assert issubclass(AlreadyExists, InvalidRequest)
    for kind in (FailedPrecondition, Unauthenticated, PermissionDenied):
        assert issubclass(kind, InvalidRequest)
