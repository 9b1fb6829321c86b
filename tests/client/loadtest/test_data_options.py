"""The `--data` options: what they refuse, and that a job makes the same prompts anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path

import pytest
from load_data import MODEL, prepared, prompts, source

from santacoder_client.loadtest.data.options import (
    KINDS,
    add_data_arguments,
    build_source,
    from_job,
    to_job,
)
from santacoder_client.loadtest.data.source import DataError, ModelFacts

CODE = "def f(a):\n    b = a\n    return b\n\n\ndef g(a):\n    return f(a)\n"
LINE = '{"prompt": "a"}\n'
TRACE = '{"timestamp": 5, "input_length": 20, "output_length": 2, "hash_ids": [4]}\n'
CHANGES: Mapping[str, tuple[tuple[object, ...], ...]] = {
    "synthetic": (("--prompt-tokens", 9), ("--new-tokens", 9), ("--seed", 1)),
    "families": (
        *(("--families", 9), ("--prefix-tokens", 9), ("--tail-tokens", 9), ("--tenants", 9)),
        *(("--popularity", "zipf"), ("--popularity", "zipf:2"), ("--new-tokens", 9)),
        ("--seed", 1),
    ),
    "fim": (
        *(("--split", "line"), ("--context-chars", 9), ("--gap-chars", 9), ("--max-files", 1)),
        *(("--language", "python"), ("--new-tokens", 9), ("--seed", 1)),
    ),
    "keystrokes": (
        *(("--typing-speed", 2), ("--context-chars", 9), ("--max-files", 1), ("--seed", 1)),
        *(("--language", "python"), ("--new-tokens", 9)),
    ),
    "jsonl": (
        *(("--block-tokens", 64), ("--length-scale", 0.5), ("--new-tokens", 9), ("--seed", 1)),
    ),
}
"""For every kind of data: each of its options, with something else than its default."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "b.py").write_text(CODE * 3)
    (tmp_path / "data.jsonl").write_text(LINE)
    (tmp_path / "trace.jsonl").write_text(TRACE)
    return tmp_path


def minimal(kind: str, folder: Path) -> tuple[object, ...]:
    """A kind of data with nothing but what it needs."""
    match kind:
        case "fim" | "keystrokes":
            return ("--data", kind, "--files", folder)
        case "jsonl":
            return ("--data", kind, "--data-file", folder / "trace.jsonl")
    return ("--data", kind)


def test_the_changes_below_name_every_option() -> None:
    for kind, options in KINDS.items():
        named = {str(change[0])[2:].replace("-", "_") for change in CHANGES[kind]}
        assert named == set(options.__dataclass_fields__) - {"files", "data_file"}


@pytest.mark.parametrize(
    ("kind", "change"), [(kind, change) for kind in CHANGES for change in CHANGES[kind]]
)
def test_a_job_makes_the_same_prompts_and_every_option_another_stamp(
    kind: str, change: tuple[object, ...], folder: Path
) -> None:
    read = prepared(*minimal(kind, folder), *change)
    made = build_source(read, MODEL)
    # As workers get it: as a line of JSON.
    again = from_job(json.loads(json.dumps(to_job(read, MODEL, made.sha256))))
    indices = range(1 if made.schedule else 30)
    assert prompts(again, indices) == prompts(made, indices)
    assert (again.sha256, again.options) == (made.sha256, made.options)
    assert made.sha256 != source(*minimal(kind, folder)).sha256
    assert made.name == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_the_same_whatever_was_asked_before(kind: str, folder: Path) -> None:
    arguments = minimal(kind, folder)
    if kind == "jsonl":
        arguments = ("--data", kind, "--data-file", folder / "data.jsonl")
    forwards = prompts(source(*arguments), range(100))
    backwards = prompts(source(*arguments), reversed(range(100)))
    assert forwards == backwards[::-1]
    assert source(*arguments).prompt(10**15) == source(*arguments).prompt(10**15)


def test_another_process_with_another_hash_seed_makes_the_same_prompts(folder: Path) -> None:
    jobs = []
    for kind in KINDS:
        read = prepared(*minimal(kind, folder))
        jobs.append(to_job(read, MODEL, build_source(read, MODEL).sha256))
    code = (
        "import json, sys; from santacoder_client.loadtest.data.options import from_job\n"
        "for line in sys.stdin: print(repr(from_job(json.loads(line)).prompt(0)))"
    )
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    for hash_seed in ("1", "2"):
        answer = subprocess.run(
            [sys.executable, "-c", code],
            input=lines,
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
            timeout=120,
        )
        expected = [repr(source(*minimal(kind, folder)).prompt(0)) for kind in KINDS]
        assert answer.stdout.splitlines() == expected


