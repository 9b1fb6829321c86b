"""The estimate of growth finds a leak, and takes noise and new lives for none."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from soak.slope import slope_of

MIB = 1 << 20
LIMIT_PER_HOUR = 2 * MIB
# Serves lines; what it is told to leak stays.
SERVER = """
import sys
leaked, leak_bytes = [], int(sys.argv[1])
for line in sys.stdin:
    for _ in range(int(line)):
        work = bytearray(16 * 1024)
        leaked.append(bytearray(leak_bytes) if leak_bytes else None)
        if not leak_bytes:
            leaked.clear()
    print(flush=True)
"""


def noisy(draw: random.Random, slope: float, count: int) -> list[tuple[float, float]]:
    """A sample each minute, whose noise remembers the one before: memory comes in steps."""
    level, samples = 0.0, []
    for minute in range(count):
        level = 0.5 * level + draw.gauss(0.0, 64 * 1024)
        samples.append((minute / 60, 100 * MIB + slope * minute / 60 + level))
    return samples


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_of_a_kibibyte_a_request_is_found_and_noise_is_not(seed: int) -> None:
    draw = random.Random(seed)
    calm = [noisy(draw, 0.0, 60), noisy(draw, 0.0, 30)]
    assert slope_of(calm).upper <= LIMIT_PER_HOUR
    # 28 requests a second.
    leaking = [noisy(draw, 28 * 3600 * 1024.0, 20), noisy(draw, 28 * 3600 * 1024.0, 10)]
    assert slope_of(leaking).lower > LIMIT_PER_HOUR


def test_the_bound_holds_about_nine_times_of_ten_where_noise_remembers() -> None:
    draw = random.Random(1)
    slopes = [slope_of([noisy(draw, float(MIB), 60)]) for _ in range(400)]
    held = sum(slope.lower <= MIB <= slope.upper for slope in slopes)
    assert 0.85 <= held / 400 <= 0.99


def test_the_height_of_a_new_life_is_no_growth() -> None:
    lives = [[(float(x), height) for x in range(10)] for height in (5.0, 50.0)]
    slope = slope_of(lives)
    assert (slope.per_unit, slope.upper) == (0.0, 0.0)


def test_of_too_little_nothing_is_said() -> None:
    assert math.isnan(slope_of([[(0.0, 1.0), (1.0, 2.0)]]).upper)
    assert math.isnan(slope_of([]).per_unit)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.fault("X11")
def test_a_real_process_that_leaks_a_kibibyte_a_request_is_caught() -> None:
    """The control of `make soak`: by request, as time is not to matter here."""
    found = {}
    for leak_bytes in (0, 1024):
        command = [sys.executable, "-S", "-c", SERVER, str(leak_bytes)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            life = []
            for turn in range(60):
                process.stdin.write("100\n")
                process.stdin.flush()
                process.stdout.readline()
                if turn >= 20:
                    life.append((100.0 * turn, float(resident_bytes(process.pid))))
            process.stdin.close()
        found[leak_bytes] = slope_of([life])
    assert found[1024].lower > 900 > 100 > found[0].upper
