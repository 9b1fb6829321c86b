"""What is written is read back by others: JSON lines by ourselves, CSV and XML by the library."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from client.loadtest.example_result import example_run, example_sweep
from client.loadtest.records import answered, cut, failed, unsent
from hypothesis import given
from hypothesis import strategies as st

from santacoder_client.loadtest.errors import LoadTestError, UsageError
from santacoder_client.loadtest.record import Chunk, Outcome, RequestRecord
from santacoder_client.loadtest.result import ErrorCount, Outcomes, ThresholdResult
from santacoder_client.loadtest.writers.csv_table import COLUMNS, to_csv, write_csv
from santacoder_client.loadtest.writers.junit import to_junit, write_junit
from santacoder_client.loadtest.writers.requests import line_of, read_requests, write_requests

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SECONDS = st.floats(0, 1e6)
MAYBE = st.none() | SECONDS
RECORDS = st.builds(
    RequestRecord,
    index=st.integers(0, 2**31 - 1),
    target=TEXTS,
    kind=TEXTS,
    scheduled_at=SECONDS,
    family=TEXTS,
    dispatched_at=MAYBE,
    accepted_at=MAYBE,
    chunks=st.lists(st.builds(Chunk, SECONDS, st.integers(1, 99)), max_size=5).map(
        lambda chunks: sorted(chunks, key=lambda chunk: chunk.at_seconds)
    ),
    finished_at=MAYBE,
    outcome=st.sampled_from(Outcome),
    status=TEXTS,
    message=TEXTS,
    server_queue_seconds=MAYBE,
)


@given(st.lists(RECORDS, max_size=4))
def test_records_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[RequestRecord]
) -> None:
    path = tmp_path_factory.mktemp("requests") / "r.jsonl"
    write_requests(path, records)
    assert list(read_requests(path)) == records
    assert path.read_bytes().count(b"\n") == len(records)


def test_a_line_has_the_names_of_the_record() -> None:
    record = answered(3, due=1.5, first=0.25, gaps=[0.5], tokens=[1, 2])
    values = json.loads(line_of(record))
    assert values["index"] == 3 and values["outcome"] == "ok" and values["cancelled_at"] is None
    assert values["chunks"] == [[1.75, 1], [2.25, 2]]


def changed(**changes: object) -> str:
    return json.dumps(json.loads(line_of(answered(gaps=[0.5]))) | changes) + "\n"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("\n", "not a request"),
        ("{}\n", "not a request"),
        ("[]\n", "not a request"),
        ('{"index": \n', "not a request"),
        ("[" * 100_000 + "\n", "not a request"),
        (line_of(answered())[:-20], "not a request"),
        (changed(colour=1), "not a request"),
        (changed(outcome="fine"), "outcome: not one of the choices"),
        (changed(index="1"), "index: not an integer"),
        (changed(index=True), "index: not an integer"),
        (changed(index=-1), "index: out of range"),
        (changed(scheduled_at=None), "scheduled_at: not a number"),
        (changed(scheduled_at=1e300), "scheduled_at: out of range"),
        (changed(finished_at=-1.0), "finished_at: out of range"),
        (changed(chunks=3), "chunks: not messages with tokens"),
        (changed(chunks=[[1.0]]), "chunks: not messages with tokens"),
        (changed(chunks=[[1.0, 0]]), "chunks: not messages with tokens"),
        (changed(chunks=[[1.0, True]]), "chunks: not messages with tokens"),
        (changed(chunks=[[2.0, 1], [1.0, 1]]), "chunks: not messages with tokens"),
        (changed(chunks=[[float("nan"), 1]]), "chunks: not messages with tokens"),
        (changed(chunks=[["\ud800" * 999, 1]]), "chunks: not messages with tokens"),
    ],
)
def test_a_line_that_is_no_request_is_refused_by_its_number(
    line: str, wrong: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes((line_of(answered()) + line).encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError) as refused:
        list(read_requests(path))
    assert str(refused.value).startswith(f"{path}:2: {wrong}")
    assert len(str(refused.value)) < 400


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        list(read_requests(tmp_path / "none"))


def test_a_record_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError):
        write_requests(tmp_path / "none" / "r.jsonl", [answered()])
    with pytest.raises(ValueError):
        write_requests(tmp_path / "r.jsonl", [answered(), answered(due=float("nan"))])
    assert list(tmp_path.iterdir()) == []


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_csv_holds_every_figure_of_a_run(tmp_path: Path) -> None:
    result = example_run()
    write_csv(tmp_path / "r.csv", result)
    rows = rows_of((tmp_path / "r.csv").read_bytes().decode())
    assert tuple(rows[0]) == COLUMNS
    found = {(row["group"], row["name"], row["statistic"]): row for row in rows}
    assert len(found) == len(rows)
    p99 = result.figures["ttft"].percentiles["p99"]
    row = found["figures", "ttft", "p99"]
    assert [float(row[name]) for name in ("value", "low", "high")] == [p99.value, p99.low, p99.high]
    assert row["unit"] == "ms" and row["load"] == ""
    assert found["figures", "ttft", "p99.9"]["value"] == ""
    assert found["outcomes", "failed", ""]["value"] == "14"
    assert float(found["goodput", "ttft<100ms,e2e<2s", "share"]["value"]) == 0.928
    assert float(found["rates", "finished_per_second", ""]["value"]) == 39.2


def test_csv_holds_every_point_of_a_sweep() -> None:
    result = example_sweep()
    assert result.sweep is not None
    loads = {row["load"] for row in rows_of(to_csv(result))}
    assert loads == {str(point.value) for point in result.sweep.points}


def junit_of(text: str) -> dict[str, Any]:
    root = ElementTree.fromstring(text)
    cases = {case.get("name"): case.find("failure") for case in root.iter("testcase")}
    assert root.get("tests") == str(len(cases))
    assert root.get("failures") == str(sum(f is not None for f in cases.values()))
    return {str(name): None if f is None else f.get("message") for name, f in cases.items()}


def test_junit_has_a_case_for_every_threshold(tmp_path: Path) -> None:
    write_junit(tmp_path / "r.xml", example_run())
    cases = junit_of((tmp_path / "r.xml").read_text())
    assert cases == {"measured": None, "ttft.p99<200ms": None, "errors.share<1%": "got 0.0118"}


def test_junit_fails_where_nothing_was_measured() -> None:
    result = example_run()
    assert junit_of(to_junit(replace(result, interrupted=True)))["measured"].startswith("interrup")
    odd = ErrorCount("UNAVAILABLE", "\x00<&\ud800\U0001f600", 3, 'a "message" \x1b[31m')
    nothing = replace(result, outcomes=Outcomes(failed=3), errors=(odd,))
    assert "no request was answered: UNAVAILABLE" in junit_of(to_junit(nothing))["measured"]
    without = replace(result, thresholds=(ThresholdResult("ttft.p99<1ms", None, False),))
    assert junit_of(to_junit(without))["ttft.p99<1ms"] == "got nothing to judge"


def test_every_kind_of_record_is_written(tmp_path: Path) -> None:
    records = [answered(0), failed(1), cut(2), unsent(3)]
    write_requests(tmp_path / "r.jsonl", records)
    assert list(read_requests(tmp_path / "r.jsonl")) == records
