"""Argument types and a parser whose every error is one line with exit code 2. Knows no option."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

EXIT_USAGE = 2
# sun_path holds 108 bytes, the last of them zero.
UNIX_PATH_LIMIT_BYTES = 107


class OneLineParser(argparse.ArgumentParser):
    """argparse with long options only in full, and errors as `error: --option: what; got ...`."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say it in one line and leave with exit code 2."""
        text = message.removeprefix("argument ")
        self.exit(EXIT_USAGE, f"error: {text}\nhint: see {self.prog} --help\n")


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """A type for argparse: an integer from `lowest` to `highest`."""

    def parse(text: str) -> int:
        allowed = f"got {text}; allowed {lowest}..{highest}"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not a whole number; {allowed}") from None
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"out of range; {allowed}")
        return value

    return parse


def listen_address(text: str) -> str:
    """A type for argparse: unix:PATH or HOST:PORT."""
    if text.startswith("unix:"):
        size_bytes = len(text.removeprefix("unix:").encode())
        if not 1 <= size_bytes <= UNIX_PATH_LIMIT_BYTES:
            raise argparse.ArgumentTypeError(
                f"socket path too long or empty; got {size_bytes} bytes;"
                f" allowed 1..{UNIX_PATH_LIMIT_BYTES}"
            )
        return text
    _host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(
            f"not an address; got {text}; allowed unix:PATH or HOST:PORT"
        )
    return text


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def absolute_path(text: str) -> Path:
    """A type for argparse: a path that a change of folder does not move."""
    return Path(text).expanduser().absolute()
