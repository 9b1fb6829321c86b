"""How `santacoder-load run` ends: well, refused, left alone half way, interrupted, on a full disk.

Every wait is for something that must happen, never for a time in which it may have.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from load_commands import ENOUGH, PATIENCE_SECONDS, SHORT, command_line, result_at, run, wait_for

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.loadtest.__main__ import main
from santacoder_client.testing import Answer, Failure, FakeRouter


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    return tmp_path


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with FakeRouter(Answer(("a", "b"))) as router:
        yield router


def no_traces(folder: Path, *expected: str) -> None:
    assert sorted(os.listdir(folder)) == sorted(expected), "a half-written file was left"


def test_every_request_option_reaches_the_server(router: FakeRouter) -> None:
    options = (
        "--temperature 0.5 --top-k 3 --sampling-seed 7 --stop x --stop y --stop-token-ids 4,5 "
        "--logit-bias 5=1.5,6=-2 --logprobs 1 --priority low --cache-salt salt --ignore-eos "
        "--prompt-tokens 9 --max-new-tokens 3 --time-budget 5 --fail-on 'e2e.p50<100s'"
    )
    assert run(router, f"{SHORT} {options}") == 0, "the threshold is met"
    sent = router.requests[0]
    assert len(sent.token_ids.ids) == 9 and sent.stopping.max_new_tokens == 3
    assert (sent.sampling.temperature, sent.sampling.top_k, sent.sampling.seed) == (0.5, 3, 7)
    assert dict(sent.sampling.logit_bias) == {5: 1.5, 6: -2}
    assert list(sent.stopping.stop) == ["x", "y"] and list(sent.stopping.stop_token_ids) == [4, 5]
    assert sent.stopping.ignore_eos and sent.output.logprobs == 1
    assert (sent.priority, sent.cache_salt) == (pb.PRIORITY_LOW, b"salt")
    assert sent.time_budget.seconds == 5
    assert len({request.request_id for request in router.requests}) == len(router.requests)


def test_lines_of_a_file_are_sent_as_they_are_and_replace_what_force_allows(
    router: FakeRouter, here: Path
) -> None:
    lines = [{"prompt": "é\r\n", "top_k": 2}, {"prefix": "a", "suffix": "", "max_new_tokens": 5}]
    data = here / os.fsdecode(b"data-\xff.jsonl")
    data.write_text("\n".join(map(json.dumps, lines)))
    (here / "r.json").write_text("old")
    command = [*SHORT.split(), "--output", "r.json", "--force"]
    argv = ["run", "--target", router.target, *command, "--data", "jsonl", "--data-file", str(data)]
    assert main(argv) == 0
    text = next(each for each in router.requests if each.HasField("text"))
    infill = next(each for each in router.requests if each.HasField("infill"))
    assert (text.text, text.sampling.top_k) == ("é\r\n", 2)
    assert (infill.infill.prefix, infill.infill.suffix) == ("a", "")
    assert (text.stopping.max_new_tokens, infill.stopping.max_new_tokens) == (64, 5)
    result = result_at(here / "r.json")
    assert result["outcomes"]["ok"] == len(router.requests)
    assert result["data"]["options"]["data_file"].endswith("data-\\udcff.jsonl")


def test_a_trace_is_played_whole_and_once(router: FakeRouter, here: Path) -> None:
    lines = [{"prompt": str(at), "at": at / 1000} for at in (200, 0, 100)]
    (here / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))
    argv = ["--target", router.target, "--workers", "1", "--output", "r.json", "--speed", "2"]
    assert main(["replay", "trace.jsonl", *argv]) == 0
    assert sorted(request.text for request in router.requests) == ["0", "100", "200"]
    result = result_at(here / "r.json")
    assert result["outcomes"]["ok"] == 3 and result["load"]["model"] == "trace"


def test_a_server_that_refuses_every_request_is_1_and_says_how(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "the queue is full")
    with FakeRouter(Answer((), failure=failure)) as router:
        assert run(router, f"{SHORT} --output r.json") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: no request was answered; ")
    assert "failed with RESOURCE_EXHAUSTED QUEUE_FULL: the queue is full" in last
    result = result_at(here / "r.json")
    assert result["outcomes"]["ok"] == 0 and result["outcomes"]["failed"] == len(router.requests)
    assert [error["reason"] for error in result["errors"]] == ["QUEUE_FULL"]
    assert set(result["figures"]) == {"dispatch_delay"}, "failures are no latencies"


@contextmanager
def nothing_served() -> Iterator[str]:
    """A gRPC server without the service."""
    pool = futures.ThreadPoolExecutor(1)
    server = grpc.server(pool)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()
    pool.shutdown()


@contextmanager
def no_grpc() -> Iterator[str]:
    """Somebody who speaks another protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("server", [nothing_served, no_grpc])
