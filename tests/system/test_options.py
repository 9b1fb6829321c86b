"""Every option of every command: told by --help, bounded, and no variable that looks like one."""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import santacoder_router.config
import santacoder_shard.config
from santacoder_client import _arguments
from santacoder_client.loadtest import __main__ as load
from santacoder_router import environment as router_environment
from santacoder_shard import arguments, devices, environment, launch
from santacoder_shard.errors import UnusableOption
from santacoder_shard.geometry import Geometry

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("client/santacoder_client", "router/santacoder_router", "shard/santacoder_shard")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
# Options for which 0 says something: a free port, no time at all, the first rank.
ZERO = {
    *("--port", "--metrics-port", "--rank", "--warm-up", "--cool-down", "--grace", "--seed"),
    *(
        "--withdraw-seconds",
        "--drain-seconds",
        "--start-seconds",
        "--recovery-seconds",
        "--stall-seconds",
    ),
}
# Of the load: that nothing is cancelled, waited for or broken is a load, too.
ZERO |= {
    *("--debounce", "--cancel-share", "--cancel-after", "--halvings"),
    *("--step-base", "--step-per-row", "--prefill-per-token", "--jitter"),
    *("--end-every", "--die-after", "--hang-after", "--hang-for", "--fail-share"),
}
# What a request says is the SDK's to bound, and the contract's.
REQUEST = {
    *("--max-new-tokens", "--min-new-tokens", "--temperature", "--top-k", "--top-p", "--min-p"),
    *("--typical-p", "--repetition-penalty", "--presence-penalty", "--frequency-penalty"),
    *("--seed", "--sampling-seed", "--stop-token-ids", "--logprobs", "--completion-count"),
    *("--time-budget", "--timeout"),
}
ENORMOUS = ("9" * 30, "1e400", "inf", "nan", "-1", "")


def parser_of(command: str) -> argparse.ArgumentParser:
    """The command's parser, caught as it is about to read its words."""
    if command == "santacoder":
        return _arguments.build_parser("x:1")
    if command == "santacoder-load":
        return load.build_parser()
    if command == "santacoder-router":
        return santacoder_router.config._parser()
    caught: list[argparse.ArgumentParser] = []

    class Caught(Exception):
        pass

    def catch(self: argparse.ArgumentParser, *_: object) -> None:
        caught.append(self)
        raise Caught

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arguments.OneLineParser, "parse_args", catch)
        parse: Callable[[list[str]], object] = (
            launch.parse_config
            if command == "santacoder-serve"
            else santacoder_shard.config.parse_config
        )
        with pytest.raises(Caught):
            parse([])
    return caught[0]


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every option, of subcommands too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from actions(inner)
        else:
            yield action


COMMANDS = (
    "santacoder",
    "santacoder-load",
    "santacoder-router",
    "santacoder-serve",
    "santacoder-shard",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for(command: str) -> None:
    for action in actions(parser_of(command)):
        assert action.help and action.help != argparse.SUPPRESS, action.option_strings


@pytest.mark.fault("G8")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_number_is_without_a_ceiling_and_zero_is_never_without_end(command: str) -> None:
    seen = 0
    for action in actions(parser_of(command)):
        kind: Any = action.type
        if not action.option_strings or kind is None or not is_number(kind):
            continue
        seen += 1
        flag = action.option_strings[0]
        if command in ("santacoder", "santacoder-load") and flag in REQUEST:
            continue
        for text in (*ENORMOUS, *(() if flag in ZERO else ("0",))):
            assert is_refused(kind, text), (flag, text)
    assert seen


def is_number(kind: Callable[[str], object]) -> bool:
    """Whether it takes a small number and no word."""
    return any(not is_refused(kind, text) for text in ("1", "16", "1s")) and is_refused(kind, "x")


def is_refused(kind: Callable[[str], object], text: str) -> bool:
    try:
        kind(text)
    except (argparse.ArgumentTypeError, ValueError):
        return True
    return False


ENVIRONMENTS: tuple[ModuleType, ...] = (environment, router_environment)


@pytest.mark.fault("G5")
@pytest.mark.parametrize("module", ENVIRONMENTS, ids=lambda module: module.__name__)
def test_a_variable_that_looks_like_ours_is_told_without_its_value(module: ModuleType) -> None:
    given = {"SANTACODER_TOKN": "canary", "SANTACODER_TOKEN": "t", "PATH": "x", "SANTA": "y"}
    assert module.strange_variables(given) == [
        "environment.SANTACODER_TOKN: unknown; allowed SANTACODER_TARGET, SANTACODER_TOKEN;"
        " nearest SANTACODER_TOKEN"
    ]
    assert module.strange_variables({"SANTACODER_\n": ""})[0].count("\n") == 0


@pytest.mark.fault("G5")
@pytest.mark.parametrize(
    "parse",
    [
        lambda words: launch.main(words),
        lambda words: santacoder_shard.config.parse_config(
            ["--rank=0", "--model=m", "--listen=unix:/x", *words]
        ),
        lambda words: santacoder_router.config.parse_arguments(
            ["--shards=localhost:1", *words], os.environ
        ),
    ],
    ids=["santacoder-serve", "santacoder-shard", "santacoder-router"],
)
def test_strict_env_refuses_it(
    parse: Callable[[list[str]], object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SANTACODER_MAX_BTACH", "canary")
    with pytest.raises(SystemExit) as caught:
        parse(["--strict-env"])
    error, _hint = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert error.startswith("error: environment.SANTACODER_MAX_BTACH: unknown; allowed ")
    assert "canary" not in error


@pytest.mark.fault("G5")
def test_without_it_the_log_has_a_warning() -> None:
    words = ["--shards=unix:/nowhere", "--start-seconds=0", "--port=0"]
    done = subprocess.run(
        [sys.executable, "-m", "santacoder_router", *words],
        env={**os.environ, "SANTACODER_MAX_BTACH": "canary"},
        capture_output=True,
        text=True,
    )
    [line] = [line for line in done.stderr.splitlines() if "SANTACODER_MAX_BTACH" in line]
    assert "level=warning" in line and "canary" not in done.stderr


@pytest.mark.fault("G6")
@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "no CUDA device here (found 0 CUDA devices, torch"), (1, "there are 1 for 2")],
)
def test_gpus_that_are_not_there_are_refused_with_what_was_found(
    monkeypatch: pytest.MonkeyPatch, count: int, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    geometry = Geometry.__new__(Geometry)
    with pytest.raises(UnusableOption) as caught:
        devices.choose_device("cuda", 0, 2, geometry)
    message = str(caught.value)
    assert message.startswith("--device: ") and said in message
    assert message.endswith("; got cuda; allowed auto, cpu")


def test_every_variable_that_the_sources_name_is_one_that_is_known() -> None:
    variable = re.compile(r"SANTACODER_[A-Z_]+")
    found = {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and variable.fullmatch(node.value)
    }
    for module in ENVIRONMENTS:
        assert found == {*module.OF_CLIENTS, *module.OF_TESTS}
        assert module.strange_variables(dict.fromkeys(found, "")) == []
