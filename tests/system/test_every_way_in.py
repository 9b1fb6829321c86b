"""Unary call, stream, session, async client and command line: one request, one answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running_service import WAIT_SECONDS, Service
from system.cases import OPTIONS, SLOW, SLOW_TOKEN_COUNT, complete, prompt_ids, said

from santacoder_client import (
    AsyncClient,
    Client,
    Completion,
    CompletionOptions,
    CompletionStream,
    FinishReason,
    Piece,
)

PREFIX = "def fibonacci(count):\n    numbers = [0, 1]\n"
SUFFIX = "\n    return numbers[:count]\n"
TEXT = "class Stack:\n    def __init__(self, größe='☃'):\n"
# Random weights make bytes that are no whole characters, and strings that nearly stop.
STOPPING = CompletionOptions(
    max_new_tokens=80, temperature=1.5, seed=3, stop=["e", "zz", "\n"], completion_count=3
)


def joined(pieces: list[Piece], index: int) -> tuple[object, ...]:
    """What the pieces of a choice say together, in the terms of a whole choice."""
    own = [piece for piece in pieces if piece.index == index]
    [end] = [piece for piece in own if piece.finish_reason is not None]
    assert end is own[-1]
    return (
        [token_id for piece in own for token_id in piece.token_ids],
        "".join(piece.text for piece in own),
        tuple(entry for piece in own for entry in piece.logprobs),
        end.finish_reason,
        end.matched_stop,
        end.matched_token_id,
    )


def whole(done: Completion, index: int = 0) -> tuple[object, ...]:
    choice = done.choices[index]
    return (
        choice.token_ids,
        choice.text,
        choice.logprobs,
        choice.finish_reason,
        choice.matched_stop,
        choice.matched_token_id,
    )


def run_command(service: Service, *words: str) -> str:
    """What `santacoder` writes on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "santacoder_client.cli", "--target", service.target, *words],
        capture_output=True,
        timeout=WAIT_SECONDS,
        # What gRPC itself says of a slow machine is not the command's word.
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


@pytest.mark.parametrize("kind", OPTIONS)
def test_streamed_equals_unary(client: Client, kind: str) -> None:
    asked = CompletionOptions(max_new_tokens=100, ignore_eos=True, logprobs=2, echo=True)
    options = OPTIONS[kind] | asked
    unary = client.complete(TEXT, **options)
    stream = client.stream(TEXT, **options)
    pieces = list(stream)
    assert joined(pieces, 0) == whole(unary)
    assert unary.text.startswith(TEXT)
    assert len(unary.logprobs) == len(unary.token_ids) == 100
    # In pieces, and not in one.
    assert len([piece for piece in pieces if piece.token_ids]) > 2
    assert stream.usage is not None
    assert stream.usage.completion_token_count == unary.usage.completion_token_count


def test_streamed_equals_unary_with_stop_strings_and_three_choices(client: Client) -> None:
    unary = client.complete(TEXT, **STOPPING)
    pieces = list(client.stream(TEXT, **STOPPING))
    assert [joined(pieces, index) for index in range(3)] == [whole(unary, i) for i in range(3)]
    assert FinishReason.STOP in {choice.finish_reason for choice in unary.choices}
    assert len({choice.text for choice in unary.choices}) == 3


def test_streamed_infill_equals_unary_infill(client: Client) -> None:
    options = CompletionOptions(max_new_tokens=40, ignore_eos=True, fim_order="spm")
    unary = client.infill(PREFIX, SUFFIX, **options)
    assert joined(list(client.stream_infill(PREFIX, SUFFIX, **options)), 0) == whole(unary)


@pytest.mark.parametrize("kind", OPTIONS)
def test_session_equals_unary(client: Client, kind: str) -> None:
    prompt = prompt_ids(21, 30)
    unary = complete(client, prompt, OPTIONS[kind])
    asked = CompletionOptions(max_new_tokens=40, ignore_eos=True, logprobs=3)
    with client.session(priority="high") as session:
        assert said(session.complete(prompt, **(OPTIONS[kind] | asked))) == said(unary)
        assert joined(list(session.stream(prompt, **(OPTIONS[kind] | asked))), 0) == whole(unary)


def test_a_turn_that_supersedes_another_equals_unary(client: Client) -> None:
    prompt = prompt_ids(22, 30)
    unary = complete(client, prompt, OPTIONS["sampled"])
    asked = CompletionOptions(max_new_tokens=40, ignore_eos=True, logprobs=3)
    with client.session() as session:
        superseded: CompletionStream = session.stream(prompt, **SLOW)
        first = next(superseded)
        assert said(session.complete(prompt, **(OPTIONS["sampled"] | asked))) == said(unary)
        rest = list(superseded)
    assert rest[-1].finish_reason is FinishReason.CANCELLED
    own = [piece for piece in [first, *rest] if piece.index == 0]
    ids = [token_id for piece in own for token_id in piece.token_ids]
    whole_ids = complete(client, prompt, OPTIONS["greedy"], len(ids)).token_ids
    assert ids == whole_ids
    assert len(ids) < SLOW_TOKEN_COUNT


def test_async_client_equals_sync_client(service: Service, client: Client) -> None:
    prompt = prompt_ids(23, 30)
    asked = CompletionOptions(max_new_tokens=40, ignore_eos=True, logprobs=3)
    kinds = list(OPTIONS)

    async def ask_all() -> list[Completion]:
        async with AsyncClient(service.target) as asynchronous:
            calls = (asynchronous.complete(prompt, **(OPTIONS[kind] | asked)) for kind in kinds)
            return list(await asyncio.gather(*calls))

    answers = asyncio.run(ask_all())
    alone = [complete(client, prompt, OPTIONS[kind]) for kind in kinds]
    assert [said(done) for done in answers] == [said(done) for done in alone]


def test_sdk_completion_equals_the_command_lines(service: Service, client: Client) -> None:
    words = ["--max-new-tokens=60", "--temperature=0.9", "--seed=5", "--ignore-eos"]
    options = CompletionOptions(max_new_tokens=60, temperature=0.9, seed=5, ignore_eos=True)
    done = client.complete(TEXT, **options)
    assert run_command(service, "complete", TEXT, *words) == done.text
    answer = json.loads(run_command(service, "complete", TEXT, "--json", *words))
    assert (answer["text"], answer["token_ids"]) == (done.text, done.token_ids)
    assert answer["finish_reason"] == done.finish_reason == FinishReason.LENGTH


def test_sdk_infill_equals_the_command_lines(
    service: Service, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "before").write_text(PREFIX)
    (tmp_path / "after").write_text(SUFFIX)
    files = [f"--prefix-file={tmp_path}/before", f"--suffix-file={tmp_path}/after"]
    said_at_terminal = run_command(service, "infill", *files, "--max-new-tokens=40", "--ignore-eos")
    done = client.infill(PREFIX, SUFFIX, max_new_tokens=40, ignore_eos=True)
    assert said_at_terminal == done.text != ""


def test_sdk_tokens_and_model_equal_the_command_lines(service: Service, client: Client) -> None:
    token_ids = client.tokenize(TEXT)
    assert run_command(service, "tokenize", TEXT).split() == [str(i) for i in token_ids]
    assert client.detokenize(token_ids) == TEXT
    info = json.loads(run_command(service, "info", "--json"))
    model = client.model()
    assert (info["name"], info["revision"]) == (model.name, model.revision)
    assert info["limits"]["context_token_count"] == model.limits.context_token_count == 2048
