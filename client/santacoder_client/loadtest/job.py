"""All that a worker process is told, and how it tells its records: JSON, a line a message.

Knows no process and no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from santacoder_client.loadtest.load import Load
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord
from santacoder_client.loadtest.request import Wishes
from santacoder_client.loadtest.target import Security, Target

_FIELDS = tuple(each.name for each in fields(RequestRecord) if each.name != "chunks")


@dataclass(frozen=True, slots=True)
class Job:
    """One load on some targets, the same for every worker."""

    load: Load
    targets: tuple[Target, ...]
    security: Security
    wishes: Wishes
    data: Mapping[str, Any]
    """What `data.options.to_job` wrote."""
    channel_count: int | None = None
    """Connections of each worker to each target; None leaves it to the worker."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` undoes it. A trace's times are in the data, not here."""
        load = {**self.load.to_json(), "trace_seconds": ()}
        return {
            "load": load,
            "targets": [asdict(target) for target in self.targets],
            "security": asdict(self.security),
            "wishes": asdict(self.wishes),
            "data": self.data,
            "channel_count": self.channel_count,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The job that `to_json` wrote."""
        return cls(
            load=Load.from_json(values["load"]),
            targets=tuple(_target(each) for each in values["targets"]),
            security=Security(**values["security"]),
            wishes=_wishes(values["wishes"]),
            data=values["data"],
            channel_count=values["channel_count"],
        )


def line_of(kind: str, value: object) -> bytes:
    """One message of a pipe."""
    return json.dumps({kind: value}, separators=(",", ":")).encode() + b"\n"


def read_line(line: bytes) -> tuple[str, Any]:
    """A message's kind and its value. Raises ValueError if it is none."""
    message = json.loads(line)
    if not isinstance(message, dict) or len(message) != 1:
        raise ValueError("not a message")
    return next(iter(message.items()))


def record_to_json(record: RequestRecord) -> list[Any]:
    """A record's values without names: there are many records, and both ends know the names."""
    chunks = [part for each in record.chunks for part in (each.at_seconds, each.token_count)]
    return [chunks, *(getattr(record, name) for name in _FIELDS)]


def record_from_json(values: list[Any]) -> RequestRecord:
    """The record that `record_to_json` wrote."""
    chunks, *rest = values
    record = RequestRecord(**dict(zip(_FIELDS, rest, strict=True)))
    record.chunks = [Chunk(*pair) for pair in zip(chunks[::2], chunks[1::2], strict=True)]
    record.outcome = Outcome(record.outcome)
    return record


def _wishes(values: Mapping[str, Any]) -> Wishes:
    options = dict(values["options"])
    if "logit_bias" in options:  # JSON has only strings for keys
        options["logit_bias"] = {int(key): bias for key, bias in options["logit_bias"].items()}
    return Wishes(**{**values, "options": options})


def _target(values: Mapping[str, Any]) -> Target:
    return Target(values["address"], values["mode"], tuple(values["addresses"]))
