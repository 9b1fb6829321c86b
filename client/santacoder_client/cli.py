"""The `santacoder` command: one request from a terminal; knows nothing the SDK hides."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from santacoder_client._arguments import build_parser, options_of
from santacoder_client._bookmark_file import BookmarkFile
from santacoder_client._channel import DEFAULT_TARGET
from santacoder_client._security_arguments import (
    TOKEN_VARIABLE,
    tls_of_arguments,
    token_of_arguments,
)
from santacoder_client._stopwatch import Stopwatch
from santacoder_client._stream import CompletionStream
from santacoder_client.client import Client
from santacoder_client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    SantaCoderError,
    Unauthenticated,
    Unavailable,
)
from santacoder_client.types import Completion


class UsageError(Exception):
    """What is asked for cannot be done as asked; one line for a person."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status. Usage errors leave by SystemExit(2)."""
    # Of the environment only the target and the token count.
    parser = build_parser(os.environ.get("SANTACODER_TARGET") or DEFAULT_TARGET)
    arguments = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="")  # the text as it is, everywhere
    try:
        with _connected(arguments) as client:
            _run(client, arguments)
        sys.stdout.flush()
    except UsageError as error:
        return _complain(str(error), None, 2)
    except SantaCoderError as error:
        return _fail(error, arguments)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # What is still in the buffer would fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return _complain(f"standard output: {error.strerror}", None, 1)
        # Whoever read has seen enough.
    return 0


def _connected(arguments: argparse.Namespace) -> Client:
    try:
        return Client(
            arguments.target,
            tls=tls_of_arguments(arguments) or False,
            token=token_of_arguments(arguments, os.environ.get(TOKEN_VARIABLE)),
            allow_plain_token=arguments.allow_plain_token,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _run(client: Client, arguments: argparse.Namespace) -> None:
    match arguments.command:
        case "complete":
            prompt = _text_of(arguments.prompt)
            _show(client, lambda: client.stream(prompt, **options_of(arguments)), arguments)
        case "infill":
            prefix = _read(arguments.prefix_file)
            suffix = _read(arguments.suffix_file)
            options = options_of(arguments)
            _show(client, lambda: client.stream_infill(prefix, suffix, **options), arguments)
        case "tokenize":
            token_ids = client.tokenize(_text_of(arguments.text))
            if arguments.json:
                _print_json({"token_ids": token_ids, "token_count": len(token_ids)})
            else:
                print(*token_ids)
        case "info":
            info = asdict(client.model())
            if arguments.json:
                _print_json(info)
            else:
                _print_table("", info)


def _begun(
    client: Client, begin: Callable[[], CompletionStream], kept: BookmarkFile
) -> CompletionStream:
    """The stream, or what is still to come of one whose command was killed."""
    bookmark = kept.read()
    if bookmark is None:
        return begin()
    try:
        return client.resume(bookmark)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def _show(
    client: Client, begin: Callable[[], CompletionStream], arguments: argparse.Namespace
) -> None:
    """Prints an answer: text as it comes, or several answers or JSON at the end."""
    at_once = not arguments.json and arguments.completion_count in (None, 1)
    if arguments.bookmark and not at_once:
        raise UsageError("--bookmark: for text as it comes; allowed without --json, for one answer")
    kept = BookmarkFile(arguments.bookmark)
    stream = _begun(client, begin, kept)
    stopwatch = Stopwatch()
    with stream:
        for piece in stream:
            stopwatch.see(piece)
            if at_once:
                print(piece.text, end="", flush=True)
            if arguments.bookmark:
                kept.keep(stream.bookmark())
        done = stream.result()
    kept.remove()
    if arguments.json:
        _print_json(_completion_object(done))
    elif not at_once:
        for choice in done.choices:
            print(f"==> choice {choice.index} <==\n{choice.text}")
    elif sys.stdout.isatty() and not done.text.endswith("\n"):
        print()
    if arguments.verbose:
        print(f"{stopwatch.summary()}, {done.finish_reason}", file=sys.stderr)


def _completion_object(done: Completion) -> dict[str, object]:
    return {
        "request_id": done.request_id,
        "text": done.text,
        "token_ids": done.token_ids,
        "finish_reason": done.finish_reason,
        **asdict(done),
    }


def _text_of(argument: str) -> str:
    return _read("-") if argument == "-" else argument


def _read(path: str) -> str:
    """A file's text, line ends and all; `-` is standard input."""
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return content.decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text at byte {error.start}") from error


def _print_json(value: dict[str, object]) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _print_table(prefix: str, values: dict[str, object]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            _print_table(f"{prefix}{name}.", value)
        elif name == "special_tokens" and isinstance(value, Sequence):
            _print_table("special_token.", {token["text"]: token["token_id"] for token in value})
        else:
            print(f"{prefix + name:<40} {value}")


def _fail(error: SantaCoderError, arguments: argparse.Namespace) -> int:
    """Says what went wrong; `--json` says it on stdout too, as one object."""
    unreached = isinstance(error, Unavailable) and error.reason is None
    message = error.message
    if unreached:
        message = f"cannot reach the server at {arguments.target}: {message}"
    if arguments.json:
        _print_json(
            {
                "error": {
                    "code": error.code.name,
                    "reason": error.reason,
                    "message": message,
                    "violations": [asdict(violation) for violation in error.violations],
                    "retry_after": error.retry_after,
                    "request_id": error.request_id,
                }
            }
        )
    return _complain(message, _hint(error, arguments.target), 5 if unreached else 1)


def _hint(error: SantaCoderError, target: str) -> str | None:
    match error:
        case Unavailable(reason=None):
            return f"is a server running at {target}? `santacoder-serve` starts one"
        case Overloaded(retry_after=float(seconds)) | Unavailable(retry_after=float(seconds)):
            return f"try again in {seconds:g} s"
        case Unauthenticated():
            return f"--token-file or ${TOKEN_VARIABLE} says who calls"
        case PermissionDenied():
            return "whoever runs the server gives tokens their rights"
        case DeadlineExceeded():
            return "--timeout gives it longer; --time-budget returns what there is"
        case InvalidRequest():
            return "`santacoder info` shows what the server allows"
    return None


def _complain(message: str, hint: str | None, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    if hint is not None:
        print(f"hint: {hint}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
