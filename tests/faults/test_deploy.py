"""santacoder-serve is started, stopped, renewed and started twice at bad moments."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from faults.calm import ask
from faults.router_command import router_command
from process_sockets import TCP_LISTEN, internet_sockets
from router.mock_shard import Behaviour
from running_service import WAIT_SECONDS, Service, is_running, serving, short_folder

from santacoder_client import Client, CompletionOptions

Figure = Callable[[str, object], None]
LONG = CompletionOptions(max_new_tokens=400, ignore_eos=True, temperature=0.8, seed=5, logprobs=1)
PROMPT = [5, 9, 200, 31, 7]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", positions=2048)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Where the service makes its run folder; a short path, as sockets need."""
    with short_folder() as folder:
        yield folder


def descendants(pid: int) -> list[int]:
    """Processes that a process has started and that are there."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def wait_said(service: Service, text: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not any(text in line for _, line in list(service._errors)):
        assert time.monotonic() < deadline and service.process.poll() is None
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.fault("X3")
@pytest.mark.parametrize("moment", ["model found", "starting the ranks", "rank 0 is ready"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it_and_leaves_nothing(
    checkpoint: Path,
    temporary: Path,
    moment: str,
    number: signal.Signals,
    record_property: Figure,
) -> None:
    service = Service(checkpoint, temporary, "--tp=2")
    try:
        wait_said(service, moment)
        children = descendants(service.process.pid)
        service.process.send_signal(number)
        began = time.monotonic()
        code, _, errors = service.end()
        seconds = time.monotonic() - began
        line = f"X3, {number.name} at {moment!r}: gone after {seconds:.2f} s"
        record_property("figure", line)
        assert code in (0, 128 + number), errors
        assert "Traceback" not in errors
    finally:
        service.close()
    assert not [pid for pid in children if is_running(pid)]
    assert list(temporary.iterdir()) == []


@pytest.mark.long
@pytest.mark.fault("X5")
def test_the_ranks_are_replaced_amid_a_request_and_its_tokens_stay(
    checkpoint: Path, temporary: Path
) -> None:
    with serving(checkpoint, temporary, "--tp=2") as service, Client(service.target) as client:
        undisturbed = client.complete(PROMPT, **LONG)
        for _ in range(8):  # more often than a group may die
            before = service.children()
            stream = client.stream(PROMPT, **LONG)
            next(stream)
            service.process.send_signal(signal.SIGUSR2)
            assert stream.result().choices == undisturbed.choices
            after = service.children()
            assert before["router"] == after["router"]
            deadline = time.monotonic() + WAIT_SECONDS
            while set(before.values()) & {pid for name, pid in after.items() if name != "router"}:
                assert time.monotonic() < deadline
                after = service.children()
        assert "Traceback" not in service.stop()


@pytest.mark.fault("X8")
def test_a_second_router_at_a_port_says_whose_it_is_and_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with router_command(tmp_path / "r", Behaviour()) as router:
            port = router.target.rpartition(":")[2]
            words = ["-m", "santacoder_router", "--shards=unix:/none", f"--port={port}"]
            second = await asyncio.create_subprocess_exec(
                sys.executable, *words, stdout=PIPE, stderr=PIPE
            )
            out, err = await second.communicate()
            assert (second.returncode, out) == (4, b"")
            assert f"taken by the process with id {router.process.pid}" in err.decode()
            await ask(router.target)

    asyncio.run(scenario())


@pytest.mark.long
@pytest.mark.fault("X11")
def test_a_hundred_starts_and_stops_leave_nothing(tmp_path: Path, record_property: Figure) -> None:
    """Of the router; each of them answers, and frees its ports."""

    async def scenario() -> None:
        seconds, before = [], set(os.listdir("/dev/shm"))
        for life in range(1, 101):
            began = time.monotonic()
            behaviour, folder = Behaviour(), tmp_path / "r"
            async with router_command(folder, behaviour, epoch=life) as router:
                seconds.append(time.monotonic() - began)
                await ask(router.target)
                ports = {
                    port
                    for state, _, port in internet_sockets(router.process.pid)
                    if state == TCP_LISTEN
                }
                assert len(ports) == 2
                assert await router.stop() == 0
            for port in ports:
                server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
                server.close()
        first, last = statistics.median(seconds[:30]), statistics.median(seconds[-30:])
        line = f"X11, a start takes {first:.2f} s at first, {last:.2f} s after 100 of them"
        record_property("figure", line)
        assert last < 3 * first
        assert not [pid for pid in descendants(os.getpid()) if is_running(pid)]
        assert set(os.listdir("/dev/shm")) <= before

    asyncio.run(scenario())


@pytest.mark.long
@pytest.mark.fault("X2", "X11")
def test_a_service_that_is_told_twice_ends_at_once_with_all_its_processes(
    checkpoint: Path, temporary: Path
) -> None:
    for _ in range(3):
        with serving(checkpoint, temporary, "--tp=2") as service, Client(service.target) as client:
            pids = list(service.children().values())
            stream = client.stream(PROMPT, max_new_tokens=1900, ignore_eos=True)
            next(stream)
            service.process.send_signal(signal.SIGTERM)
            wait_said(service, "stopping")
            service.process.send_signal(signal.SIGTERM)
            assert service.end()[0] == 143
            stream.cancel()
            assert not [pid for pid in pids if is_running(pid)]
    assert list(temporary.iterdir()) == []
