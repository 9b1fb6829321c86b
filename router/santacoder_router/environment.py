"""Environment variables that look like ours and are none: a misspelt one is not passed over.

A client reads its target and its token there, a server nothing but what arms a test's faults. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

PREFIX = "SANTACODER_"
OF_CLIENTS = ("SANTACODER_TARGET", "SANTACODER_TOKEN")
OF_TESTS = ("SANTACODER_FAULTS", "SANTACODER_TEST_MODE")


def strange_variables(environment: Mapping[str, str]) -> list[str]:
    """A line for each, without its value, which may be a secret."""
    names = sorted(name for name in environment if name.startswith(PREFIX))
    return [_line(name) for name in names if name not in OF_CLIENTS + OF_TESTS]


def _line(name: str) -> str:
    shown = name[:64].encode("unicode_escape").decode("ascii")
    nearest = difflib.get_close_matches(name, OF_CLIENTS, n=1)
    hint = f"; nearest {nearest[0]}" if nearest else ""
    return f"environment.{shown}: unknown; allowed {', '.join(OF_CLIENTS)}{hint}"
