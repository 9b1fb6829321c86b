"""The `santacoder` command: its words, its exit statuses, and its manners in a pipeline."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import grpc
import pytest

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import Client, FinishReason, Violation
from santacoder_client._options import OPTIONS
from santacoder_client.cli import main
from santacoder_client.testing import Answer, Failure, FakeRouter

Serve = Callable[..., FakeRouter]
Run = Callable[..., tuple[int, str, str]]

SLOW = Answer(("a",) * 200, seconds_per_piece=0.5)
NOBODY = "127.0.0.1:1"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process; gives exit status, stdout, stderr."""
    monkeypatch.delenv("SANTACODER_TARGET", raising=False)

    def start(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as leaving:
            status = int(str(leaving.code or 0))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return start


# Whoever starts the tests in the background has them, and their children, ignore Ctrl-C.
AT_A_TERMINAL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from santacoder_client.cli import main
sys.exit(main())
"""


def spawn(
    router: FakeRouter, *arguments: str, stdout: int | IO[bytes] = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, *arguments, "--target", router.target],
        # What gRPC itself says of a slow machine is not the command's word.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GRPC_VERBOSITY": "NONE"},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def test_complete_prints_exactly_the_sdk_s_text(serve: Serve, run: Run) -> None:
    router = serve(Answer(("def é():\r\n", "", "    pass")))
    with Client(router.target) as client:
        text = client.complete("x").text
    assert run("complete", "x", "--target", router.target) == (0, text, "")


def test_infill_sends_both_files_byte_for_byte(serve: Serve, run: Run, tmp_path: Path) -> None:
    router = serve(Answer(("middle",)))
    (tmp_path / "before").write_bytes("é\r\n".encode())
    (tmp_path / "after").write_bytes(b"\tx\n")
    files = ("--prefix-file", f"{tmp_path}/before", "--suffix-file", f"{tmp_path}/after")
    assert run("infill", *files, "--target", router.target, "--fim-order", "spm") == (
        0,
        "middle",
        "",
    )
    expected = pb.InfillPrompt(prefix="é\r\n", suffix="\tx\n", order=pb.FIM_ORDER_SPM)
    assert router.requests == [pb.CompletionRequest(infill=expected)]


FLAGS = {
    "max_new_tokens": ("9", pb.CompletionRequest(stopping=pb.Stopping(max_new_tokens=9))),
    "min_new_tokens": ("2", pb.CompletionRequest(stopping=pb.Stopping(min_new_tokens=2))),
    "temperature": ("0.5", pb.CompletionRequest(sampling=pb.Sampling(temperature=0.5))),
    "top_k": ("40", pb.CompletionRequest(sampling=pb.Sampling(top_k=40))),
    "top_p": ("0.9", pb.CompletionRequest(sampling=pb.Sampling(top_p=0.9))),
    "min_p": ("0.1", pb.CompletionRequest(sampling=pb.Sampling(min_p=0.1))),
    "typical_p": ("0.8", pb.CompletionRequest(sampling=pb.Sampling(typical_p=0.8))),
    "repetition_penalty": (
        "1.2",
        pb.CompletionRequest(sampling=pb.Sampling(repetition_penalty=1.2)),
    ),
    "presence_penalty": ("0.3", pb.CompletionRequest(sampling=pb.Sampling(presence_penalty=0.3))),
    "frequency_penalty": (
        "-0.4",
        pb.CompletionRequest(sampling=pb.Sampling(frequency_penalty=-0.4)),
    ),
    "seed": ("7", pb.CompletionRequest(sampling=pb.Sampling(seed=7))),
    "stop": ("a,b", pb.CompletionRequest(stopping=pb.Stopping(stop=["a,b"]))),
    "stop_token_ids": ("3,4", pb.CompletionRequest(stopping=pb.Stopping(stop_token_ids=[3, 4]))),
    "ignore_eos": (None, pb.CompletionRequest(stopping=pb.Stopping(ignore_eos=True))),
    "logit_bias": (
        "7=-100,8=0.5",
        pb.CompletionRequest(sampling=pb.Sampling(logit_bias={7: -100, 8: 0.5})),
    ),
    "logprobs": ("2", pb.CompletionRequest(output=pb.Output(logprobs=2))),
    "echo": (None, pb.CompletionRequest(output=pb.Output(echo=True))),
    "completion_count": ("2", pb.CompletionRequest(completion_count=2)),
    "fim_order": ("psm", pb.CompletionRequest()),
    "truncate": (
        "keep_nearest",
        pb.CompletionRequest(truncate=pb.TRUNCATE_POLICY_KEEP_NEAREST),
    ),
    "priority": ("high", pb.CompletionRequest(priority=pb.PRIORITY_HIGH)),
    "cache_salt": ("s", pb.CompletionRequest(cache_salt=b"s")),
    "request_id": ("r", pb.CompletionRequest(request_id="r")),
    "time_budget": ("2", pb.CompletionRequest(time_budget={"seconds": 2})),  # type: ignore[arg-type]
    "timeout": ("30", pb.CompletionRequest()),
}


@pytest.mark.parametrize("name", [option.name for option in OPTIONS])
def test_every_option_is_a_flag(serve: Serve, run: Run, name: str) -> None:
    router = serve()
    value, expected = FLAGS[name]
    flag = "--" + name.replace("_", "-")
    given = (flag,) if value is None else (f"{flag}={value}",)
    status, _, errors = run("complete", "x", *given, "--target", router.target)
    assert (status, errors) == (0, "")
    expected.text = "x"
    assert router.requests == [expected]


def test_stop_may_be_given_several_times(serve: Serve, run: Run) -> None:
    router = serve()
    run("complete", "x", "--stop", "a", "--stop", "b", "--target", router.target)
    assert list(router.requests[0].stopping.stop) == ["a", "b"]


def test_a_dash_reads_standard_input(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = serve()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("é\r\n".encode())))
    assert run("complete", "-", "--target", router.target)[0] == 0
    assert router.requests[0].text == "é\r\n"


def test_the_target_comes_from_flag_before_environment(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = serve()
    monkeypatch.setenv("SANTACODER_TARGET", router.target)
    assert run("tokenize", "ab") == (0, "97 98\n", "")
    assert run("--target", NOBODY, "tokenize", "ab")[0] == 5
    assert run("tokenize", "ab", "--target", NOBODY)[0] == 5


def test_json_is_one_object_with_all_there_is(serve: Serve, run: Run) -> None:
    router = serve(Answer(("a", "é"), FinishReason.STOP, matched_stop="\n"))
    status, output, errors = run(
        "complete", "x", "--json", "--logprobs", "1", "--completion-count", "2",
        "--target", router.target,
    )  # fmt: skip
    assert (status, errors) == (0, "")
    done = json.loads(output)
    assert list(done) == [
        "request_id", "text", "token_ids", "finish_reason",
        "choices", "usage", "timings", "accepted",
    ]  # fmt: skip
    assert (done["text"], done["token_ids"], done["finish_reason"]) == ("aé", [97, 233], "STOP")
    assert [choice["matched_stop"] for choice in done["choices"]] == ["\n", "\n"]
    assert done["choices"][1]["logprobs"][0]["top"][0]["token_id"] == 97
    assert done["usage"]["completion_token_count"] == 4
    assert done["timings"]["total_seconds"] == 0.003
    assert done["accepted"]["sampling"]["seed"] == 0


def test_several_answers_are_printed_one_after_the_other(serve: Serve, run: Run) -> None:
    router = serve(Answer(("a", "b")))
    output = run("complete", "x", "--completion-count", "2", "--target", router.target)[1]
    assert output == "==> choice 0 <==\nab\n==> choice 1 <==\nab\n"


def test_verbose_sums_up_on_stderr_alone(
    serve: Serve, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Read at the start and at each piece with tokens: a clock of our own makes the figures exact.
    clock = SimpleNamespace(perf_counter=iter((10.0, 10.5, 10.75)).__next__)
    monkeypatch.setattr("santacoder_client._stopwatch.time", clock)
    router = serve(Answer(("ab", "c")))
    status, output, errors = run("complete", "x", "--verbose", "--target", router.target)
    assert (status, output) == (0, "abc")
    # One token after the first piece, a quarter of a second later.
    assert errors == "first token 500.0 ms, 3 tokens, 4.0 tokens/s, LENGTH\n"


def test_verbose_figures_are_of_this_machine_s_clock(serve: Serve, run: Run) -> None:
    router = serve(Answer(("a",), seconds_per_piece=0.1))
    _, _, errors = run("complete", "x", "--verbose", "--target", router.target)
    assert float(errors.split()[2]) > 50  # ms; the piece is sent after 100


def test_tokenize_and_info_print_plainly_or_as_json(serve: Serve, run: Run) -> None:
    target = ("--target", serve().target)
    assert run("tokenize", "x é", *target)[1] == "120 32 233\n"
    tokens = json.loads(run("tokenize", "x é", "--json", *target)[1])
    assert tokens == {"token_ids": [120, 32, 233], "token_count": 3}
    table = [line.split() for line in run("info", *target)[1].splitlines()]
    assert ["limits.context_token_count", "2048"] in table
    assert ["special_token.<|endoftext|>", "0"] in table
    assert json.loads(run("info", "--json", *target)[1])["limits"]["context_token_count"] == 2048


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("complete",), "the following arguments are required: PROMPT"),
        (
            ("complete", "x", "--top-k", "many"),
            "--top-k: not readable; got 'many'; allowed a whole number",
        ),
        (
            ("complete", "x", "--priority", "urgent"),
            "--priority: unknown; got 'urgent'; allowed low, normal, high",
        ),
        (("complete", "x", "--max-new", "3"), "unrecognized arguments: --max-new 3"),
        (("complete", "x", "--logit-bias", "3"), "--logit-bias: not readable; got "),
        (("infill", "--prefix-file", "f"), "the following arguments are required: --suffix-file"),
        (("infill", "--prefix-file", "/nowhere", "--suffix-file", "f"), "/nowhere: No such file"),
        (("infill", "--prefix-file", "/", "--suffix-file", "f"), "/: Is a directory"),
    ],
)
def test_wrong_usage_is_exit_2_and_one_line(
    run: Run, arguments: tuple[str, ...], said: str
) -> None:
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    first, *hints = errors.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert all(hint.startswith("hint: ") for hint in hints)


def test_a_file_that_is_no_text_is_exit_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"ab\xff")
    files = ("--prefix-file", f"{tmp_path}/binary", "--suffix-file", f"{tmp_path}/binary")
    assert run("infill", *files) == (2, "", f"error: {tmp_path}/binary: not UTF-8 text at byte 2\n")


def test_no_server_is_exit_5_with_a_hint(run: Run) -> None:
    for command in (("complete", "x"), ("tokenize", "x"), ("info",)):
        status, output, errors = run(*command, "--target", NOBODY)
        assert (status, output) == (5, "")
        first, hint = errors.splitlines()
        assert first.startswith(f"error: cannot reach the server at {NOBODY}: ")
        assert hint == f"hint: is a server running at {NOBODY}? `santacoder-serve` starts one"


REFUSALS = [
    (
        Failure(grpc.StatusCode.INVALID_ARGUMENT, "TOP_K_RANGE", "sampling.top_k: out of range"),
        [
            "error: sampling.top_k: out of range",
            "hint: `santacoder info` shows what the server allows",
        ],
    ),
    (
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "queue full", retry_after=1.5),
        ["error: queue full", "hint: try again in 1.5 s"],
    ),
    (
        Failure(grpc.StatusCode.UNAVAILABLE, "WARMING", "the shards are not ready yet"),
        ["error: the shards are not ready yet"],
    ),
    (
        Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error; id 0123456789abcdef"),
        ["error: internal error; id 0123456789abcdef"],
    ),
]


@pytest.mark.parametrize(("failure", "lines"), REFUSALS)
def test_a_request_that_fails_is_exit_1(
    serve: Serve, run: Run, failure: Failure, lines: list[str]
) -> None:
    router = serve(Answer((), failure=failure))
    status, output, errors = run("complete", "x", "--target", router.target)
    assert (status, output, errors.splitlines()) == (1, "", lines)


def test_a_value_that_no_message_can_carry_is_exit_1(serve: Serve, run: Run) -> None:
    status, _, errors = run("complete", "x", "--top-k", "2147483648", "--target", serve().target)
    assert status == 1
    assert errors.startswith("error: sampling.top_k: out of range; got 2147483648; allowed ")


def test_json_tells_an_error_as_one_object(serve: Serve, run: Run) -> None:
    violation = Violation("sampling.top_k", "out of range", "TOP_K_RANGE")
    failure = Failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "TOP_K_RANGE",
        "sampling.top_k: out of range",
        violations=(violation,),
        request_id="r-1",
    )
    router = serve(Answer((), failure=failure))
    status, output, errors = run("complete", "x", "--json", "--target", router.target)
    assert status == 1
    assert errors.startswith("error: sampling.top_k: out of range\n")
    assert json.loads(output) == {
        "error": {
            "code": "INVALID_ARGUMENT",
            "reason": "TOP_K_RANGE",
            "message": "sampling.top_k: out of range",
            "violations": [
                {"field": "sampling.top_k", "description": "out of range", "reason": "TOP_K_RANGE"}
            ],
            "retry_after": None,
            "request_id": "r-1",
        }
    }


def test_text_before_a_failure_is_printed(serve: Serve, run: Run) -> None:
    lost = Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error; id 0")
    router = serve(Answer(("some ", "text"), failure=lost))
    assert run("complete", "x", "--target", router.target) == (
        1,
        "some text",
        "error: internal error; id 0\n",
    )


def test_help_of_every_command_has_every_flag_and_an_example(run: Run) -> None:
    status, output, _ = run("--help")
    assert status == 0
    assert "santacoder infill --prefix-file before.py --suffix-file after.py" in output
    for command in ("complete", "infill"):
        status, output, _ = run(command, "--help")
        assert status == 0
        for option in OPTIONS:
            assert "--" + option.name.replace("_", "-") in output


def test_pieces_are_printed_as_they_come_and_ctrl_c_is_exit_130(serve: Serve) -> None:
    router = serve(SLOW)
    with spawn(router, "complete", "x") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(2) == b"aa"  # long before the ten seconds of the whole
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""
    assert router.wait_for_cancel(timeout=30)


def test_a_reader_that_leaves_is_no_error_and_cancels(serve: Serve) -> None:
    router = serve(SLOW)
    with spawn(router, "complete", "x") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(1) == b"a"
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    assert router.wait_for_cancel(timeout=30)


@pytest.mark.fault("D12")
def test_a_full_disk_is_exit_1_and_one_line(serve: Serve) -> None:
    router = serve()
    with open("/dev/full", "wb") as full, spawn(router, "tokenize", "x", stdout=full) as process:
        assert process.stderr is not None
        assert process.stderr.read() == b"error: standard output: No space left on device\n"
    assert process.returncode == 1
