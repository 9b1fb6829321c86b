"""Where the load goes: addresses, encryption, token, and what may be loaded. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import grpc.aio

from santacoder_client._address import host_and_port, is_loopback
from santacoder_client._channel import channel_options
from santacoder_client._security import bearer
from santacoder_client._tls import TLS, credentials_of
from santacoder_client.loadtest.errors import UsageError

SHARD_PREFIX = "shard:"
SHARD_NAME = "shard-{rank}.santacoder.internal"
"""What the certificate of a rank is made out to."""
_ALLOWED = "HOST:PORT, [IPV6]:PORT, unix:PATH or shard:ADDRESS[,ADDRESS...]"


@dataclass(frozen=True, slots=True)
class Target:
    """One service to load."""

    address: str
    """As it was given, and as results name it."""
    mode: Literal["router", "shard"]
    addresses: tuple[str, ...]
    """One, or those of a shard group in order of rank."""


@dataclass(frozen=True, slots=True)
class Security:
    """How all targets are spoken to."""

    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_name: str | None = None
    """The name to find in the server's certificate, where it is not the address's."""
    token: str | None = field(default=None, repr=False)
    """Sent as a bearer token with every call."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """What goes beside every call."""
        return bearer(self.token) if self.token else None


def parse_targets(
    texts: Sequence[str], security: Security, allow_remote: bool, allow_plain_token: bool
) -> tuple[Target, ...]:
    """The targets, checked. Raises UsageError."""
    targets = tuple(_parse(text) for text in texts)
    for address in (address for target in targets for address in target.addresses):
        if is_loopback(address):
            continue
        if not allow_remote:
            raise UsageError(
                f"--target: not on this machine; got {address!r}; allowed loopback addresses",
                "--allow-remote loads a machine that is yours to load",
            )
        if security.token and not security.tls and not allow_plain_token:
            raise UsageError(
                f"--token-file: would go unencrypted; got {address!r}; allowed with --tls",
                "--allow-plain-token sends it in the clear",
            )
    return targets


def open_channel(
    address: str, security: Security, server_name: str | None = None
) -> grpc.aio.Channel:
    """A connection of its own, made by the running event loop. Nothing is retried.

    `server_name` is the name in the server's certificate, where `security` has none.
    """
    # A retry would hide a failure, and its wait would be told as the server's latency.
    options = [*channel_options(), ("grpc.enable_retries", 0)]
    if not security.tls:
        return grpc.aio.insecure_channel(address, options=options)
    if name := security.server_name or server_name:
        options.append(("grpc.ssl_target_name_override", name))
    tls = TLS(ca=security.ca_file, cert=security.certificate_file, key=security.key_file)
    credentials = credentials_of(tls, "--tls-")
    return grpc.aio.secure_channel(address, credentials, options=options)


def _parse(text: str) -> Target:
    if not text.startswith(SHARD_PREFIX):
        return Target(text, "router", (_checked(text, text),))
    addresses = text.removeprefix(SHARD_PREFIX).split(",")
    return Target(text, "shard", tuple(_checked(address, text) for address in addresses))


def _checked(address: str, text: str) -> str:
    if address.startswith("unix:"):
        good = len(address) > len("unix:") and "\0" not in address
    else:
        host, port = host_and_port(address)
        good = bool(host) and _is_port(port) and not _strange(host)
    if not good:
        raise UsageError(f"--target: not an address; got {text[:64]!r}; allowed {_ALLOWED}")
    return address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65535


def _strange(host: Iterable[str]) -> bool:
    return any(character.isspace() or character in "/@,?#" for character in host)
