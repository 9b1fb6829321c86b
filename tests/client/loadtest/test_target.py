"""Where a load may go, and how addresses are read."""

from __future__ import annotations

import pytest

from santacoder_client._address import is_loopback
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.target import Security, parse_targets


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "127.8.9.1:50051", "localhost:50051", "[::1]:50051", "unix:/tmp/socket"],
)
def test_addresses_of_this_machine_need_no_permission(address: str) -> None:
    assert is_loopback(address)
    (target,) = parse_targets([address], Security(), False, False)
    assert target.addresses == (address,) and target.mode == "router"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1:1", "0.0.0.0:1", "[::]:1", "example.com:1", "127.0.0.1.evil.com:1", "[2001::1]:1"],
)
def test_other_machines_are_loaded_only_with_permission(address: str) -> None:
    with pytest.raises(UsageError, match=r"^--target: not on this machine; got .*; allowed loop"):
        parse_targets([address], Security(), False, False)
    parse_targets([address], Security(), True, False)


@pytest.mark.parametrize(
    "text",
    (
        *("", "host", "host:", ":1", "host:0", "host:70000", "host:-1", "host:1x", "::1:5"),
        *("a b:1", "dns:///x:1", "http://x:1", "unix:", "user@host:1"),
        *("shard:", "shard:127.0.0.1:1,"),
    ),
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        parse_targets([text], Security(), True, False)


def test_a_shard_group_has_an_address_for_each_rank() -> None:
    (target,) = parse_targets(["shard:127.0.0.1:1,127.0.0.1:2"], Security(), False, False)
    assert target.mode == "shard"
    assert target.addresses == ("127.0.0.1:1", "127.0.0.1:2")
    with pytest.raises(UsageError, match="not on this machine"):
        parse_targets(["shard:127.0.0.1:1,10.0.0.1:2"], Security(), False, False)


def test_a_token_does_not_leave_the_machine_in_the_clear() -> None:
    with pytest.raises(UsageError, match="--token-file: would go unencrypted"):
        parse_targets(["10.0.0.1:1"], Security(token="secret"), True, False)
    parse_targets(["10.0.0.1:1"], Security(token="secret", tls=True), True, False)
    parse_targets(["10.0.0.1:1"], Security(token="secret"), True, True)
    parse_targets(["127.0.0.1:1"], Security(token="secret"), False, False)


def test_a_token_is_in_no_repr() -> None:
    assert "s3cret" not in repr(Security(token="s3cret"))
