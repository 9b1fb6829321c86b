"""The `santacoder` command's arguments; its generation flags are made from the table of options.

Knows no server and prints nothing but help.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from santacoder_client import _bounds, _checks, _options
from santacoder_client._checks import Check
from santacoder_client._options import OPTIONS, CompletionOptions, Option
from santacoder_client._security_arguments import add_security_arguments
from santacoder_client.types import FimOrder, Priority, TruncatePolicy

Number = TypeVar("Number", int, float)

_EXAMPLES = """\
examples:
  santacoder complete 'def fib(n):' --max-new-tokens 64
  git diff | santacoder complete - --temperature 0.8 --seed 7
  santacoder infill --prefix-file before.py --suffix-file after.py --json
  santacoder tokenize 'x = 12'
  santacoder info --target gpu-host:50051 --tls --token-file my.token

exit status: 0 done, 1 the request failed, 2 wrong usage, 5 no server reached, 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the form of all the project's commands."""

    def error(self, message: str) -> NoReturn:
        plain = message.removeprefix("argument ")
        self.exit(2, f"error: {plain}\nhint: {self.prog} --help\n")


def build_parser(default_target: str) -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(
        prog="santacoder",
        description="Code completion and fill-in-the-middle from a SantaCoder server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_target(parser, default_target)
    add_security_arguments(parser.add_argument_group("security"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    complete = _add_command(commands, "complete", "continue a prompt", "%(prog)s PROMPT [options]")
    complete.add_argument("prompt", metavar="PROMPT", help="text to continue; - reads stdin")
    _add_generation(complete)
    infill = _add_command(
        commands,
        "infill",
        "fill in the middle between two files",
        "%(prog)s --prefix-file F --suffix-file F [options]",
    )
    infill.add_argument("--prefix-file", metavar="F", required=True, help="text before the cursor")
    infill.add_argument("--suffix-file", metavar="F", required=True, help="text after the cursor")
    _add_generation(infill)
    tokenize = _add_command(commands, "tokenize", "print a text's token ids")
    tokenize.add_argument("text", metavar="TEXT", help="text to cut; - reads stdin")
    _add_command(commands, "info", "print what the server serves")
    return parser


def options_of(arguments: argparse.Namespace) -> CompletionOptions:
    """The generation options, None where not given."""
    given = {option.name: getattr(arguments, option.name) for option in OPTIONS}
    return cast(CompletionOptions, given)


def _add_command(
    commands: argparse._SubParsersAction[_Parser], name: str, summary: str, usage: str | None = None
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        usage=usage,
        allow_abbrev=False,
    )
    # SUPPRESS keeps what stood before the command.
    _add_target(command, argparse.SUPPRESS)
    add_security_arguments(command.add_argument_group("security"), default=argparse.SUPPRESS)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    return command


def _add_target(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--target",
        metavar="HOST:PORT[,...]",
        default=default,
        help="the server, or several: the first that serves is used, and the next when it is gone"
        " (default: $SANTACODER_TARGET, else 127.0.0.1:50051)",
    )


def _add_generation(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--verbose", action="store_true", help="print times and token counts on stderr"
    )
    command.add_argument(
        "--bookmark",
        type=Path,
        metavar="F",
        help="keep in F what it takes to go on if this is killed; with F there, print the rest",
    )
    group = command.add_argument_group("generation", "in brackets: when not given")
    for option in OPTIONS:
        flag = "--" + option.name.replace("_", "-")
        # Not given is None, and so the server's default, for switches too.
        group.add_argument(flag, default=None, help=option.help, **_form(option))


def _form(option: Option) -> Any:
    """How an option is written on a command line."""
    forms: dict[Check, dict[str, object]] = {
        _checks.integer: {"type": _whole, "metavar": "N"},
        _checks.real: {"type": _number, "metavar": "X"},
        _checks.seconds: {"type": _number, "metavar": "SECONDS"},
        _checks.time_span: {"type": _number, "metavar": "SECONDS"},
        _checks.boolean: {"action": "store_true"},
        _checks.text: {"metavar": "TEXT"},
        _checks.salt: {"metavar": "TEXT"},
        _checks.texts: {"metavar": "TEXT", "action": "append"},
        _checks.token_ids: {"type": _token_ids, "metavar": "ID,ID"},
        _checks.biases: {"type": _biases, "metavar": "ID=X,ID=X"},
        _options.fim_order: _one_of(FimOrder),
        _options.truncate_policy: _one_of(TruncatePolicy),
        _options.priority: _one_of(Priority),
    }
    return forms[option.check]


def _whole(text: str) -> int:
    return _read(int, text, "a whole number")


def _number(text: str) -> float:
    return _read(float, text, "a number")


def _token_ids(text: str) -> list[int]:
    return [_read(int, part, "whole numbers with commas between") for part in text.split(",")]


def _biases(text: str) -> dict[int, float]:
    allowed = "ID=X,ID=X, such as 5=1.5,6=-100"
    biases: dict[int, float] = {}
    for part in text.split(","):
        token_id, _, bias = part.partition("=")
        biases[_read(int, token_id, allowed)] = _read(float, bias, allowed)
    return biases


def _read(kind: Callable[[str], Number], text: str, allowed: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        got = _bounds.shown(text)
        raise argparse.ArgumentTypeError(f"not readable; got {got!r}; allowed {allowed}") from None


def _one_of(kind: type[StrEnum]) -> dict[str, object]:
    """A type and not choices, whose message differs from one Python to the next."""
    names = [member.value for member in kind]

    def member(text: str) -> str:
        if text not in names:
            got, allowed = _bounds.shown(text), ", ".join(names)
            raise argparse.ArgumentTypeError(f"unknown; got {got!r}; allowed {allowed}")
        return text

    return {"type": member, "metavar": "{" + ",".join(names) + "}"}
