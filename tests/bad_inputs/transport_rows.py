"""Rows 1 to 20, 74 to 105: what is wrong before a field is looked at, and what is not offered."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import raw_http2
from bad_inputs.calls import (
    COMPLETE,
    DETOKENIZE,
    MODEL,
    OPENING,
    SERVICES,
    STREAM,
    TOKENIZE,
    answer_of,
    converse,
    stream,
    unary,
)
from bad_inputs.fields import raw_ways
from bad_inputs.row import Place, Row, Try
from running_service import WAIT_SECONDS

from santacoder.inference.v1 import inference_pb2 as pb

FEW = pb.Stopping(max_new_tokens=4)
FINE = pb.CompletionRequest(text="x = 1", stopping=FEW)
FINE_CALL = pb.CompleteRequest(completion=FINE).SerializeToString()
MALFORMED = "INVALID_ARGUMENT MALFORMED_REQUEST"
ORDER = "INVALID_ARGUMENT PROTOCOL_ORDER"
# A length beyond the end, a wire type that does not exist, noise.
NO_MESSAGES = (b"\x0a\xff", b"\x0f", bytes(range(255, 0, -1)))
# As much as fits, packed, into what HTTP/2 lets through before it has heard from the receiver.
BOMB_BYTES = 48 << 20
MOST_GROWTH_BYTES = 24 << 20
STRANGERS = {
    "HTTP/1.1": b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{}",
    "a PROPFIND with a Host of slashes": b"PROPFIND //v1 HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01" + b"x" * 600,
    "noise": bytes(range(255, -1, -1)) * 8,
    "half of HTTP/2's preface": raw_http2.PREFACE[:9],
}


def everywhere(data: bytes) -> dict[str, Try]:
    """The same bytes to every method."""
    return {
        "Complete": partial(unary, path=COMPLETE, data=data),
        "StreamComplete": partial(stream, path=STREAM, data=data),
        "CompletionSession": lambda place: converse(place, [data]),
        "Tokenize": partial(unary, path=TOKENIZE, data=data),
        "Detokenize": partial(unary, path=DETOKENIZE, data=data),
        "GetModel": partial(unary, path=MODEL, data=data),
    }


def turn(number: int, **action: Any) -> bytes:
    return pb.CompletionSessionRequest(turn=number, **action).SerializeToString()


def session(*frames: bytes) -> dict[str, Try]:
    return {"CompletionSession": lambda place: converse(place, frames)}


def by_hand(
    *more: raw_http2.Header,
    content_type: bytes = b"application/grpc",
    body: bytes = raw_http2.message(FINE_CALL),
    path: str | bytes = COMPLETE,
) -> dict[str, Try]:
    """A call whose HTTP/2 no library would write."""
    headers = raw_http2.grpc_headers(path, *more, content_type=content_type)
    return {
        "HTTP/2": lambda place: raw_http2.call(place.service.target, headers, body, WAIT_SECONDS)
    }


def stranger(noise: bytes) -> dict[str, Try]:
    return {"port": lambda place: raw_http2.exchange(place.service.target, noise, WAIT_SECONDS)}


def twice(place: Place) -> str:
    """Two messages on a method that takes one."""
    call: Any = place.channel.stream_stream(COMPLETE)
    return answer_of(lambda: list(call(iter([FINE_CALL] * 2), timeout=WAIT_SECONDS)))


def bomb(place: Place) -> str:
    """A thousand zeros for every byte sent; the router must not unpack them all."""
    body = raw_http2.message(gzip.compress(bytes(BOMB_BYTES), 9), is_compressed=True)
    before = router_bytes(place)
    [attempt] = by_hand((b"grpc-encoding", b"gzip"), body=body).values()
    answer = attempt(place)
    return answer if router_bytes(place) - before < MOST_GROWTH_BYTES else "unpacked"


def router_bytes(place: Place) -> int:
    """The most memory that the router has ever had."""
    status = Path(f"/proc/{place.service.children()['router']}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def with_metadata(*pairs: tuple[str, str | bytes]) -> Callable[[Place], str]:
    return lambda place: unary(place, COMPLETE, FINE_CALL, metadata=pairs)


def nested(depth: int) -> bytes:
    """Groups in groups, which every reader of protobuf must follow to pass over them."""
    return b"\x0b" * depth + b"\x0c" * depth


TRANSPORT_ROWS = (
    Row(
        1,
        "an unknown method",
        "UNIMPLEMENTED",
        {"gRPC": partial(unary, path=f"{SERVICES}CompletionService/Nothing", data=b"")},
    ),
    Row(
        1,
        "an unknown service",
        "UNIMPLEMENTED",
        {
            "gRPC": partial(
                unary, path="/santacoder.inference.v0.CompletionService/Complete", data=b""
            )
        },
    ),
    *(Row(2, f"no message, {data[:2].hex()}", MALFORMED, everywhere(data)) for data in NO_MESSAGES),
    Row(
        4,
        "a string that is no UTF-8",
        MALFORMED,
        {
            **raw_ways(FINE.SerializeToString().replace(b"x = 1", b"\xe9\xe8\xe7\xe6\xe5")),
            "Tokenize": partial(unary, path=TOKENIZE, data=b"\x0a\x02\xe9\xe8"),
        },
    ),
    Row(5, "a message nested 10,000 deep", MALFORMED, everywhere(nested(10_000))),
    Row(
        6,
        "a message of 5 MiB",
        "RESOURCE_EXHAUSTED",
        {
            "Tokenize": partial(
                unary, path=TOKENIZE, data=b"\x0a\x80\x80\xc0\x02" + b"x" * (5 << 20)
            )
        },
    ),
    Row(7, "a bomb of 48 MiB in 48 KiB", "grpc 8", {"HTTP/2": bomb}),
    Row(
        8,
        "an unknown compression",
        "grpc 13",
        by_hand(
            (b"grpc-encoding", b"zstd9"), body=raw_http2.message(FINE_CALL, is_compressed=True)
        ),
        why="the library's answer",
    ),
    Row(
        9, "metadata of 20 KiB", "RESOURCE_EXHAUSTED", {"gRPC": with_metadata(("x", "y" * 20_480))}
    ),
    Row(
        9,
        "metadata of 1,000 keys",
        "RESOURCE_EXHAUSTED",
        {"gRPC": with_metadata(*((f"k{i}", "v") for i in range(1000)))},
    ),
    Row(
        10,
        "a content type of JSON",
        "grpc 0",
        by_hand(content_type=b"application/json"),
        why="the library does not look at it; what follows is gRPC",
    ),
    *(Row(11, name, "closed", stranger(noise)) for name, noise in STRANGERS.items()),
    Row(
        12,
        "two messages on a unary call",
        "OK",
        {"gRPC": twice},
        why="the library hands over the first and passes over the rest",
    ),
    Row(13, "a session that ends at once", "OK", session()),
    Row(13, "a session that is opened and ends", "OK", session(OPENING)),
    Row(14, "a turn before the session is open", ORDER, session(turn(1, completion=FINE))),
    Row(15, "a session opened twice", ORDER, session(OPENING, OPENING)),
    Row(
        15,
        "a turn number that goes back",
        ORDER,
        session(OPENING, turn(2, completion=FINE), turn(1, completion=FINE)),
    ),
    Row(15, "a turn that says nothing", ORDER, session(OPENING, turn(1))),
    Row(
        16,
        "no deadline",
        "OK",
        {"gRPC": partial(unary, path=COMPLETE, data=FINE_CALL, timeout=None)},
    ),
    Row(
        17,
        "a deadline that has passed",
        "DEADLINE_EXCEEDED",
        # Whose clock says it first, the client's or the server's, which adds its reason, is chance.
        {"gRPC": lambda place: unary(place, COMPLETE, FINE_CALL, timeout=0.0).split()[0]},
    ),
    Row(
        19,
        "fields of a newer client",
        "OK",
        raw_ways(FINE.SerializeToString() + b"\xfa\x01\x03abc\xd0\x3e\x01"),
    ),
    Row(
        20,
        "unknown metadata",
        "OK",
        {"gRPC": with_metadata(("x-unknown", "1"), ("x-unknown-bin", b"\xff"))},
        why="priority is a field here; metadata that nobody knows is nobody's",
    ),
    *(
        Row(20, f"metadata: {words}", answer, by_hand(header), why=why)
        for words, header, answer, why in (
            ("control bytes", (b"x-a", b"a\x01b\nc: d"), "grpc 0", "nobody reads it"),
            ("bytes that are no text", (b"x-a", b"\xe9\xff"), "grpc 0", "nobody reads it"),
            ("what is no base64", (b"x-a-bin", b"!!!"), "grpc 13", "the library's answer"),
            ("a name in capitals", (b"X-A", b"a"), "grpc 13", "the library's answer"),
            ("a deadline of no unit", (b"grpc-timeout", b"5X"), "grpc 13", "the library's answer"),
            ("two paths", (b":path", b"/x"), "grpc 12", "the library's answer"),
        )
    ),
)
