"""A result is read as it was written, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from client.loadtest.example_result import example_run, example_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from santacoder_client.loadtest.errors import LoadTestError, UsageError
from santacoder_client.loadtest.result import Result
from santacoder_client.loadtest.result_file import from_text, load, save, to_text
from santacoder_client.loadtest.writers.files import check_output, open_whole, write_whole


@pytest.mark.parametrize("result", [example_run(), example_sweep()])
def test_what_is_saved_is_loaded_again(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save(result, path)
    assert load(path) == result
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    value = json.loads(to_text(example_sweep()))
    change(value)
    return json.dumps(value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda v: v.pop("rates"), "rates: missing"),
        (lambda v: v.update({"x\n" * 99: 1}), "'x\\nx"),
        (lambda v: v["environment"].update({"x\n": 1}), ""),
        (lambda v: v.update(colour=1), "colour: unknown name; got 'colour'; allowed schema, "),
        (lambda v: v["outcomes"].update(ok="12"), "outcomes.ok: not an integer; got '12'"),
        (lambda v: v["outcomes"].update(ok=True), "outcomes.ok: not an integer; got True"),
        (lambda v: v["outcomes"].update(ok=-1), "outcomes.ok: out of range; got -1; allowed 0 or"),
        (lambda v: v.update(cached_share=1.5), "cached_share: out of range; got 1.5; allowed 0 to"),
        (lambda v: v.update(interrupted=0), "interrupted: not true or false; got 0"),
        (lambda v: v.update(verb="walk"), "verb: not one of the choices; got 'walk'"),
        (lambda v: v.update(errors={}), "errors: not a list; got {}"),
        (lambda v: v.update(figures=[]), "figures: not an object; got []"),
        (
            lambda v: v["sweep"]["points"][1]["result"]["figures"]["ttft"].update(mean=None),
            "sweep.points[1].result.figures.ttft.mean: not a number; got None",
        ),
        (lambda v: v["timeline"][3].update(failed=2.0), "timeline[3].failed: not an integer"),
        (lambda v: v.update(schema="santacoder-load/9"), "schema: not a result of this version"),
        (
            lambda v: v["rates"].update(offered_per_second=10**400),
            "rates.offered_per_second: not a",
        ),
        (lambda v: v["data"].update(sha256="x" * 900), ""),
    ],
)
def test_a_result_of_another_shape_is_refused_by_place(
    change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    if not complaint:
        from_text(changed(change), "r.json")
        return
    with pytest.raises(UsageError) as refused:
        from_text(changed(change), "r.json")
    message = str(refused.value)
    assert message.startswith(f"r.json: {complaint}")
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "3", '{"schema": 1}', "{", "[" * 100_000, '{"a": NaN}', '{"a":1,"a":2}'],
)
def test_what_is_no_result_at_all_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        from_text(text, "r.json")
    assert str(refused.value).startswith("r.json: ")
    assert len(str(refused.value)) < 300 and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"\x00" * 10, b"\x80"])
def test_a_file_that_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a JSON result"):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load(tmp_path / "none.json")
    with pytest.raises(UsageError, match="Is a directory"):
        load(tmp_path)


def test_an_output_is_checked_before_anything_is_measured(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("precious")
    with pytest.raises(UsageError, match="--json: exists; got") as refused:
        check_output("--json", old, force=False)
    assert refused.value.hint == "--force overwrites it"
    assert check_output("--json", old, force=True) == old
    assert check_output("--json", tmp_path / "new.json", force=False) == tmp_path / "new.json"
    with pytest.raises(UsageError, match="no such folder"):
        check_output("--json", tmp_path / "none" / "x.json", force=False)
    with pytest.raises(UsageError, match="not a file"):
        check_output("--json", tmp_path, force=True)
    with pytest.raises(UsageError, match="not a file"):
        check_output("--json", "/dev/null", force=True)
    with pytest.raises(UsageError, match="--json: "):
        check_output("--json", "a\0b", force=True)
    with pytest.raises(UsageError, match="--json: "):
        check_output("--json", tmp_path / ("x" * 5000), force=True)


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), open_whole(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with (
        pytest.raises(LoadTestError, match="not written: No space left") as failed,
        open_whole(path),
    ):
        raise OSError(28, "No space left on device")
    assert failed.value.exit_status == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LoadTestError, match="not written: No such file"):
        write_whole(tmp_path / "none" / "r.json", "x")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.text(max_size=3)
JSON = PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(NAMES, PLAIN, max_size=2)


SMALL = to_text(replace(example_run(), timeline=example_run().timeline[:1], histograms={}))


@settings(max_examples=50, deadline=None)
@given(st.data(), JSON)
def test_a_result_with_anything_anywhere_is_read_or_refused_in_one_line(
    data: st.DataObject, strange: object
) -> None:
    whole = json.loads(SMALL)
    part = whole
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = data.draw(st.sampled_from(keys))
        inner = part[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        part = inner
    part[key] = strange
    try:
        result = from_text(json.dumps(whole), "r.json")
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:
        assert from_text(to_text(result), "r.json") == result
