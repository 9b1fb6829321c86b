"""Equal files have equal fingerprints, different ones different, and size costs no time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from santacoder_shard.errors import CheckpointError
from santacoder_shard.fingerprint import fingerprint


@pytest.mark.parametrize("place", [0, 100_000, 300_000, 599_999, 777_777, 999_999])
def test_any_byte_of_a_file_of_a_megabyte_counts(tmp_path: Path, place: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(1_000_000))
    before = fingerprint([path], [])
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\1")
    assert fingerprint([path], []) != before


def test_facts_names_and_sizes_count(tmp_path: Path) -> None:
    first, second, longer = (tmp_path / name for name in ("a", "b", "c/a"))
    first.write_bytes(bytes(10))
    second.write_bytes(bytes(10))
    longer.parent.mkdir()
    longer.write_bytes(bytes(11))
    prints = [
        fingerprint([first], []),
        fingerprint([first], ["x"]),
        fingerprint([second], []),
        fingerprint([longer], []),
        fingerprint([first, second], []),
    ]
    assert len(set(prints)) == len(prints)


def test_a_file_of_many_gigabytes_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    started = time.perf_counter()
    before = fingerprint([path], [])
    assert time.perf_counter() - started < 30.0
    with path.open("r+b") as stream:
        stream.seek(1 << 39)
        stream.write(bytes([1]) * 4096)
    assert fingerprint([path], []) != before


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone: cannot be read"):
        fingerprint([tmp_path / "gone"], [])
