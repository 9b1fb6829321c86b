"""What `santacoder-load` refuses before anything is sent: exit status 2, one line, no traceback.

The rows named are those of the project's table of bad requests.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from santacoder_client.loadtest.__main__ import main

NOBODY = "127.0.0.1:1"
"""Where no server is: what gets as far as asking one ends with 5, and not with 2."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SANTACODER_TARGET", NOBODY)
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    (tmp_path / "there").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "code.py").write_text("def f():\n    return 1\n")
    (tmp_path / "timed.jsonl").write_text('{"prompt": "a", "at": 0}\n{"prompt": "b", "at": 1}\n')
    (tmp_path / "plain.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a"}\n{"prompt": }\n')
    return tmp_path


def status_of(command: str) -> int:
    try:
        return main(shlex.split(command))
    except SystemExit as end:  # argparse's own
        return int(str(end.code))


RATES_AND_TIMES = {  # row 114
    **{f"run --rate {value}": "--rate: " for value in ("0", "-1", "nan", "1e9", "inf", "''", "x")},
    **{f"run --rate 1 --duration {value}": "--duration: " for value in ("0", "-1", "nan", "8d")},
    **{f"run --concurrency {value}": "--concurrency: " for value in ("0", "-1", "1.5", "1e3")},
    **{f"run --editors {value}": "--editors: " for value in ("0", "-1", "many")},
    "run --rate 1 --warm-up -1s": "--warm-up: ",
    "run --rate 1 --cool-down 1y": "--cool-down: ",
    "run --rate 1 --grace x": "--grace: ",
    "run": "--rate: no load; got nothing; allowed one of",
    "run --rate 1 --editors 1": "--editors: another load was chosen",
    "run --ramp 5": "--ramp: not a ramp; got '5'",
    "run --ramp 0:0": "--ramp: never sends anything",
    "run --ramp 1:nan": "--ramp: not a number in range",
    "run --steps 5": "--steps: not a list of steps",
    "run --steps 5@0s": "--steps: no time at all",
    "run --steps 0@5s": "--steps: never sends anything",
    "run --rate 1 --arrival now": "--arrival: ",
    "run --rate 1 --burstiness 2": "--burstiness: not for this arrival; got poisson",
    "run --rate 1 --arrival gamma --burstiness 0": "--burstiness: not a number in range",
    "run --concurrency 1 --arrival constant": "--arrival: not for this load",
    "run --rate 1 --think-time 1s": "--think-time: not for this load",
    "run --editors 1 --think-time 0": "--think-time: no time at all",
    "run --editors 1 --typing-pause -5ms": "--typing-pause: ",
    "run --editors 1 --burst-keys 0": "--burst-keys: ",
    "run --editors 1 --debounce 50ms": "--debounce: not for this data; got --data synthetic",
    "run --editors 1 --data keystrokes --files . --burst-keys 2": "--burst-keys: not for this data",
    "run --rate 1 --debounce 50ms --data keystrokes --files .": "--debounce: not for this load",
    "run --rate 1e6 --duration 7h": "--duration: too many requests at this rate",
    "run --rate 1 --workers 0": "--workers: ",
    "run --rate 1 --workers 65": "--workers: ",
    "run --concurrency 1 --workers 2": "--workers: more than ",
    "run --rate 1 --seed -1": "--seed: ",
    "run --rate 1 --seed 9223372036854775808": "--seed: ",
    "run --rate 1 --cancel-share 1.1": "--cancel-share: ",
    "run --rate 1 --cancel-after x": "--cancel-after: ",
    "run --rate 1 --timeout 0": "--timeout: no time at all",
    "run --rate 1 --channels 0": "--channels: ",
}
REQUESTS = {
    "run --rate 1 --api soap": "--api: ",
    "run --editors 1 --api unary": "--api: editors supersede by turns; got unary; allowed session",
    "run --rate 1 --api unary --target shard:127.0.0.1:1": "--api: not with shard: targets",
    "run --rate 1 --temperature hot": "--temperature: ",
    "run --rate 1 --time-budget nan": "time_budget: not a finite number; got nan",
    "run --rate 1 --max-new-tokens 5 --new-tokens 5": "--max-new-tokens: said twice",
    "run --rate 1 --max-new-tokens 0": "--new-tokens: not a number of tokens",
    "run --rate 1 --top-k 99999999999": "sampling.top_k: out of range",
    "run --rate 1 --priority urgent": "--priority: ",
}
TARGETS = {  # row 115
    **{
        f"run --rate 1 --target {address}": "--target: not on this machine; got "
        for address in ("192.0.2.1:80", "0.0.0.0:80", "[2001:db8::1]:80", "example.com:80")
    },
    "run --rate 1 --target 127.0.0.1:1 --target 192.0.2.1:80": "--target: not on this machine",
    "run --rate 1 --target shard:127.0.0.1:1,192.0.2.1:80": "--target: not on this machine",
    "run --rate 1 --target 127.0.0.1.example.com:80": "--target: not on this machine",
    "replay timed.jsonl --target 192.0.2.1:80": "--target: not on this machine",
    **{
        f"run --rate 1 --target {address}": "--target: not an address; got "
        for address in ("''", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", ":80")
    },
    "run --rate 1 --target http://127.0.0.1:80": "--target: not an address",
    "run --rate 1 --target 'unix:'": "--target: not an address",
    "run --rate 1 --target ::1:80": "--target: not an address",
    "run --rate 1 --target 127.0.0.1:1 --target 127.0.0.1:1": "--target: named twice",
    "run --rate 1 --tls-ca there": "--tls: missing",
    "run --rate 1 --tls --tls-ca nowhere": "--tls-ca: No such file or directory",
    "run --rate 1 --tls --tls-cert there": "--tls-cert: needs --tls-key",
    "run --rate 1 --token-file nowhere": "--token-file: No such file or directory",
    "run --rate 1 --token-file folder": "--token-file: Is a directory",
    "run --rate 1 --token-file there --allow-remote --target 192.0.2.1:80": (
        "--token-file: would go unencrypted"
    ),
}
OUTPUTS = {  # row 120
    **{
        f"run --rate 1 {flag} there": f"{flag}: exists; got 'there'; allowed a new file"
        for flag in ("--output", "--html", "--csv", "--junit", "--requests-output")
    },
    "run --rate 1 --output nowhere/x": "--output: no such folder; got 'nowhere/x'",
    "run --rate 1 --output there/x": "--output: ",
    "run --rate 1 --output folder": "--output: not a file; got 'folder'",
    "run --rate 1 --output folder --force": "--output: not a file; got 'folder'",
    "run --rate 1 --output /dev/null --force": "--output: not a file; got '/dev/null'",
    "run --rate 1 --output ''": "--output: ",
    "run --rate 1 --output x --html ./x": "--html: another output goes there; got './x'",
    f"run --rate 1 --output {'x' * 300}": "--output: File name too long",
    "replay timed.jsonl --output there": "--output: exists",
}
JUDGING = {
    "run --rate 1 --fail-on fast": "--fail-on: ",
    "run --rate 1 --fail-on 'ttft.p99<-1s'": "--fail-on: ",
    "run --rate 1 --fail-on 'ttft.p98<1s'": "--fail-on: ",
    "run --rate 1 --fail-on 'ttft.p99<nan'": "--fail-on: ",
    "run --rate 1 --fail-on ''": "--fail-on: ",
    "run --rate 1 --fail-on 'goodput.share>99%'": "--fail-on: ",
    "run --rate 1 --slo fast": "--slo: ",
    "run --rate 1 --slo 'ttft<-1ms'": "--slo: ",
    "run --rate 1 --slo 'ttft<nanms'": "--slo: ",
    "run --rate 1 --slo ''": "--slo: ",
}
DATA = {  # row 117: broken data
    "run --rate 1 --data jsonl --data-file broken.jsonl": "broken.jsonl:2: not JSON at column 12",
    "run --rate 1 --data jsonl --data-file nowhere": "--data-file: No such file or directory",
    "run --rate 1 --data jsonl --data-file folder": "--data-file: Is a directory; got 'folder'",
    "run --rate 1 --data jsonl": "--data-file: missing; got nothing; allowed FILE",
    "run --rate 1 --data fim --files nowhere": "--files: no such folder; got 'nowhere'",
    "run --rate 1 --data fim --files folder": "--files: no file to use; got 'folder'",
    "run --rate 1 --data fim --files there": "--files: not a folder; got 'there'",
    "run --rate 1 --data csv": "--data: unknown; got 'csv'; allowed synthetic, families",
    "run --rate 1 --prompt-tokens 0": "--prompt-tokens: ",
    "run --rate 1 --families 3": "--families: not for this data; got --data synthetic",
    "run --rate 1 --data jsonl --data-file timed.jsonl": "--data-file: has times; got a timed",
    "replay nowhere": "--data-file: No such file or directory; got 'nowhere'",
    "replay broken.jsonl": "broken.jsonl:2: not JSON",
    "replay plain.jsonl": "TRACE: has no times; got prompts alone",
    "replay timed.jsonl --speed 0": "--speed: not a number in range",
    "replay timed.jsonl --concurrency 0": "--concurrency: ",
}
OTHER_VERBS = {
    **{
        f"sweep --rates {value}": "--rates: "
        for value in ("''", "0", "1,,2", "2,1", "1,1", "1,nan", "-1", "1,1e9", "1,x")
    },
    **{
        f"sweep --rate-range {value}": "--rate-range: "
        for value in ("1", "1:2", "2:1:3", "1:1:3", "1:2:1", "0:2:3", "1:inf:3", "1:2:65", "1:2:x")
    },
    "sweep --concurrencies 0": "--concurrencies: ",
    "sweep --concurrencies 1,1.5": "--concurrencies: ",
    "sweep --concurrencies 2 --arrival constant": "--arrival: not for this load",
    "sweep --concurrencies 2 --workers 3": "--workers: more than ",
    "sweep --rates 1,2 --halvings -1": "--halvings: ",
    "sweep --rates 1,2 --slo-share 0x1": "--slo-share: ",
    "sweep --rates 1,2 --duration 0": "--duration: no time at all",
    "sweep --rates 1,2 --slo fast": "--slo: ",
    "sweep --rates 1,2 --output there": "--output: exists",
    "sweep --rates 1,2 --requests-output x": "--requests-output: not of a sweep",
    "sweep --rates 1,2 --target 192.0.2.1:80": "--target: not on this machine",
    "sweep --rates 1,2 --data jsonl --data-file timed.jsonl": "--data-file: has times",
    "sweep --rates 1,2 --data jsonl --data-file broken.jsonl": "broken.jsonl:2: not JSON",
    "report nowhere": "nowhere: No such file or directory; got nothing; allowed a result",
    "report folder": "folder: Is a directory",
    "report there": "there: not a JSON result; got ",
    "report broken.jsonl": "broken.jsonl: not a JSON result; got ",
    "report there --html there": "--html: exists; got 'there'",
    "report there --html nowhere/x": "--html: no such folder; got 'nowhere/x'",
    "compare nowhere there": "nowhere: No such file or directory; got nothing; allowed a result",
    "compare there nowhere": "there: not a JSON result; got ",
    "compare there there --least x": "--least: ",
    "compare there there --least nan": "--least: ",
    "compare there there --fail-on-regression -1": "--fail-on-regression: ",
    "mock-shard --listen 0.0.0.0:0": "--listen: not an address; got '0.0.0.0:0'; allowed",
    "mock-shard --listen 127.0.0.1": "--listen: not an address",
    "mock-shard --listen 127.0.0.1:70000": "--listen: port out of range",
    f"mock-shard --listen 127.0.0.1:{'9' * 5000}": "--listen: ",
    "mock-shard --listen 127.0.0.1:65535 --ranks 2": "--listen: port out of range",
    "mock-shard --listen unix:nowhere/x": "--listen: no such folder; got 'nowhere/x'",
    f"mock-shard --listen unix:{'x' * 200}": "--listen: ",
    "mock-shard --listen unix:": "--listen: ",
    "mock-shard --listen unix:folder": "--listen: ",
    "mock-shard --ranks 0": "--ranks: ",
    "mock-shard --slots 0": "--slots: ",
    "mock-shard --step-base -1s": "--step-base: ",
    "mock-shard --step-base nan": "--step-base: ",
    "mock-shard --jitter 9": "--jitter: ",
    "mock-shard --fail-share 2": "--fail-share: ",
    "mock-shard --hang-for 1s": "--hang-for: ",
    "mock-shard --tokenizer nowhere": "--tokenizer: No such file or directory",
    "mock-shard --tokenizer there": "--tokenizer: ",
    "mock-shard --tokenizer folder": "--tokenizer: Is a directory",
    "mock-shard --truth nowhere/x": "--truth: ",
    "mock-shard --truth there": "--truth: ",
}
COMMANDS = {
    "": "the following arguments are required: VERB",
    "fly": "VERB: invalid choice: 'fly'",
    "run --rate": "--rate: expected one argument",
    "run --rate 1 --colour": "unrecognized arguments: --colour",
    "run --rat 1": "unrecognized arguments: --rat",
    "run --rate 1 extra": "unrecognized arguments: extra",
    "compare there": "the following arguments are required: after",
    "report": "the following arguments are required: result",
    "sweep": "one of the arguments --rates --rate-range --concurrencies is required",
    "sweep --rates 1 --concurrencies 1": "--concurrencies: not allowed with argument --rates",
    "replay": "the following arguments are required: TRACE",
}
ARGPARSE_SAYS = (
    *(
        "invalid choice",
        "invalid float",
        "expected one argument",
        "required",
        "not allowed with",
        "unrecognized",
    ),
)
"""Its own words, which have no form."""
REFUSED = {
    **RATES_AND_TIMES,
    **REQUESTS,
    **TARGETS,
    **OUTPUTS,
    **JUDGING,
    **DATA,
    **OTHER_VERBS,
    **COMMANDS,
}


@pytest.mark.parametrize("command", REFUSED)
def test_a_bad_argument_is_refused_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    before = sorted(os.listdir(here))
    assert status_of(command) == 2
    answer = capsys.readouterr()
    first, *hints = answer.err.splitlines()
    assert first.startswith(f"error: {REFUSED[command]}")
    assert len(hints) <= 1 and all(hint.startswith("hint: ") for hint in hints)
    assert len(first) < 600
    if not any(words in first for words in ARGPARSE_SAYS):
        assert "; got " in first and "; allowed " in first
    assert answer.out == ""
    assert sorted(os.listdir(here)) == before, "nothing was written"


@pytest.mark.parametrize(
    "command",
    [
        "run --rate 1 --dry-run",
        "run --rate 1 --output there --force",
        "run --rate 1e5 --duration 30s",
        "run --editors 3 --data keystrokes --files . --debounce 50ms",
        "run --concurrency 2 --data fim --files . --max-new-tokens 5",
        "run --rate 1 --target localhost:1",
        "run --rate 1 --target '[::1]:1'",
        "run --rate 1 --target unix:nowhere.sock",
        "replay timed.jsonl --speed 10",
        "sweep --rates 1,2,4",
        "sweep --concurrencies 1,2 --data fim --files . --dry-run",
    ],
)
def test_where_nobody_listens_it_is_5_and_says_how_to_start_a_server(  # row 116
    command: str, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert status_of(command) == 5
    first, hint = capsys.readouterr().err.splitlines()
    assert first.startswith("error: cannot reach the server at ")
    assert "santacoder-serve" in hint
    assert (here / "there").read_text() == "x", "no output was touched"


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "run --help",
        "sweep --help",
        "replay --help",
        "report --help",
        "compare --help",
        "mock-shard --help",
    ],
)
def test_help_is_0_and_names_what_it_is_about(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(command) == 0
    answer = capsys.readouterr()
    assert answer.out.startswith("usage: santacoder-load") and answer.err == ""
