"""HTTP/2 by hand, for what no client library would send; knows just enough of it to be answered."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
MOST_FRAME_BYTES = 16_384
# In trailers these come as literals, since a connection here has one call.
GRPC_STATUS = re.compile(rb"grpc-status[\x01\x02](\d{1,2})")
HTTP_STATUS = re.compile(rb"\x03([1-5]\d\d)")

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def fields(headers: Sequence[Header]) -> bytes:
    """A header block of literals that are never indexed, without Huffman codes."""
    return b"".join(b"\x10" + _text(name) + _text(value) for name, value in headers)


def message(data: bytes, is_compressed: bool = False) -> bytes:
    """A gRPC message as it stands in DATA frames."""
    return struct.pack(">BI", is_compressed, len(data)) + data


def grpc_headers(
    path: str | bytes, *more: Header, content_type: bytes = b"application/grpc"
) -> list[Header]:
    """What opens a call."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode() if isinstance(path, str) else path),
        (b":authority", b"localhost"),
        (b"content-type", content_type),
        (b"te", b"trailers"),
        *more,
    ]


def call(target: str, headers: Sequence[Header], body: bytes, timeout_seconds: float) -> str:
    """One call on a connection of its own: `grpc N`, `http N`, `reset`, or `closed`."""
    opening = PREFACE + frame(SETTINGS, 0, 0)
    starts = range(0, max(len(body), 1), MOST_FRAME_BYTES)
    parts = [body[start : start + MOST_FRAME_BYTES] for start in starts]
    flags = [0] * (len(parts) - 1) + [END_STREAM]
    data = b"".join(frame(DATA, flag, 1, part) for flag, part in zip(flags, parts, strict=True))
    request = frame(HEADERS, END_HEADERS, 1, fields(headers)) + data
    return exchange(target, opening + request, timeout_seconds, is_all=False)


def exchange(target: str, sent: bytes, timeout_seconds: float, is_all: bool = True) -> str:
    """How the server answers these bytes; it is held to answer in time or to close.

    `is_all` tells it that no more will come.
    """
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout_seconds) as connection:
        try:
            connection.sendall(sent)
            if is_all:
                connection.shutdown(socket.SHUT_WR)
            return _outcome(connection)
        except (ConnectionError, BrokenPipeError):
            return "closed"


def _outcome(connection: socket.socket) -> str:
    http = ""
    for kind, payload in _frames(connection):
        if kind == HEADERS:
            if found := GRPC_STATUS.search(payload):
                return f"grpc {int(found[1])}"
            if found := HTTP_STATUS.search(payload):
                http = f"http {found[1].decode()}"
        elif kind == RST_STREAM:
            return http or "reset"
        elif kind == GOAWAY:
            break
    return http or "closed"


def _frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Frames until the connection ends; what is no whole frame ends it too."""
    data = b""
    while received := connection.recv(65536):
        data += received
        while len(data) >= 9:
            end = 9 + int.from_bytes(data[:3], "big")
            if len(data) < end:
                break
            yield data[3], data[9:end]
            data = data[end:]


def _text(value: bytes) -> bytes:
    """A string: its length in the prefix code of seven bits, then itself."""
    if len(value) < 0x7F:
        return bytes([len(value)]) + value
    rest, length = len(value) - 0x7F, b"\x7f"
    while rest > 0x7F:
        length += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return length + bytes([rest]) + value
