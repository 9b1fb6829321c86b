"""What `santacoder-load run` needs of its standard streams: nothing; and no colours unasked."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from load_commands import PATIENCE_SECONDS, SHORT, command_line, result_at

from santacoder_client.testing import Answer, FakeRouter


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with FakeRouter(Answer(("a", "b"))) as router:
        yield router


def test_nobody_who_reads_is_no_failure(router: FakeRouter) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = ("run", "--target", router.target, *SHORT.split())
    with command_line(*argv, stdout=writer) as process:
        os.close(writer)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in told and "BrokenPipe" not in told


def test_closed_standard_streams_are_no_failure(router: FakeRouter, here: Path) -> None:
    argv = ("run", "--target", router.target, *SHORT.split(), "--output", "r.json")
    with command_line(*argv, before=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")) as process:
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert result_at(here / "r.json")["outcomes"]["ok"] == len(router.requests)


def test_a_standard_output_that_is_full_is_1_and_the_files_are_written(
    router: FakeRouter, here: Path
) -> None:
    argv = ("run", "--target", router.target, *SHORT.split(), "--output", "r.json")
    with open("/dev/full", "w") as full, command_line(*argv, stdout=full) as process:
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert told.splitlines()[-1] == "error: standard output: No space left on device"
    assert result_at(here / "r.json")["outcomes"]["ok"] > 0


@pytest.mark.parametrize("variable", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_terminal_without_colours_gets_none_at_any_width(
    router: FakeRouter, variable: dict[str, str]
) -> None:
    shown, status = on_terminal(router, {"TERM": "xterm-256color", **variable}, columns=20)
    assert status == 0
    assert b"Traceback" not in shown
    assert not coloured(shown), shown
    if variable.get("TERM") == "dumb":
        assert b"\x1b" not in shown


def coloured(shown: bytes) -> bool:
    """Whether a colour was set: SGR 30 to 49, or 90 to 107."""
    for part in shown.split(b"\x1b[")[1:]:
        codes, end, _ = part.partition(b"m")
        numbers = codes.split(b";")
        if end and all(number.isdigit() for number in numbers):
            colours = [int(number) for number in numbers]
            if any(30 <= colour <= 49 or 90 <= colour <= 107 for colour in colours):
                return True
    return False


def on_terminal(
    router: FakeRouter, variables: dict[str, str], columns: int
) -> tuple[bytes, int | None]:
    """What a run shows on a terminal of its own, and its exit status."""
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    argv = ("run", "--target", router.target, *SHORT.split())
    shown = b""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")
    }
    ends: dict[str, Any] = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with command_line(*argv, env={**environment, **variables}, **ends) as process:
        os.close(terminal)
        while part := _read(screen):
            shown += part
        process.wait(timeout=PATIENCE_SECONDS)
    os.close(screen)
    return shown, process.returncode


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65536)
    except OSError:  # how Linux tells that the other end is closed
        return b""