def test_a_server_of_another_kind_is_5(
    server: Any, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    with server() as address:
        assert main(["run", "--target", address, "--rate", "1", "--output", "r.json"]) == 5
    first, *hints = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error: cannot reach the server at {address}: ")
    assert len(hints) == 1 and hints[0].startswith("hint: ")
    no_traces(here)


def test_a_server_that_dies_half_way_is_1_with_what_was_measured(
    router: FakeRouter, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def die() -> None:
        wait_for(ENOUGH, router.requests)
        router.close()

    dying = threading.Thread(target=die)
    dying.start()
    command = "--concurrency 1 --warm-up 0s --duration 2s --cool-down 0s --grace 1s --output r.json"
    assert run(router, command) == 1
    dying.join()
    told = capsys.readouterr().err
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("error: ") and router.target in last and "when the run began" in last
    outcomes = result_at(here / "r.json")["outcomes"]
    assert outcomes["ok"] > 0 and outcomes["failed"] > 0
    no_traces(here, "r.json")


@pytest.mark.parametrize("load", ["run --concurrency 1", "sweep --concurrencies 1,2"])
def test_ctrl_c_is_130_and_keeps_what_was_measured(
    load: str, router: FakeRouter, here: Path
) -> None:
    argv = (*load.split(), "--target", router.target, "--warm-up", "0s")
    outputs = ("--duration", "1h", "--output", "r.json", "--html", "r.html")
    with command_line(*argv, *outputs) as process:
        wait_for(ENOUGH, router.requests)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in told
    result = result_at(here / "r.json")
    assert result["interrupted"] is True
    assert 0 < result["outcomes"]["ok"] <= len(router.requests)
    assert 0 < result["window"]["end"] < 3600
    assert (here / "r.html").read_text().endswith("</html>\n")
    no_traces(here, "r.json", "r.html")


def test_ctrl_c_before_anything_was_sent_is_130_and_leaves_nothing(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        argv = ("run", "--target", target, "--rate", "1", "--output", "r.json")
        with command_line(*argv) as process:
            caller, _ = silent.accept()  # it asks what is served, and gets no answer
            with caller:
                process.send_signal(signal.SIGINT)
                out, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "Traceback" not in told and out == ""
    no_traces(here)


def test_a_full_disk_is_1_and_leaves_no_half_of_a_file(router: FakeRouter, here: Path) -> None:
    argv = ("run", "--target", router.target, *SHORT.split())
    outputs = ("--output", "r.json", "--html", "r.html", "--csv", "r.csv")
    # No file may grow above a block: a disk that is full, for this process.
    with command_line(
        *argv, *outputs, before=("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")
    ) as process:
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    assert "Traceback" not in told
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    assert any("r.json: not written: File too large" in line for line in lines)
    assert any("r.html: not written: File too large" in line for line in lines)
    assert not {"r.json", "r.html"} & set(os.listdir(here))
    assert all(not name.startswith(".") for name in os.listdir(here))


def test_a_threshold_missed_is_6_and_shows_which(
    router: FakeRouter, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demands = "--fail-on 'e2e.p50<1us' --fail-on 'errors.share<1%' --junit r.xml --output r.json"
    assert run(router, f"{SHORT} {demands}") == 6
    answer = capsys.readouterr()
    missed = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(missed) == 1
    assert missed[0].startswith("error: --fail-on: missed; got ")
    assert missed[0].endswith("; allowed e2e.p50<1us")
    judged = [
        (each["expression"], each["passed"]) for each in result_at(Path("r.json"))["thresholds"]
    ]
    assert judged == [("e2e.p50<1us", False), ("errors.share<1%", True)]
    assert (here / "r.xml").read_text().count("<failure") == 1


def test_a_machine_without_room_for_workers_is_1_in_one_line(
    router: FakeRouter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(*command: str, **how: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    assert run(router, SHORT) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this machine: ") and "Too many open files" in line