@pytest.mark.parametrize("kind", ["fim", "keystrokes", "jsonl"])
def test_a_byte_more_in_a_file_is_another_stamp_and_ends_a_job(kind: str, folder: Path) -> None:
    read = prepared(*minimal(kind, folder))
    job = to_job(read, MODEL, build_source(read, MODEL).sha256)
    for path in (folder / "a.py", folder / "trace.jsonl"):
        path.write_text(path.read_text() + "\n")
    with pytest.raises(DataError, match=rf"^--data {kind}: its files have changed.+; got .+; allo"):
        from_job(job)


@pytest.mark.parametrize("kind", ["fim", "keystrokes"])
def test_a_file_of_another_name_is_another_stamp(kind: str, folder: Path) -> None:
    before = source(*minimal(kind, folder)).sha256
    (folder / "a.py").rename(folder / "c.py")
    assert source(*minimal(kind, folder)).sha256 != before


@pytest.mark.parametrize("kind", ["synthetic", "families", "jsonl"])
def test_ids_for_another_vocabulary_have_another_stamp(kind: str, folder: Path) -> None:
    stamps = {
        source(*minimal(kind, folder), model=model).sha256
        for model in (ModelFacts(1000), ModelFacts(999), ModelFacts(1000, frozenset({3})))
    }
    assert len(stamps) == 3


def test_the_default_is_synthetic() -> None:
    made = source()
    assert made.name == "synthetic"
    assert len(made.prompt(0).token_ids) == 128 and made.prompt(0).max_new_tokens == 64


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--data", "sharegpt"), "--data: unknown; got 'sharegpt'; allowed synthetic, families"),
        (("--data", ""), "--data: unknown; got ''"),
        (
            ("--families", 3),
            "--families: not for this data; got --data synthetic; allowed --data f",
        ),
        (("--data", "jsonl", "--split", "line"), "--split: not for this data; got --data jsonl"),
        (("--data", "fim"), "--files: missing; got nothing; allowed DIR"),
        (("--data", "keystrokes"), "--files: missing"),
        (("--data", "jsonl"), "--data-file: missing; got nothing; allowed FILE"),
        (("--data", "fim", "--files", ""), "--files: not a path; got ''"),
        (("--data", "jsonl", "--data-file", "a\0b"), "--data-file: not a path"),
        (("--seed", -1), "--seed: not a whole number in range; got '-1'; allowed 0 to"),
        (("--seed", 2**63), "--seed: not a whole number in range"),
        (("--seed", "9" * 9999), "--seed: not a whole number in range"),
        (("--seed", "٣"), "--seed: not a whole number in range"),
        (("--seed", "1_0"), "--seed: not a whole number in range"),
        (("--prompt-tokens", "0"), "--prompt-tokens: "),
        (("--new-tokens", "few"), "--new-tokens: "),
        (("--data", "families", "--families", 0), "--families: not a whole number in range"),
        (("--data", "families", "--families", 10**9), "--families: not a whole number in range"),
        (("--data", "families", "--prefix-tokens", 0), "--prefix-tokens: "),
        (("--data", "families", "--tail-tokens", 0), "--tail-tokens: "),
        (("--data", "families", "--tenants", -1), "--tenants: "),
        (("--data", "fim", "--files", ".", "--split", "all"), "--split: unknown or twice"),
        (("--data", "fim", "--files", ".", "--split", "line,line"), "--split: unknown or twice"),
        (("--data", "fim", "--files", ".", "--split", ""), "--split: unknown or twice; got ''"),
        (("--data", "fim", "--files", ".", "--language", "c"), "--language: unknown; got 'c'"),
        (("--data", "fim", "--files", ".", "--gap-chars", 0), "--gap-chars: "),
        (("--data", "fim", "--files", ".", "--max-files", 0), "--max-files: "),
        (
            ("--data", "keystrokes", "--files", ".", "--typing-speed", 0),
            "--typing-speed: not a num",
        ),
        (("--data", "keystrokes", "--files", ".", "--typing-speed", "nan"), "--typing-speed: "),
        (("--data", "keystrokes", "--files", ".", "--context-chars", 0), "--context-chars: "),
        (("--data", "jsonl", "--data-file", "f", "--length-scale", "inf"), "--length-scale: "),
        (("--data", "jsonl", "--data-file", "f", "--block-tokens", 0), "--block-tokens: "),
    ],
)
def test_bad_options_are_refused_in_one_line(argv: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError) as refusal:
        prepared(*argv)
    assert str(refusal.value).startswith(message)
    assert "; got " in str(refusal.value) and "; allowed " in str(refusal.value)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    assert refusal.value.exit_status == 2


def test_help_tells_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    add_data_arguments(parser)
    parser.print_help()
    text = " ".join(capsys.readouterr().out.split())
    for change in (change for changes in CHANGES.values() for change in changes):
        assert f"{change[0]} " in text
    assert "--prefix-tokens N families: tokens that one has in common (512)" in text
    assert "--files DIR fim, keystrokes: folder with source files --language" in text
