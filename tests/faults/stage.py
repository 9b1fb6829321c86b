"""A real service, armed with faults, and real clients that write down what they see of it."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from faults.history import Entry, Judge, What, truth_of
from faults.plots import FIRST_MARKER_ID, Plot
from running_service import Service, serving

from santacoder_client import Client, CompletionOptions, SantaCoderError

TOKEN_COUNT = 120
ASKED = CompletionOptions(max_new_tokens=TOKEN_COUNT, ignore_eos=True)
KINDS: dict[str, CompletionOptions] = {
    "greedy": ASKED,
    "seeded": ASKED | CompletionOptions(temperature=0.8, seed=11),
    "two choices": ASKED | CompletionOptions(temperature=0.7, seed=5, completion_count=2),
    "penalised": ASKED | CompletionOptions(temperature=0.6, seed=3, repetition_penalty=1.2),
    "long prompt": ASKED | CompletionOptions(temperature=0.9, seed=9, top_k=20),
}


def prompt_of(kind: str, marker_id: int) -> list[int]:
    """Ids that are the same in every run; the first kind's hold the id that sets a fault off."""
    place = list(KINDS).index(kind)
    length = 700 if kind == "long prompt" else 8 + place
    draws = random.Random(f"{kind} {marker_id}")
    ids = [draws.randrange(1, FIRST_MARKER_ID) for _ in range(length)]
    return [*ids, marker_id] if place == 0 else ids


class Stage:
    """A service with its plots, and what was seen on it."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self._folder = folder

    def ask_all(self, plot: Plot) -> list[Entry]:
        """Asks a request of every kind at once, one of which sets off the fault: the history."""
        return self.ask(list(KINDS), plot.fault.token_id)

    def ask(self, kinds: Sequence[str], marker_id: int) -> list[Entry]:
        """Asks requests of these kinds at once: the history."""
        history: list[Entry] = []
        with Client(self.service.target) as client, ThreadPoolExecutor(len(KINDS)) as threads:
            asked = [threads.submit(self._ask, client, kind, marker_id, history) for kind in kinds]
            for each in asked:
                each.result()
        return history

    def _ask(self, client: Client, kind: str, marker_id: int, history: list[Entry]) -> None:
        history.append(Entry(What.ASKED, kind))
        counts: dict[int, int] = {}
        try:
            for piece in client.stream(prompt_of(kind, marker_id), **KINDS[kind]):
                start = counts.get(piece.index, 0)
                ids = tuple(piece.token_ids)
                counts[piece.index] = start + len(ids)
                if ids:
                    history.append(Entry(What.DELTA, kind, piece.index, start, ids))
                if piece.finish_reason is not None:
                    reason = piece.finish_reason.name
                    history.append(Entry(What.FINISHED, kind, piece.index, reason=reason))
        except SantaCoderError as error:
            history.append(Entry(What.FAILED, kind, reason=error.reason or error.code.name))

    def happened_at(self, plot: Plot) -> float | None:
        """When the plot's fault happened, by the monotonic clock; None if it has not."""
        try:
            made = self.mark(plot).stat().st_mtime
        except FileNotFoundError:
            return None
        return made - time.time() + time.monotonic()

    def mark(self, plot: Plot) -> Path:
        """The file that is there once the fault has happened."""
        return self._folder / f"mark-{plot.fault.token_id}"

    def noticed_at(self, since: float) -> float:
        """When the router said that its group had failed, the first time after `since`."""
        return self.service.said_at("shard group failed", since)

    def reports(self) -> list[Path]:
        """The crash reports, oldest first."""
        folder = Path(f"{self._folder}.state") / "santacoder-serving" / "crashes"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def report(self) -> str:
        """The newest crash report."""
        return self.reports()[-1].read_text()

    def wait_at_rest(self) -> None:
        """Everything that a request holds is given back."""
        for name in ("running_requests", "queued_requests"):
            self.service.wait_metric(f"santacoder_router_{name}", 0.0)
        self.service.wait_metric("santacoder_router_kv_blocks", 0.0, state="held")


def perform(stage: Stage, plot: Plot) -> dict[str, float]:
    """A load during which the fault happens, judged by the same load afterwards: seconds taken."""
    history = stage.ask_all(plot)
    happened_at = stage.happened_at(plot)
    assert happened_at is not None, "the fault has not happened"
    stage.wait_at_rest()
    truth = truth_of(stage.ask_all(plot))
    assert Judge(truth).hear(history) == []
    assert sum(len(choices) for choices in truth.values()) == len(KINDS) + 1
    assert {len(each.token_ids) for choices in truth.values() for each in choices} == {TOKEN_COUNT}
    noticed_at = stage.noticed_at(happened_at - 0.05)
    # What was on its way when the group died is no new token.
    back_at = stage.service.said_at("shard group is back", noticed_at)
    later = [entry.at for entry in history if entry.what is What.DELTA and entry.at > back_at]
    return {
        "noticed": max(0.0, noticed_at - happened_at),
        "next token": min(later) - happened_at,
    }


@contextmanager
def staged(
    model: Path | str | None,
    folder: Path,
    plots: Sequence[Plot],
    *extra: str,
    marks: bool = True,
    stops: bool = True,
) -> Iterator[Stage]:
    """A service that is armed with `plots`, each of which happens once, unless not `marks`.

    `stops`: at the end it is stopped, and must end well.
    """
    armed = [dataclasses.asdict(plot.fault) for plot in plots]
    for each in armed if marks else ():
        each["mark"] = str(folder / f"mark-{each['token_id']}")
    environment = {
        **os.environ,
        "SANTACODER_TEST_MODE": "1",
        "SANTACODER_FAULTS": json.dumps(armed),
    }
    with serving(model, folder, *extra, environment=environment) as service:
        yield Stage(service, folder)
        if stops:
            service.stop()
