"""The link between two ranks is cut amid a step: the group ends, the request does not."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from running_service import serving, short_folder

from santacoder_client import Client, CompletionOptions

PIDFD_GETFD = 438
ESTABLISHED = "01"
OPTIONS = CompletionOptions(max_new_tokens=400, ignore_eos=True, temperature=0.8, seed=5)
PROMPT = [5, 9, 200, 31, 7]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A short path, as sockets need."""
    with short_folder() as folder:
        yield folder


def connections(pid: int) -> list[int]:
    """Descriptors of a process's TCP connections; those of a rank on a socket are its ranks'."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    inodes = {line.split()[9] for line in lines if line.split()[3] == ESTABLISHED}
    return [
        int(path.name)
        for path in Path(f"/proc/{pid}/fd").iterdir()
        if os.readlink(path).removeprefix("socket:[").removesuffix("]") in inodes
    ]


def shut_down(pid: int, descriptor: int) -> None:
    """Ends a connection of another process, both ways; skips where that is not allowed."""
    handle = os.pidfd_open(pid)
    library = ctypes.CDLL(None, use_errno=True)
    own = library.syscall(PIDFD_GETFD, handle, descriptor, 0)
    if own < 0:
        pytest.skip(f"needs pidfd_getfd: {os.strerror(ctypes.get_errno())}")
    os.close(handle)
    with closing(socket.socket(fileno=own)) as connection:
        connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.long
@pytest.mark.fault("N14")
def test_a_cut_link_between_ranks_ends_the_group_and_no_token_is_wrong(
    tmp_path: Path, temporary: Path, record_property: Callable[[str, object], None]
) -> None:
    model = make_checkpoint(tmp_path / "tiny", positions=2048)
    with serving(model, temporary, "--tp=2") as service, Client(service.target) as client:
        undisturbed = client.complete(PROMPT, **OPTIONS)
        stream = client.stream(PROMPT, **OPTIONS)
        next(stream)
        rank = service.children()["rank 0"]
        descriptors = connections(rank)
        assert descriptors
        began = time.monotonic()
        for descriptor in descriptors:
            shut_down(rank, descriptor)
        assert stream.result().choices == undisturbed.choices
        seconds = service.said_at("restarting the group") - began
        record_property(
            "figure", f"T6 (N14), link between ranks cut: given up after {seconds:.2f} s"
        )
        assert seconds < 30.0  # ten are allowed, on a machine that does not stand
        assert service.metric("santacoder_router_group_failures_total") == 1
        service.stop()
