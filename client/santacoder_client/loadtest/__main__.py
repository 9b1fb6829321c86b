"""The `santacoder-load` command: chooses the verb, and says in one line what went wrong."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol

from santacoder_client.loadtest.errors import LoadTestError

_EXAMPLES = """\
exit status: 0 done, 1 failed while running, 2 wrong usage, 5 no server reached,
             6 a --fail-on threshold was missed, 130 interrupted (what was measured is kept)
"""


_OF_OUTPUT = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)
"""What a write may end with. Any other error is of a call that this machine had no room for."""


class Verb(Protocol):
    """A module of `verbs/`."""

    def add_parser(self, subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Adds the verb's own parser, with `execute` as its default."""

    def execute(self, arguments: argparse.Namespace) -> int:
        """Does it; returns the exit status."""


def verbs() -> tuple[Verb, ...]:
    """Every verb, in the order of `--help`. Raises ImportError without the extra [load]."""
    from santacoder_client.loadtest.verbs import compare, mock_shard, replay, report, run, sweep

    return (run, sweep, replay, compare, report, mock_shard)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the form of all the project's commands."""

    def error(self, message: str) -> NoReturn:
        plain = message.removeprefix("argument ")
        self.exit(2, f"error: {plain}\nhint: {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser: argparse.ArgumentParser = _Parser(
        prog="santacoder-load",
        description="Loads a SantaCoder service and says truthfully what came back, and when.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in verbs():
        verb.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status. Usage errors leave by SystemExit(2)."""
    # gRPC's own log would come between a person and the error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _open_missing_streams()
    try:
        parser = build_parser()
    except ModuleNotFoundError as error:
        hint = "pip install 'santacoder-serving[load]'"
        return _complain(f"the load tester needs {error.name}, which is not installed", hint, 1)
    arguments = parser.parse_args(argv)
    # For the result: what was asked, word for word.
    arguments.command = list(sys.argv[1:] if argv is None else argv)
    return _execute(arguments)


def _open_missing_streams() -> None:
    """A caller may have closed them; what is said is then said to nobody, and fails nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


def _execute(arguments: argparse.Namespace) -> int:
    try:
        status: int = arguments.execute(arguments)
        sys.stdout.flush()
    except LoadTestError as error:
        return _complain(str(error), error.hint, error.exit_status)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno not in _OF_OUTPUT:
            return _complain(f"this machine: {error}", None, 1)
        # What is still in the buffer would fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return _complain(f"standard output: {error.strerror}", None, 1)
        return 0  # whoever read has seen enough
    return status


def _complain(message: str, hint: str | None, status: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    if hint is not None:
        sys.stderr.write(f"hint: {hint}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
