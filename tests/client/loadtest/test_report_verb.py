"""`santacoder-load report`: the table and the page of a result that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from client.loadtest.example_result import example_run, example_sweep

from santacoder_client.loadtest.__main__ import main
from santacoder_client.loadtest.page.document import page_of
from santacoder_client.loadtest.result_file import save
from santacoder_client.loadtest.schema import to_json


@pytest.fixture
def result(tmp_path: Path) -> str:
    path = tmp_path / "result.json"
    save(example_run(), path)
    return str(path)


def test_the_table_is_printed_and_the_page_written(
    result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert main(["report", result, "--html", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == page_of(to_json(example_run()))
    printed = capsys.readouterr()
    assert "ttft" in printed.out
    assert printed.err == ""


def test_without_a_page_the_table_alone_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(example_sweep(), tmp_path / "sweep.json")
    assert main(["report", str(tmp_path / "sweep.json")]) == 0
    assert "knee" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


def test_a_page_is_replaced_only_by_force(
    result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    assert main(["report", result, "--html", str(page)]) == 2
    assert page.read_text() == "mine"
    assert capsys.readouterr().err.startswith("error: --html: exists")
    assert main(["report", result, "--html", str(page), "--force"]) == 0
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema": "santacoder-load/9"}', "\x00"])
def test_what_is_no_result_is_refused_in_one_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "result.json").write_text(content)
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "result.json"), "--html", str(page)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "result.json" in error and error.count("\n") == 1
    assert not page.exists()


def test_a_missing_result_and_a_missing_folder_are_wrong_usage(
    result: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "none.json")]) == 2
    assert main(["report", result, "--html", str(tmp_path / "none" / "page.html")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "No such file" in errors[0] and "no such folder" in errors[1]


def test_a_disk_that_is_full_fails_and_leaves_nothing(
    result: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["report", result, "--html", str(tmp_path / "page.html")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
