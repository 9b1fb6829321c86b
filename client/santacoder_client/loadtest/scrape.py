"""A server's own metrics, before a run and after it, to be shown beside what the client saw.

A server that cannot be asked costs a warning, never the run.
"""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO

from santacoder_client._address import is_loopback
from santacoder_client.loadtest.errors import UsageError
from santacoder_client.loadtest.exposition import Exposition, NotExposition, parse_exposition
from santacoder_client.loadtest.result import ServerMetrics
from santacoder_client.loadtest.target import Security, parse_targets

FLAG = "--metrics-target"
TIMEOUT_SECONDS = 5.0
BYTES_MAX = 16 * 2**20
LEFT_OUT = ("_bucket", "_created")
"""A histogram's sum and count say enough here; a series' birthday says nothing."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One look at one server; without an exposition, why there is none."""

    target: str
    exposition: Exposition | None
    problem: str = ""


def check_metrics_targets(texts: Sequence[str], allow_remote: bool) -> tuple[str, ...]:
    """The addresses, each once, if they may be asked. Raises UsageError."""
    for text in texts:
        if text.startswith(("unix:", "shard:")):
            raise UsageError(f"{FLAG}: not an address; got {text[:64]!r}; allowed HOST:PORT")
        try:
            parse_targets([text], Security(), allow_remote=True, allow_plain_token=True)
        except UsageError as error:
            raise UsageError(str(error).replace("--target", FLAG, 1), error.hint) from None
        if not allow_remote and not is_loopback(text):
            raise UsageError(
                f"{FLAG}: not on this machine; got {text!r}; allowed loopback addresses",
                "--allow-remote asks a machine that is yours to load",
            )
    return tuple(dict.fromkeys(texts))


def scrape(targets: Sequence[str]) -> tuple[Scrape, ...]:
    """Looks at every server, at the same time. Takes a few seconds at most."""
    if not targets:
        return ()
    with ThreadPoolExecutor(len(targets)) as pool:
        return tuple(pool.map(_look, targets))


def problems(*looks: Scrape) -> list[str]:
    """A line for each look that failed."""
    return [f"{FLAG}: {each.problem}; got {each.target!r}" for each in looks if each.problem]


def compare_scrapes(before: Sequence[Scrape], after: Sequence[Scrape]) -> tuple[ServerMetrics, ...]:
    """What changed at each server that answered at least once."""
    pairs = zip(before, after, strict=True)
    return tuple(
        _difference(early, late)
        for early, late in pairs
        if early.exposition is not None or late.exposition is not None
    )


def _difference(before: Scrape, after: Scrape) -> ServerMetrics:
    early, late = _shown(before.exposition), _shown(after.exposition)
    delta = {}
    if before.exposition is not None and after.exposition is not None:
        for name, value in late.items():
            grows = after.exposition.grows(name)
            # A labelled counter is not there before it first counts.
            begin = early.get(name, 0.0 if grows else None)
            # A sum that shrank began anew with its server: what it had been by then is lost.
            if begin is not None and not (grows and value < begin):
                delta[name] = value - begin
    return ServerMetrics(target=after.target, before=early, after=late, delta=delta)


def _shown(exposition: Exposition | None) -> dict[str, float]:
    if exposition is None:
        return {}
    return {
        name: value
        for name, value in exposition.values.items()
        if math.isfinite(value) and not name.partition("{")[0].endswith(LEFT_OUT)
    }


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect might lead away from the machine that was allowed."""

    def redirect_request(
        self, req: object, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str
    ) -> None:
        return None


def _look(target: str) -> Scrape:
    # No proxy either: what is asked is a neighbour.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    try:
        with opener.open(f"http://{target}/metrics", timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(BYTES_MAX + 1)
        if len(content) > BYTES_MAX:
            return Scrape(target, None, "answered with too much")
        return Scrape(target, parse_exposition(content.decode()))
    except urllib.error.HTTPError as error:
        return Scrape(target, None, f"answered HTTP {error.code}")
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        reason = getattr(error, "reason", None) or error
        words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return Scrape(target, None, f"not read: {words}")
    except NotExposition as error:
        return Scrape(target, None, f"not metrics: {error}")
