"""santacoder-serve as a user meets it: a ready line, a clean end, deaths that clients outlive."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from checkpoints import make_checkpoint
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_service import WAIT_SECONDS, Service, is_running, serving, short_folder

from santacoder.inference.v1 import inference_pb2, inference_pb2_grpc

PROMPT_IDS = (5, 9, 200, 31, 7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough a context that a request can be met in the middle of its work."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", positions=2048)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the service makes its run folder; a short path, as sockets need."""
    with short_folder() as folder:
        yield folder


def wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {[p for p in pids if is_running(p)]}"
        time.sleep(0.05)


def request(max_new_tokens: int) -> inference_pb2.CompletionRequest:
    return inference_pb2.CompletionRequest(
        token_ids=inference_pb2.TokenIds(ids=PROMPT_IDS),
        stopping=inference_pb2.Stopping(max_new_tokens=max_new_tokens, ignore_eos=True),
    )


def complete(channel: grpc.Channel, max_new_tokens: int) -> list[int]:
    stub = inference_pb2_grpc.CompletionServiceStub(channel)
    message = inference_pb2.CompleteRequest(completion=request(max_new_tokens))
    answer = stub.Complete(message, timeout=WAIT_SECONDS)
    return list(answer.choices[0].token_ids)


def stream(
    channel: grpc.Channel, completion: inference_pb2.CompletionRequest
) -> Iterator[inference_pb2.StreamCompleteResponse]:
    stub = inference_pb2_grpc.CompletionServiceStub(channel)
    message = inference_pb2.StreamCompleteRequest(completion=completion)
    yield from stub.StreamComplete(message, timeout=WAIT_SECONDS)


def delta_ids(event: inference_pb2.StreamCompleteResponse) -> list[int]:
    return list(event.event.delta.token_ids)


def test_ready_is_the_only_output_health_serves_and_sigterm_leaves_nothing_behind(
    checkpoint: Path, temporary: Path
) -> None:
    with serving(checkpoint, temporary, "--tp=2") as service:
        pids = list(service.children().values())
        assert len(pids) == 3
        # Ctrl-C at a terminal goes to a process group; only the launcher is to get it.
        assert os.getpgid(service.process.pid) not in {os.getpgid(pid) for pid in pids}
        (run_folder,) = temporary.iterdir()
        assert stat.S_IMODE(run_folder.stat().st_mode) == 0o700
        sockets = list(run_folder.glob("*.sock"))
        assert [stat.S_IMODE(path.stat().st_mode) for path in sockets] == [0o600, 0o600]
        with grpc.insecure_channel(service.target) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            status = health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS).status
            assert status == health_pb2.HealthCheckResponse.SERVING
            assert len(complete(channel, 8)) == 8
        service.process.send_signal(signal.SIGTERM)
        code, out, err = service.end()
        assert (code, out) == (0, ""), err
        assert "Traceback" not in err
        wait_gone(pids)
        assert list(temporary.iterdir()) == []


@pytest.mark.fault("S1")
def test_a_killed_rank_is_named_and_a_running_request_ends_with_the_same_ids(
    checkpoint: Path, temporary: Path
) -> None:
    token_count = 300
    with (
        serving(checkpoint, temporary, "--tp=2") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        undisturbed = complete(channel, token_count)
        to_kill = [service.children()["rank 1"]]
        ids: list[int] = []
        for event in stream(channel, request(token_count)):
            ids += delta_ids(event)
            if ids and to_kill:
                assert len(ids) < token_count // 2
                os.kill(to_kill.pop(), signal.SIGKILL)
        assert ids == undisturbed
        assert len(ids) == token_count
        service.process.send_signal(signal.SIGTERM)
        code, _, err = service.end()
        assert code == 0
        assert "rank 1 was killed by SIGKILL" in err


@pytest.mark.fault("S17")
def test_when_the_group_cannot_come_back_running_requests_hear_unavailable_at_once(
    checkpoint: Path, temporary: Path, tmp_path: Path
) -> None:
    vanishing = shutil.copytree(checkpoint, tmp_path / "vanishing")
    with (
        serving(vanishing, temporary) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        shutil.rmtree(vanishing)
        slow = request(1900)
        slow.completion_count, slow.output.logprobs = 8, 20
        to_kill = [service.children()["rank 0"]]
        with pytest.raises(grpc.RpcError) as caught:
            for event in stream(channel, slow):
                if delta_ids(event) and to_kill:
                    os.kill(to_kill.pop(), signal.SIGKILL)
        answered_at = time.monotonic()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the model's processes have died"
        code, _, _ = service.end()
        assert code == 1
        # Of the minute that the router would wait for another group.
        assert answered_at - service.said_at("does not start again") < 20.0
        assert list(temporary.iterdir()) == []


@pytest.mark.fault("S19")
def test_no_process_and_no_folder_outlives_a_killed_launcher(
    checkpoint: Path, temporary: Path
) -> None:
    with serving(checkpoint, temporary, "--tp=2") as service:
        pids = list(service.children().values())
        service.process.kill()
        wait_gone(pids)
        assert list(temporary.iterdir()) == []


@pytest.mark.fault("G7", "X8")
def test_a_taken_port_is_exit_code_4_and_one_error_line(checkpoint: Path, temporary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        service = Service(checkpoint, temporary, f"--port={port}")
        code, out, err = service.end()
        service.close()
    assert (code, out) == (4, "")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and str(port) in errors[0]
    assert "Traceback" not in err
    assert list(temporary.iterdir()) == []
