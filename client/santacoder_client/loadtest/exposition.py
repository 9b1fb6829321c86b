"""The Prometheus text format (0.0.4), read strictly. Knows no network and no particular metric.

A line is a comment, `# TYPE name kind`, or `name{label="value",...} number [timestamp]`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*+"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*+="(?:[^"\\\n]|\\["\\n])*+"'
BLANK = r"[ \t]*+"
LABELS = rf"{LABEL}(?:{BLANK},{BLANK}{LABEL})*+{BLANK},?{BLANK}"
SAMPLE = re.compile(
    rf"(?P<name>{NAME})(?:{BLANK}\{{{BLANK}(?P<labels>(?:{LABELS})?)\}})?"
    rf"[ \t]{BLANK}(?P<value>\S++)(?:[ \t]{BLANK}-?[0-9]++)?{BLANK}",
    re.ASCII,
)
KINDS = "counter|gauge|histogram|summary|untyped"
TYPE = re.compile(rf"#[ \t]++TYPE[ \t]++(?P<name>{NAME})[ \t]++(?P<kind>{KINDS})[ \t]*+", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|NaN|[+-]?Inf", re.ASCII)
GROWING = ("counter", "histogram", "summary")
SUFFIXES = ("_total", "_bucket", "_sum", "_count", "_created")


class NotExposition(Exception):
    """Text in no such format; says which line."""


@dataclass(slots=True)
class Exposition:
    """Series by name with labels, as `name{label="value"}`; and the kind of each family."""

    values: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def grows(self, series: str) -> bool:
        """Whether it is a sum since the server's start, which begins at 0."""
        name = series.partition("{")[0]
        names = [name, *(name.removesuffix(suffix) for suffix in SUFFIXES)]
        return any(self.kinds.get(each) in GROWING for each in names)


def parse_exposition(text: str) -> Exposition:
    """All series of a text. Raises NotExposition."""
    found = Exposition()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if line.startswith("#"):
            if kind := TYPE.fullmatch(line):
                found.kinds[kind["name"]] = kind["kind"]
            continue
        name, value = _sample(line, number)
        if name in found.values:
            raise NotExposition(f"line {number}: a series stands twice; got {name[:64]!r}")
        found.values[name] = value
    return found


def _sample(line: str, number: int) -> tuple[str, float]:
    sample = SAMPLE.fullmatch(line)
    if sample is None or not NUMBER.fullmatch(sample["value"]):
        raise NotExposition(f"line {number}: not a sample; got {line[:64]!r}")
    labels = re.findall(LABEL, sample["labels"] or "", re.ASCII)
    name = f"{sample['name']}{{{','.join(labels)}}}" if labels else sample["name"]
    return name, _value(sample["value"])


def _value(text: str) -> float:
    return math.nan if text == "NaN" else float(text.replace("Inf", "inf"))
