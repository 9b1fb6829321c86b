"""Every method has a rule, and what has none is refused; who calls too often is told so."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc
import pytest

from santacoder.inference.v1 import inference_pb2
from santacoder_router.access import OPEN_METHODS, RIGHTS, Access
from santacoder_router.bad_calls import MOST_ADDRESSES, MOST_CALLS, BadCalls, address_of
from santacoder_router.errors import PermissionDenied, RouterError, Unauthenticated
from santacoder_router.tokens import Tokens, read_tokens

SECRET = "correct-horse-battery-staple-0123456789"
COMPLETE = "/santacoder.inference.v1.CompletionService/Complete"
GET_MODEL = "/santacoder.inference.v1.ModelService/GetModel"


@pytest.fixture
def access(tmp_path: Path) -> Access:
    path = tmp_path / "tokens"
    path.write_text(
        f"alice {hashlib.sha256(SECRET.encode()).hexdigest()} complete\n"
        f"old {hashlib.sha256(b'old').hexdigest()} complete 2000-01-01\n"
    )
    path.chmod(0o600)
    tokens: Tokens = read_tokens(path)
    return Access(lambda: tokens)


def bearer(value: str | bytes) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "x"), ("authorization", value)]


def test_every_method_of_the_contract_has_a_rule() -> None:
    services = inference_pb2.DESCRIPTOR.services_by_name.values()
    methods = {
        f"/{service.full_name}/{method.name}" for service in services for method in service.methods
    }
    assert methods == {method for method in RIGHTS if "inference" in method}
    assert not RIGHTS.keys() & OPEN_METHODS


def test_a_good_token_gives_its_callers_name_and_health_needs_none(access: Access) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        token = access.check(COMPLETE, bearer(f"{scheme} {SECRET}"))
        assert token is not None and token.caller == "alice"
    assert all(access.check(method, []) is None for method in OPEN_METHODS)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "TOKEN_MISSING"),
        (bearer(f"Bearer {SECRET[:-1]}x"), "TOKEN_INVALID"),
        (bearer(f"Bearer {SECRET}x"), "TOKEN_INVALID"),
        (bearer(f"Bearer  {SECRET}"), "TOKEN_INVALID"),
        (bearer("Bearer "), "TOKEN_INVALID"),
        (bearer("Bearer"), "TOKEN_INVALID"),
        (bearer(""), "TOKEN_INVALID"),
        (bearer(f"Basic {SECRET}"), "TOKEN_INVALID"),
        (bearer(SECRET), "TOKEN_INVALID"),
        (bearer(b"Bearer \xff"), "TOKEN_INVALID"),
        (bearer(f"Bearer {SECRET}") * 2, "TOKEN_INVALID"),
        (bearer("Bearer old"), "TOKEN_EXPIRED"),
    ],
)
def test_whoever_is_not_known_is_unauthenticated(
    access: Access, metadata: list[tuple[str, str | bytes]], reason: str
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        access.check(COMPLETE, metadata)
    assert caught.value.reason == reason
    assert SECRET[:-1] not in caught.value.message


@pytest.mark.parametrize("method", [GET_MODEL, "/grpc.reflection.v1.ServerReflection/New"])
def test_a_method_without_the_right_or_without_a_rule_is_denied(
    access: Access, method: str
) -> None:
    with pytest.raises(PermissionDenied) as caught:
        access.check(method, bearer(f"Bearer {SECRET}"))
    error: RouterError = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "METHOD_NOT_ALLOWED")
    assert error.metadata["method"] == method


def test_a_hundred_bad_calls_in_ten_seconds_are_enough() -> None:
    bad_calls = BadCalls()
    assert [bad_calls.note("a", 0.05 * n) for n in range(MOST_CALLS)] == [False] * MOST_CALLS
    assert bad_calls.note("a", 9.9)
    assert not bad_calls.note("b", 9.9)
    assert not bad_calls.note("a", 10.0)


def test_an_address_has_a_line_a_minute_and_the_table_a_bound() -> None:
    bad_calls = BadCalls()
    lines = []
    for now in (0.0, 1.0, 59.9, 60.0, 61.0):
        bad_calls.note("a", now)
        lines.append(bad_calls.is_worth_a_line("a", now))
    assert lines == [True, False, False, True, False]
    for number in range(10 * MOST_ADDRESSES):
        bad_calls.note(str(number), 62.0)
    assert len(bad_calls._addresses) == MOST_ADDRESSES


def test_a_machine_is_the_same_whichever_port_it_calls_from() -> None:
    assert address_of("ipv4:10.0.0.1:5000") == address_of("ipv4:10.0.0.1:5001") == "ipv4:10.0.0.1"
    assert address_of("ipv6:[::1]:5000") == "ipv6:[::1]"
    assert address_of("unix:") == "unix:"
