"""Where the load goes: addresses, encryption, token, and what may be loaded. Sends nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc
import grpc.aio

from santacoder_client._channel import channel_options
from santacoder_client.loadtest.errors import UsageError

SHARD_PREFIX = "shard:"
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
    token: str | None = None
    """Sent as a bearer token with every call."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """What goes beside every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else None


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


def is_loopback(address: str) -> bool:
    """Whether an address cannot leave this machine."""
    if address.startswith("unix:"):
        return True
    host = _host_and_port(address)[0]
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False  # a name may mean anything, and tomorrow something else
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def open_channel(address: str, security: Security) -> grpc.aio.Channel:
    """A connection of its own, made by the running event loop. Nothing is retried."""
    # A retry would hide a failure, and its wait would be told as the server's latency.
    options = [option for option in channel_options() if option[0] != "grpc.service_config"]
    options.append(("grpc.enable_retries", 0))
    if not security.tls:
        return grpc.aio.insecure_channel(address, options=options)
    if security.server_name:
        options.append(("grpc.ssl_target_name_override", security.server_name))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read("--ca-file", security.ca_file),
        private_key=_read("--key-file", security.key_file),
        certificate_chain=_read("--certificate-file", security.certificate_file),
    )
    return grpc.aio.secure_channel(address, credentials, options=options)


def check_security(security: Security) -> Security:
    """The same, if it can be used. Raises UsageError."""
    files = {
        "--ca-file": security.ca_file,
        "--certificate-file": security.certificate_file,
        "--key-file": security.key_file,
    }
    for flag, path in files.items():
        if path is not None and not security.tls:
            raise UsageError(f"{flag}: for encrypted targets; got no --tls; allowed with --tls")
        _read(flag, path)
    if (security.certificate_file is None) != (security.key_file is None):
        raise UsageError("--certificate-file: needs --key-file; got one; allowed both or none")
    return security


def read_token(path: str | None) -> str | None:
    """The token in a file, without the line end. Raises UsageError."""
    content = _read("--token-file", path)
    if content is None:
        return None
    token = content.strip()
    if not token or not token.isascii() or any(byte <= 32 for byte in token):
        raise UsageError(f"--token-file: not a token; got {path!r}; allowed one line of ASCII")
    return token.decode()


def _read(flag: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise UsageError(f"{flag}: {reason}; got {path!r}; allowed a readable file") from error


def _parse(text: str) -> Target:
    if not text.startswith(SHARD_PREFIX):
        return Target(text, "router", (_checked(text, text),))
    addresses = text.removeprefix(SHARD_PREFIX).split(",")
    return Target(text, "shard", tuple(_checked(address, text) for address in addresses))


def _checked(address: str, text: str) -> str:
    if address.startswith("unix:"):
        good = len(address) > len("unix:") and "\0" not in address
    else:
        host, port = _host_and_port(address)
        good = bool(host) and _is_port(port) and not _strange(host)
    if not good:
        raise UsageError(f"--target: not an address; got {text[:64]!r}; allowed {_ALLOWED}")
    return address


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    # A colon is left only where an IPv6 address came without its brackets, or a scheme in front.
    return ("", "") if ":" in host else (host, port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65535


def _strange(host: Iterable[str]) -> bool:
    return any(character.isspace() or character in "/@,?#" for character in host)
