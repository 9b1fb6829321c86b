"""How a server is spoken to: encrypted or not, and as whom. Never shows a token."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from santacoder_client._address import is_loopback
from santacoder_client._tls import TLS, StrPath, credentials_of, read_file, server_name_option
from santacoder_client._tracing import TracedChannel

ChannelT = TypeVar("ChannelT", grpc.Channel, grpc.aio.Channel)
ChannelOptions = list[tuple[str, int | str]]


@dataclass(frozen=True, slots=True)
class Security:
    """What a channel is opened with. Raises ValueError for what cannot be used together."""

    target: str
    tls: TLS | None = None
    token: str | None = field(default=None, repr=False)
    allow_plain_token: bool = False

    def __post_init__(self) -> None:
        if self.token is None:
            return
        check_token("token", self.token)
        if self.tls is None and not self.allow_plain_token and not is_loopback(self.target):
            raise ValueError(
                f"token: would go unencrypted; got {self.target!r}; allowed with tls,"
                " or with allow_plain_token=True"
            )

    def open(self, options: ChannelOptions) -> grpc.Channel:
        """A channel for blocking callers."""
        if self.tls is None:
            return self._authorized(grpc.insecure_channel(self.target, options=options))
        named = [*options, *server_name_option(self.tls)]
        channel = grpc.secure_channel(self.target, credentials_of(self.tls), options=named)
        return self._authorized(channel)

    def open_async(self, options: ChannelOptions) -> grpc.aio.Channel:
        """A channel of the running event loop."""
        if self.tls is None:
            return self._authorized(grpc.aio.insecure_channel(self.target, options=options))
        named = [*options, *server_name_option(self.tls)]
        channel = grpc.aio.secure_channel(self.target, credentials_of(self.tls), options=named)
        return self._authorized(channel)

    def _authorized(self, channel: ChannelT) -> ChannelT:
        traced = cast(ChannelT, TracedChannel(channel, self.target))
        if self.token is None:
            return traced
        return cast(ChannelT, _AuthorizedChannel(traced, self.token))


def servers_of(
    target: str, tls: TLS | None, token: str | None, allow_plain_token: bool
) -> list[Security]:
    """The servers that a target names: one, or several with commas between. Raises ValueError."""
    addresses = target.split(",") if isinstance(target, str) else []
    if not addresses or not all(addresses) or len(set(addresses)) < len(addresses):
        raise ValueError(
            f"target: not an address; got {target!r}; allowed HOST:PORT[,HOST:PORT...],"
            " each of them once"
        )
    return [Security(address, tls, token, allow_plain_token) for address in addresses]


class _AuthorizedChannel:
    """A channel whose every call brings the token; as much of one as stubs need.

    gRPC's call credentials would do it too, but not in plaintext to this very machine.
    """

    def __init__(self, channel: Any, token: str) -> None:
        self._channel = channel
        self._metadata = bearer(token)
        self.close = channel.close

    def unary_unary(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        return self._bound(self._channel.unary_unary(method, *args, **keywords))

    def unary_stream(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        return self._bound(self._channel.unary_stream(method, *args, **keywords))

    def stream_stream(self, method: str, *args: Any, **keywords: Any) -> Callable[..., Any]:
        return self._bound(self._channel.stream_stream(method, *args, **keywords))

    def _bound(self, call: Callable[..., Any]) -> Callable[..., Any]:
        return cast(Callable[..., Any], partial(call, metadata=self._metadata))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """What goes beside a call to say who calls."""
    return (("authorization", f"Bearer {token}"),)


def check_token(name: str, token: str) -> str:
    """The same, if it can go into a header. Raises ValueError, which does not show it."""
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ValueError(f"{name}: not a token; allowed one word of ASCII")
    if not token or " " in token:
        raise ValueError(f"{name}: not a token; allowed one word of ASCII")
    return token


def read_token(name: str, path: StrPath) -> str:
    """The token in a file, without the line end. Raises ValueError, which does not show it."""
    content = read_file(name, path) or b""
    try:
        return check_token(name, content.strip().decode("ascii"))
    except ValueError:
        raise ValueError(
            f"{name}: not a token; got {os.fspath(path)!r}; allowed one line of ASCII"
        ) from None
