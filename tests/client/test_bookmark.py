"""A stream's bookmark: another process goes on behind what the one that died had."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from awaited import Ask

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import AsyncClient, Client, Completion
from santacoder_client.cli import main
from santacoder_client.testing import Answer, Failure, FakeRouter

Serve = Callable[..., FakeRouter]
WHOLE = ("def ", "é", "()", ": ☃")
LOST = Failure(grpc.StatusCode.UNAVAILABLE, message="Socket closed")


@pytest.mark.fault("C13")
@pytest.mark.parametrize("count", range(len(WHOLE) + 1))
def test_another_client_goes_on_behind_the_bookmark(ask: Ask, serve: Serve, count: int) -> None:
    router = serve(Answer(WHOLE))

    async def until_it_dies(client: AsyncClient) -> bytes:
        stream = client.stream("p", echo=True)
        if count:
            async for piece in stream:
                if piece.text.endswith(WHOLE[count - 1]):
                    break
        return stream.bookmark()

    async def afterwards(client: AsyncClient) -> Completion:
        return await client.resume(bookmark).result()

    bookmark = ask(router.target, until_it_dies)
    rest = ask(router.target, afterwards)
    begun = "".join(WHOLE[:count])
    assert rest.text == ("" if count else "p") + "".join(WHOLE)[len(begun) :]
    assert rest.usage.completion_token_count == len("".join(WHOLE))
    resumed = [choice.token_ids for choice in router.requests[-1].resume.choices]
    assert [list(ids) for ids in resumed] == ([[ord(c) for c in begun]] if count else [])


@pytest.mark.fault("C13")
def test_what_goes_on_behind_a_bookmark_outlives_its_server_too(ask: Ask, serve: Serve) -> None:
    router = serve(Answer(WHOLE), Answer(WHOLE[:2], failure=LOST), Answer(WHOLE))

    async def first(client: AsyncClient) -> bytes:
        stream = client.stream("p")
        await anext(stream)
        return stream.bookmark()

    async def second(client: AsyncClient) -> str:
        return (await client.resume(bookmark).result()).text

    bookmark = ask(router.target, first)
    assert ask(router.target, second) == "".join(WHOLE[1:])
    counts = [sum(len(c.token_ids) for c in r.resume.choices) for r in router.requests]
    assert counts == [0, 4, 5]


def test_a_turns_bookmark_is_behind_what_its_caller_has_taken_and_keeps_what_the_session_says(
    serve: Serve,
) -> None:
    router = serve(Answer(WHOLE))
    with Client(router.target) as client:
        with client.session(priority="low", cache_salt=b"salt") as session:
            stream = session.stream("p")
            first = next(stream)
            # The whole answer has come, and all but one piece of it waits.
            while session._turns.running is not None:
                time.sleep(0.01)
            bookmark = pb.CompletionRequest.FromString(stream.bookmark())
    assert tuple(bookmark.resume.choices[0].token_ids) == tuple(first.token_ids)
    assert (bookmark.priority, bookmark.cache_salt) == (pb.PRIORITY_LOW, b"salt")


@pytest.mark.parametrize("bookmark", [b"", b"\xff\xff", "text"])
def test_what_is_no_bookmark_is_refused_before_anything_is_sent(bookmark: bytes) -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(ValueError, match="bookmark: cannot be"):
        client.resume(bookmark)


def command(capsys: pytest.CaptureFixture[str], target: str, *words: str) -> tuple[int, str, str]:
    code = main(["complete", "p", f"--target={target}", *words])
    return code, *capsys.readouterr()


@pytest.mark.fault("C13")
def test_the_command_goes_on_where_it_was_and_leaves_no_bookmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state"
    flag = f"--bookmark={path}"
    # What ends it is no matter: here its server, for good.
    final = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", message="internal error")
    with FakeRouter(Answer(WHOLE[:2], failure=final), Answer(WHOLE)) as router:
        code, begun, _ = command(capsys, router.target, flag)
        assert (code, begun, path.stat().st_mode & 0o777) == (1, "".join(WHOLE[:2]), 0o600)
        assert command(capsys, router.target, flag) == (0, "".join(WHOLE[2:]), "")
        assert list(tmp_path.iterdir()) == []
        path.write_bytes(b"\xff\xff")
        code, out, err = command(capsys, router.target, flag)
        assert (code, out) == (2, "")
        assert err.startswith("error: --bookmark: cannot be read; got 2 bytes")
        code, out, err = command(capsys, router.target, flag, "--json")
        assert (code, out) == (2, "") and "allowed without --json" in err
