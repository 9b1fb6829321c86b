"""The settings of a source: read from text, checked, and written to JSON again.

A source's options are a dataclass whose fields are annotated with a `Setting`; flags, help and the
JSON that goes to the workers all come from those fields. Knows no source and no argparse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_type_hints

from santacoder_client.loadtest.data.source import DataError

Parse = Callable[[str, str], object]
"""Takes the flag and its text; gives the value or raises DataError."""
MOST_DIGITS = 20
_REAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,3})?")
"""float() would take ` 1`, `1_000` and `inf`, too."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How one field is given."""

    parse: Parse
    default: str | None
    """None: it must be given."""
    metavar: str
    help: str


class SourceOptions(Protocol):
    """A dataclass, all of whose fields are annotated with a setting."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Options = TypeVar("Options", bound=SourceOptions)


def settings_of(kind: type[SourceOptions]) -> dict[str, Setting]:
    """The settings of a source, by field name."""
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name].__metadata__[0] for each in fields(kind)}


def read_options(kind: type[Options], given: Mapping[str, object]) -> Options:
    """A source's options from text or JSON values by field name, defaults filled in."""
    values = {}
    for name, each in settings_of(kind).items():
        text = given.get(name, each.default)
        if text is None:
            raise DataError(f"{flag(name)}: missing; got nothing; allowed {each.metavar}")
        values[name] = each.parse(flag(name), str(text))
    return kind(**values)


def json_of(options: SourceOptions) -> dict[str, object]:
    """The options as JSON values; `read_options` reads them again."""
    values = {each.name: getattr(options, each.name) for each in fields(options)}
    return {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in values.items()
    }


def described(options: SourceOptions) -> dict[str, object]:
    """The options for a result: as JSON values that UTF-8 can carry, paths of odd bytes too."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in json_of(options).items()
    }


def flag(name: str) -> str:
    """How a field is called on the command line."""
    return "--" + name.replace("_", "-")


def integer(low: int, high: int) -> Callable[[str, str], int]:
    """A whole number with bounds."""

    def parse(what: str, text: str) -> int:
        digits = text.removeprefix("-")
        # int() would take `1_000`, ` 1` and other alphabets' digits.
        if digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS:
            number = int(text)
            if low <= number <= high:
                return number
        raise DataError(
            f"{what}: not a whole number in range; got {shown(text)}; allowed {low} to {high}"
        )

    return parse


def real(low: float, high: float) -> Callable[[str, str], float]:
    """A finite number with bounds."""

    def parse(what: str, text: str) -> float:
        number = float(text) if _REAL.fullmatch(text) else math.nan
        if not low <= number <= high:
            raise DataError(
                f"{what}: not a number in range; got {shown(text)}; allowed {low:g} to {high:g}"
            )
        return number

    return parse


Seed = Annotated[int, Setting(integer(0, 2**63 - 1), "0", "N", "same seed, same data")]


def one_of(*names: str) -> Callable[[str, str], str]:
    """One of several names."""

    def parse(what: str, text: str) -> str:
        if text not in names:
            raise DataError(f"{what}: unknown; got {shown(text)}; allowed {', '.join(names)}")
        return text

    return parse


def path(what: str, text: str) -> str:
    """A path that can be said to the operating system."""
    if not text or "\0" in text:
        raise DataError(f"{what}: not a path; got {shown(text)}; allowed a path on this machine")
    return text


def shown(text: str) -> str:
    """A value in an error: quoted, and no longer than a line bears."""
    return repr(text if len(text) <= 64 else text[:61] + "...")
