"""What a fuzzer needs of a thing that reads foreign bytes. Knows no target and no campaign."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes bytes from outside and must answer, or refuse as it is meant to.

    `take` returns for both; whatever else it raises is a bug. `make` gives the next input.
    """

    name: str
    make: Callable[[random.Random], bytes]
    take: Callable[[bytes], None]
