"""One seeded bug, and the scheduler's package with it: in memory alone, never in the working tree.

Knows sources and imports; knows no simulation.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = "santacoder_router.core"
FOLDER = Path(__file__).parents[4] / "router/santacoder_router/core"


@dataclass(frozen=True, slots=True)
class Bug:
    """In `file` the one place that reads `fragment` reads `replacement`; what that does wrong."""

    file: str
    fragment: str
    replacement: str
    description: str

    @property
    def title(self) -> str:
        """One line that names it."""
        return f"{self.file}: {self.description}"

    def mutated_source(self) -> str:
        """The file's source with the bug. Raises ValueError where the catalogue has gone stale."""
        source = (FOLDER / self.file).read_text()
        count = source.count(self.fragment)
        if count != 1:
            raise ValueError(f"{self.title}: its fragment has to occur once; got {count}")
        return source.replace(self.fragment, self.replacement)


NO_BUG = Bug("scheduler.py", "class Scheduler:", "class Scheduler:", "nothing is wrong with it")
"""The control: the simulation must find nothing."""


def bugs_in(file: str, *entries: tuple[str, str, str]) -> list[Bug]:
    """Bugs of one file, each as (fragment, replacement, description)."""
    return [Bug(file, *entry) for entry in entries]


def install(bug: Bug) -> None:
    """Lets this process import the scheduler with the bug; it must not have imported it before."""
    loaded = [name for name in sys.modules if name.startswith(PACKAGE)]
    if loaded:
        raise RuntimeError(f"a seeded bug needs a fresh process; this one has {loaded[0]}")
    sys.meta_path.insert(0, _BugFinder(bug))


class _BugFinder(MetaPathFinder):
    """Finds the one module that has the bug; all others are found as always."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug
        self._name = f"{PACKAGE}.{bug.file.removesuffix('.py')}"

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_loader(name, _BugLoader(self._bug))


class _BugLoader(InspectLoader):
    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def get_source(self, fullname: str) -> str:
        return self._bug.mutated_source()
