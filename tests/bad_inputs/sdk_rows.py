"""Rows 121 to 125 and what of 6, 33, 93 and 99 the SDK says before any network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bad_inputs.fields import NOBODY, said
from bad_inputs.row import Place, Row, Try

from santacoder_client import AsyncClient, Client

ELSEWHERE = "192.0.2.1:50051"
MIB = 1 << 20


def offline(call: Callable[[Any], object]) -> dict[str, Try]:
    """Tried where no server is: what is refused was refused before any network."""

    def attempt(_place: Place) -> str:
        with Client(NOBODY, retry=None) as client:
            return raised(lambda: call(client))

    return {"SDK": attempt}


def raised(call: Callable[[], object]) -> str:
    """The exception's name where it is Python's own; it must not be an afterthought."""
    try:
        return said(call)
    except (TypeError, ValueError, RuntimeError) as error:
        assert str(error) and "\n" not in str(error)
        return type(error).__name__


def after_close(place: Place) -> str:
    client = Client(place.service.target)
    client.close()
    return raised(lambda: client.complete("x"))


def another_loop(place: Place) -> str:
    client = AsyncClient(place.service.target)
    asyncio.run(_model(client))
    return raised(lambda: asyncio.run(_model(client)))


async def _model(client: AsyncClient) -> None:
    await client.model()


def broken_off(place: Place) -> str:
    """Whoever leaves the loop is gone: the router holds nothing of it."""
    for _ in place.client.stream("x", request_id="left", max_new_tokens=1000, ignore_eos=True):
        break
    deadline_free: Any = place.client.complete
    while True:
        answer = raised(lambda: deadline_free("x", request_id="left", max_new_tokens=1))
        if answer != "ALREADY_EXISTS REQUEST_ID_IN_USE":
            return answer


INVALID = "INVALID_ARGUMENT"

SDK_ROWS = (
    Row(
        6,
        "a prompt of 5 MiB",
        f"{INVALID} PROMPT_TOO_LARGE",
        offline(lambda c: c.complete("x" * 5 * MIB)),
    ),
    Row(
        6,
        "ids of 4.5 MiB",
        f"{INVALID} MESSAGE_TOO_LARGE",
        offline(lambda c: c.complete([2**62] * (MIB // 2))),
    ),
    Row(
        33,
        "a text of 1 MiB and a byte to tokenize",
        f"{INVALID} PROMPT_TOO_LARGE",
        offline(lambda c: c.tokenize("é" * (MIB // 2) + "x")),
    ),
    Row(
        38,
        "half a surrogate pair, to the SDK",
        f"{INVALID} MALFORMED_REQUEST",
        offline(lambda c: c.complete("a\ud800")),
    ),
    Row(
        52,
        "top_k 2^31, which no message can carry",
        f"{INVALID} TOP_K_RANGE",
        offline(lambda c: c.complete("x", top_k=2**31)),
    ),
    Row(
        61,
        "a seed of 5,000 digits",
        f"{INVALID} SEED_RANGE",
        offline(lambda c: c.complete("x", seed=10**5000)),
    ),
    Row(
        67,
        "priority urgent",
        f"{INVALID} ENUM_UNKNOWN",
        offline(lambda c: c.complete("x", priority="urgent")),
    ),
    Row(
        93,
        "16,385 ids to detokenize",
        f"{INVALID} ID_COUNT",
        offline(lambda c: c.detokenize([1] * 16_385)),
    ),
    Row(
        93,
        "id -1 to detokenize",
        f"{INVALID} TOKEN_ID_RANGE",
        offline(lambda c: c.detokenize([-1])),
    ),
    Row(
        98,
        "max_new_tokens as text",
        f"{INVALID} WRONG_TYPE",
        offline(lambda c: c.complete("x", max_new_tokens="12")),
    ),
    Row(
        98,
        "max_new_tokens as 12.0",
        f"{INVALID} WRONG_TYPE",
        offline(lambda c: c.complete("x", max_new_tokens=12.0)),
    ),
    Row(
        98,
        "max_new_tokens as True",
        f"{INVALID} WRONG_TYPE",
        offline(lambda c: c.complete("x", max_new_tokens=True)),
    ),
    Row(
        99,
        "an option that does not exist",
        "TypeError",
        offline(lambda c: c.complete("x", frequencey_penalty=1)),
    ),
    Row(74, "a grammar, to the SDK", "TypeError", offline(lambda c: c.complete("x", grammar="a+"))),
    Row(
        123,
        "a token in the clear to another machine",
        "ValueError",
        {"SDK": lambda _: raised(lambda: Client(ELSEWHERE, token="t"))},
    ),
    Row(123, "no address", "ValueError", {"SDK": lambda _: raised(lambda: Client(""))}),
    Row(124, "use after close", "RuntimeError", {"SDK": after_close}),
    Row(124, "use from another event loop", "RuntimeError", {"async SDK": another_loop}),
    Row(125, "a loop over a stream that is left", "OK", {"SDK": broken_off}),
)
