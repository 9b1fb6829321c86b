"""The `--data` part of a command line, and the same as JSON for the worker processes.

add_data_arguments(parser)
prepared = prepare_data(arguments)        reads and checks files; needs no server
source = build_source(prepared, model)    needs GetModel's answer
job = to_job(prepared, model, source)     JSON; `from_job(job)` is the same source elsewhere
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from santacoder_client.loadtest.data.corpus import Corpus, read_corpus, told
from santacoder_client.loadtest.data.families import FamiliesOptions, FamiliesSource
from santacoder_client.loadtest.data.fim_files import FimOptions, FimSource
from santacoder_client.loadtest.data.jsonl import JsonlLines, JsonlOptions, JsonlSource, read_jsonl
from santacoder_client.loadtest.data.keystrokes import KeystrokesOptions, KeystrokesSource
from santacoder_client.loadtest.data.settings import flag, json_of, read_options, settings_of
from santacoder_client.loadtest.data.source import DataError, DescribedSource, ModelFacts
from santacoder_client.loadtest.data.synthetic import SyntheticOptions, SyntheticSource

DataOptions = SyntheticOptions | FamiliesOptions | FimOptions | KeystrokesOptions | JsonlOptions
KINDS: Mapping[str, type[DataOptions]] = {
    "synthetic": SyntheticOptions,
    "families": FamiliesOptions,
    "fim": FimOptions,
    "keystrokes": KeystrokesOptions,
    "jsonl": JsonlOptions,
}
DEFAULT_KIND = "synthetic"


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Options that were checked, and what their files hold."""

    kind: str
    options: DataOptions
    read: Corpus | JsonlLines | None

    @property
    def schedule(self) -> tuple[float, ...] | None:
        """When the prompts of a timed trace are due, in seconds, in order. Else None."""
        if isinstance(self.read, JsonlLines) and self.read.is_timed:
            return tuple(line.at_seconds or 0.0 for line in self.read.lines)
        return None

    def note(self) -> str:
        """What a person should know of the files; empty if there is nothing to tell."""
        match self.read:
            case Corpus(files=files, skipped=skipped):
                return f"{len(files)} files from {self.read.folder}, {told(skipped)}"
            case JsonlLines(lines=lines):
                return f"{len(lines)} prompts"
        return ""


def add_data_arguments(parser: argparse.ArgumentParser, with_seed: bool = True) -> None:
    """Adds `--data` and the options of every kind of data; checked by `prepare_data`."""
    group = parser.add_argument_group("data", "where prompts come from; in brackets: defaults")
    group.add_argument(
        "--data",
        metavar="KIND",
        default=DEFAULT_KIND,
        help=f"{', '.join(KINDS)} ({DEFAULT_KIND})",
    )
    for name, users in _users().items():
        if name == "seed" and not with_seed:
            continue
        each = settings_of(KINDS[users[0]])[name]
        default = "" if each.default is None else f" ({each.default})"
        which = "" if len(users) == len(KINDS) else f"{', '.join(users)}: "
        # The text as given: None tells an option that was not given from one with the default.
        group.add_argument(
            flag(name), metavar=each.metavar, help=_plain(f"{which}{each.help}{default}")
        )


def prepare_data(arguments: argparse.Namespace) -> PreparedData:
    """Checks the options and reads the files. Raises DataError, before anything is sent."""
    kind = arguments.data
    if kind not in KINDS:
        raise DataError(f"--data: unknown; got {kind!r}; allowed {', '.join(KINDS)}")
    given = {}
    for name, users in _users().items():
        text = getattr(arguments, name, None)
        if text is None:
            continue
        if kind not in users:
            allowed = " or ".join(f"--data {user}" for user in users)
            raise DataError(
                f"{flag(name)}: not for this data; got --data {kind}; allowed {allowed}"
            )
        given[name] = text
    return _prepare(kind, given)


def build_source(prepared: PreparedData, model: ModelFacts) -> DescribedSource:
    """The source for one model. Raises DataError if data and model do not go together."""
    match prepared:
        case PreparedData(options=SyntheticOptions() as options):
            return SyntheticSource(options, model)
        case PreparedData(options=FamiliesOptions() as options):
            return FamiliesSource(options, model)
        case PreparedData(options=FimOptions() as options, read=Corpus() as corpus):
            return FimSource(options, corpus)
        case PreparedData(options=KeystrokesOptions() as options, read=Corpus() as corpus):
            return KeystrokesSource(options, corpus)
        case PreparedData(options=JsonlOptions() as options, read=JsonlLines() as lines):
            return JsonlSource(options, lines, model)
    raise TypeError(f"{prepared.kind} was not prepared")


def to_job(prepared: PreparedData, model: ModelFacts, sha256: str) -> dict[str, Any]:
    """All that another process needs to build the same source, as JSON values."""
    return {
        "kind": prepared.kind,
        "options": json_of(prepared.options),
        "model": {
            "token_count": model.token_count,
            "special_token_ids": sorted(model.special_token_ids),
            "context_token_count": model.context_token_count,
        },
        "sha256": sha256,
    }


def from_job(job: Mapping[str, Any]) -> DescribedSource:
    """The source that `to_job` wrote. Raises DataError if its files have changed since."""
    facts = job["model"]
    model = ModelFacts(
        token_count=facts["token_count"],
        special_token_ids=frozenset(facts["special_token_ids"]),
        context_token_count=facts["context_token_count"],
    )
    source = build_source(_prepare(job["kind"], job["options"]), model)
    if source.sha256 != job["sha256"]:
        raise DataError(
            f"--data {job['kind']}: its files have changed since the start; "
            f"got sha256 {source.sha256}; allowed {job['sha256']}"
        )
    return source


def _prepare(kind: str, given: Mapping[str, object]) -> PreparedData:
    options = read_options(KINDS[kind], given)
    read: Corpus | JsonlLines | None = None
    if isinstance(options, FimOptions | KeystrokesOptions):
        read = read_corpus("--files", options.files, options.language, options.max_files)
    elif isinstance(options, JsonlOptions):
        read = read_jsonl(options)
    return PreparedData(kind, options, read)


def _users() -> dict[str, list[str]]:
    """Which kinds of data know each setting."""
    users: dict[str, list[str]] = {}
    for kind, options in KINDS.items():
        for name in settings_of(options):
            users.setdefault(name, []).append(kind)
    return users


def _plain(help_text: str) -> str:
    """argparse formats help with %."""
    return help_text.replace("%", "%%")
