"""Rows 106 to 120: words that must end one of the five commands, with its status and one line."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
from collections.abc import Callable, Sequence
from functools import partial

from bad_inputs.row import Place, Row

from santacoder_client import cli
from santacoder_client.loadtest import __main__ as load
from santacoder_router import config as router
from santacoder_shard import config as shard
from santacoder_shard import launch

Command = Callable[[Sequence[str]], object]
COMMANDS: dict[str, Command] = {
    "santacoder": cli.main,
    "santacoder-load": load.main,
    "santacoder-serve": launch.main,
    # These two start something once their words are right.
    "santacoder-router": router.parse_arguments,
    "santacoder-shard": shard.parse_config,
}
RANK = "--rank 0 --model m --listen unix:/tmp/x"
SHARDS = "--shards 127.0.0.1:1"


def line(command: str, words: str, place: Place) -> str:
    """`exit N` of a command that says in one line why, and no more than a hint beside it."""
    out, err = io.StringIO(), io.StringIO()
    before = os.getcwd()
    os.chdir(place.folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = COMMANDS[command](shlex.split(words))
    except SystemExit as leaving:
        status = leaving.code
    finally:
        os.chdir(before)
    said = err.getvalue().splitlines()
    assert out.getvalue() == "" and "Traceback" not in err.getvalue()
    assert said[0].startswith("error: ") and not said[0].startswith("error: argument"), said
    assert len(said) <= 2 and all(len(text) < 600 for text in said), said
    return f"exit {status}"


def words(number: int, command: str, answer: str, *several: str) -> tuple[Row, ...]:
    """A row for each line of words."""
    tries = ((text, {command: partial(_try, command, text)}) for text in several)
    return tuple(Row(number, f"{command} {text}", answer, attempt) for text, attempt in tries)


def _try(command: str, text: str, place: Place) -> str:
    return line(command, text, place)


COMMAND_ROWS = (
    *words(
        106,
        "santacoder-serve",
        "exit 2",
        *(f"--port {port}" for port in ("70000", "-1", "abc", "''")),
    ),
    *words(106, "santacoder-serve", "exit 2", "--metrics-port 65536"),
    *words(
        106,
        "santacoder-router",
        "exit 2",
        *(f"{SHARDS} --port {port}" for port in ("70000", "-1", "abc")),
    ),
    *words(
        107,
        "santacoder-serve",
        "exit 2",
        "--host 0.0.0.0",
        "--host ::",
        "--host example.com",
        "--host 0.0.0.0 --token-file t",
    ),
    *words(
        107,
        "santacoder-router",
        "exit 2",
        f"{SHARDS} --host 0.0.0.0",
        "--shards 192.0.2.1:1",
        "--shards ''",
        "--shards a,,b",
        "--shards unix:a,unix:a",
    ),
    *words(
        107,
        "santacoder-shard",
        "exit 2",
        "--rank 0 --model m --listen 0.0.0.0:1",
        "--rank 0 --model m --listen x",
        f"--rank 0 --model m --listen unix:{'x' * 108}",
    ),
    *words(
        108,
        "santacoder-serve",
        "exit 3",
        "--model ./nowhere",
        "--model a-file",
        "--model an-empty-folder",
        "--model ../../..//etc",
    ),
    *words(108, "santacoder-serve", "exit 2", "--model"),
    *words(
        109,
        "santacoder-serve",
        "exit 2",
        "--dtype int8",
        "--device tpu",
        "--fim maybe",
        "--log-level loud",
        "--unknown 1",
        "--por 1",
    ),
    *words(
        110,
        "santacoder-serve",
        "exit 2",
        *(f"--max-running {value}" for value in ("0", "-1", "1025", "1e9", "8.5")),
    ),
    *words(
        110,
        "santacoder-serve",
        "exit 2",
        *(f"--kv-cache-bytes {value}" for value in ("200%", "1.5", "'10GB '", "0", "-1")),
    ),
    *words(
        110,
        "santacoder-serve",
        "exit 2",
        "--kv-cache-tokens 0",
        "--kv-cache-tokens 9e99",
        "--kv-cache-tokens 1 --kv-cache-bytes 1",
        "--tokens-per-step 0",
        "--tokens-per-step 65537",
        "--threads 0",
        "--threads 1025",
    ),
    *words(111, "santacoder-serve", "exit 2", "--tp 0", "--tp -1", "--tp 65", "--tp 3"),
    *words(
        111,
        "santacoder-shard",
        "exit 2",
        "--rank 1 --model m --listen unix:/tmp/x",
        f"{RANK} --tp 2",
        f"{RANK} --epoch 0",
        f"{RANK} --tls-cert c",
    ),
    *words(
        112,
        "santacoder-router",
        "exit 2",
        *(
            f"{SHARDS} --{name}-seconds {value}"
            for name in ("drain", "start", "recovery", "stall")
            for value in ("nan", "-1", "1e9", "inf", "'10 min'")
        ),
    ),
    *words(
        113,
        "santacoder",
        "exit 2",
        "complete",
        "complete x --top-k many",
        "complete x --stop-token-ids 1,x",
        "complete x --fim-order msp",
        "complete x --frequencey-penalty 1",
        "infill --prefix-file nowhere --suffix-file nowhere",
        "nothing",
        "complete x --token-file nowhere",
        "info --tls-ca nowhere",
        "complete x --grammar a",
    ),
    *words(
        114,
        "santacoder-load",
        "exit 2",
        "run --rate 0",
        "run --rate nan",
        "run --rate 1e9",
        "run --rate 1 --duration 0",
        "run --concurrency 0",
    ),
    *words(115, "santacoder-load", "exit 2", "run --rate 1 --target 192.0.2.1:80"),
    *words(
        120,
        "santacoder-load",
        "exit 2",
        "run --rate 1 --output a-file",
        "run --rate 1 --output nowhere/x",
    ),
)
