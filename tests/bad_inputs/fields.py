"""Rows of single fields: each is tried on every way in that can say it at all.

The raw message is made from the SDK's own keywords, past its checks, so that what the SDK refuses
before any network and what the server refuses are one and the same request.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bad_inputs.calls import COMPLETE, OPENING, STREAM, converse, stream, unary
from bad_inputs.row import Row, Try
from google.protobuf.message import Message

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import AsyncClient, Client, SantaCoderError
from santacoder_client._options import OPTIONS
from santacoder_client.cli import main
from santacoder_client.types import Infill

NOBODY = "127.0.0.1:1"
"""Where no server is: what is refused there was refused before any network."""
FEW = 4
"""New tokens where an input must be answered."""

Prompt = str | Sequence[int] | Infill
Options = Mapping[str, Any]


def field_row(
    number: int,
    words: str,
    reason: str,
    prompt: Prompt = "x = 1",
    *,
    needs_server: bool = False,
    **options: Any,
) -> Row:
    """A row for the raw service, the SDK and the command line; `OK` is an answer, too.

    `needs_server` where only the served model can tell that it is wrong.
    """
    answer = "OK" if reason == "OK" else f"INVALID_ARGUMENT {reason}"
    if reason == "OK":
        options.setdefault("max_new_tokens", FEW)
    target = None if needs_server or reason == "OK" else NOBODY
    tries: dict[str, Try] = {
        **raw_ways(message(prompt, options)),
        "SDK": lambda place: _sync(target or place.service.target, prompt, options),
        "async SDK": lambda place: _async(target or place.service.target, prompt, options),
    }
    if isinstance(prompt, str) and _fits_a_shell(prompt, options):
        tries["santacoder complete"] = lambda place: _command(
            target or place.service.target, prompt, options
        )
    return Row(number, words, answer, tries)


def raw_ways(request: pb.CompletionRequest | bytes) -> dict[str, Try]:
    """The three methods that take a completion; bytes are a serialized one."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    turn = pb.CompletionSessionRequest(turn=1).SerializeToString() + _framed(3, data)
    return {
        "Complete": lambda place: unary(place, COMPLETE, _framed(1, data)),
        "StreamComplete": lambda place: stream(place, STREAM, _framed(1, data)),
        "CompletionSession": lambda place: converse(place, [OPENING, turn]),
    }


def message(prompt: Prompt, options: Options) -> pb.CompletionRequest:
    """The request as the SDK would say it, unchecked."""
    request = pb.CompletionRequest()
    if isinstance(prompt, Infill):
        request.infill.prefix, request.infill.suffix = prompt.prefix, prompt.suffix
    elif isinstance(prompt, str):
        request.text = prompt
    else:
        request.token_ids.SetInParent()
        request.token_ids.ids.extend(prompt)
    for option in OPTIONS:
        if option.name in options:
            *parents, name = option.field.split(".")
            target: Message = request
            for parent in parents:
                target = getattr(target, parent)
            assign(target, name, options[option.name])
    return request


def assign(target: Message, name: str, value: Any) -> None:
    """Sets a field by the shape of its value."""
    if isinstance(value, list):
        getattr(target, name).extend(value)
    elif isinstance(value, dict):
        getattr(target, name).update(value)
    elif name == "time_budget":
        getattr(target, name).seconds = int(value // 1)
        getattr(target, name).nanos = int(value % 1 * 1e9)
    else:
        setattr(target, name, value)


def _framed(number: int, data: bytes) -> bytes:
    """`data` as the embedded message of field `number`."""
    length, size = b"", len(data)
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def said(call: Callable[[], object]) -> str:
    """What the SDK raises, in the table's words."""
    try:
        call()
    except SantaCoderError as error:
        return f"{error.code.name} {error.reason}" if error.reason else error.code.name
    return "OK"


def _sync(target: str, prompt: Prompt, options: Any) -> str:
    with Client(target) as client:
        if isinstance(prompt, Infill):
            return said(lambda: client.infill(prompt.prefix, prompt.suffix, **options))
        return said(lambda: client.complete(prompt, **options))


def _async(target: str, prompt: Prompt, options: Any) -> str:
    async def ask() -> None:
        async with AsyncClient(target) as client:
            if isinstance(prompt, Infill):
                await client.infill(prompt.prefix, prompt.suffix, **options)
            else:
                await client.complete(prompt, **options)

    return said(lambda: asyncio.run(ask()))


def _command(target: str, prompt: str, options: Options) -> str:
    """The command's JSON says the same; its status is 1, and a person reads one line."""
    words = ["complete", f"--target={target}", "--json"]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        words += [f"{flag}={text}" for text in _texts(value)]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([*words, "--", prompt])
    answer = json.loads(out.getvalue())
    if status == 0:
        return "OK"
    assert status == 1 and err.getvalue().startswith("error: "), err.getvalue()
    assert len(err.getvalue().splitlines()) <= 2 and "Traceback" not in err.getvalue()
    return f"{answer['error']['code']} {answer['error']['reason']}"


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [",".join(f"{token_id}={bias}" for token_id, bias in value.items())]
    if isinstance(value, list) and value and isinstance(value[0], str):
        return value
    return [",".join(map(str, value)) if isinstance(value, list) else str(value)]


def _fits_a_shell(prompt: str, options: Options) -> bool:
    """A command's words hold no zero byte and no bytes that are no text, and not too many."""
    texts = [prompt, *(text for value in options.values() for text in _texts(value))]
    plain = all("\0" not in text and len(text) < 100_000 for text in texts)
    return plain and not any(isinstance(value, bytes | bool) for value in options.values())
