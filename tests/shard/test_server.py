"""Real rank processes on a small random checkpoint: exit codes, what they leave, and equal ids."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from checkpoints import make_checkpoint
from shard_frames import hello, packed, unpacked

from santacoder.shard.v1 import shard_pb2

WAIT_SECONDS = 60.0
PROMPT = (5, 9, 200, 31, 7)
STEP_COUNT = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return folder


class Rank:
    """A rank's process; its standard input stays open for as long as the test holds it."""

    def __init__(self, folder: Path, rank: int, checkpoint: Path, *extra: str) -> None:
        self.socket = folder / f"rank-{rank}.sock"
        command = [sys.executable, "-m", "santacoder_shard", f"--rank={rank}", "--threads=1"]
        command += [f"--model={checkpoint}", f"--listen=unix:{self.socket}", *extra]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            # What gRPC itself says of a slow machine is not the rank's word.
            env={**os.environ, "GRPC_VERBOSITY": "NONE"},
        )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == f"ready listen=unix:{self.socket}\n", self.process.communicate()

    def end(self) -> tuple[int, list[str]]:
        """Exit code, and the last lines of standard error that are no log."""
        _, errors = self.process.communicate(timeout=WAIT_SECONDS)
        lines = [line for line in errors.splitlines() if not line.startswith("timestamp=")]
        return self.process.returncode, lines


@contextmanager
def ranks(folder: Path, checkpoint: Path, size: int, *extra: str) -> Iterator[list[Rank]]:
    if size > 1:
        extra = (*extra, f"--tp={size}", f"--rendezvous={folder / 'rendezvous'}")
    started = [Rank(folder, rank, checkpoint, *extra) for rank in range(size)]
    try:
        for rank in started:
            rank.wait_ready()
        yield started
    finally:
        for rank in started:
            rank.process.kill()
            rank.process.communicate()


def first_plan(with_blocks: bool = True) -> bytes:
    """Admits the prompt into slot 0 and samples after it; without blocks it cannot be run."""
    admit = shard_pb2.Admit(
        sequence=1,
        generation=1,
        token_ids=packed(PROMPT),
        prompt_length=len(PROMPT),
        sampling=shard_pb2.Sampling(top_p=1.0, typical_p=1.0, repetition_penalty=1.0),
        remaining_max_tokens=STEP_COUNT,
        ignore_eos=True,
    )
    grant = shard_pb2.BlockGrant(slot=0, block_ids=packed([3, 1]))
    grants = [grant] if with_blocks else []
    return plan_frame(1, len(PROMPT), admits=[admit], grants=grants)


def plan_frame(
    number: int,
    token_count: int,
    num_steps: int = 1,
    admits: Sequence[shard_pb2.Admit] = (),
    grants: Sequence[shard_pb2.BlockGrant] = (),
) -> bytes:
    rows = shard_pb2.Rows(
        slots=packed([0]),
        token_counts=packed([token_count]),
        samples=b"\x01",
        kv_token_limits=packed([32]),
    )
    plan = shard_pb2.Plan(
        epoch=1,
        number=number,
        admits=admits,
        block_grants=grants,
        rows=rows,
        num_steps=num_steps,
    )
    return shard_pb2.ExecuteRequest(plan=plan).SerializeToString()


def execute(channel: grpc.aio.Channel) -> grpc.aio.StreamStreamCall[bytes, bytes]:
    method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
    method = channel.stream_stream("/santacoder.shard.v1.ShardService/Execute")
    return method()


async def drive(socket: Path, rank: int) -> tuple[list[int], list[bytes]]:
    """One whole stream: prompt, a lease, half-close. The ids and the digests that came back."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        call = execute(channel)
        for frame in (hello(epoch=1, rank=rank), first_plan(), plan_frame(2, 1, STEP_COUNT - 1)):
            await call.write(frame)
        await call.done_writing()
        ids: list[int] = []
        digests: list[bytes] = []
        async for data in call:
            response = shard_pb2.ExecuteResponse.FromString(data)
            assert response.WhichOneof("frame") != "error", response.error.message
            if response.WhichOneof("frame") == "result":
                ids += unpacked(response.result.token_ids)
                digests.append(response.result.digest)
        return ids, digests


async def drive_all(group: list[Rank]) -> list[tuple[list[int], list[bytes]]]:
    return await asyncio.gather(*(drive(rank.socket, n) for n, rank in enumerate(group)))


def test_two_ranks_sample_what_one_does_with_equal_digests_and_leave_cleanly(
    checkpoint: Path, run_folder: Path, tmp_path: Path
) -> None:
    alone_folder = tmp_path / "alone"
    with ranks(alone_folder, checkpoint, 1) as alone, ranks(run_folder, checkpoint, 2) as pair:
        ((alone_ids, _),) = asyncio.run(drive_all(alone))
        (first_ids, first_digests), (second_ids, second_digests) = asyncio.run(drive_all(pair))
        assert len(alone_ids) == STEP_COUNT
        assert first_ids == alone_ids
        assert second_ids == []
        assert first_digests == second_digests
        assert [rank.end() for rank in (*alone, *pair)] == [(0, [])] * 3
        assert not [path.name for path in run_folder.iterdir() if "sock" in path.name]


@pytest.mark.fault("S19")
def test_a_router_that_vanishes_ends_the_rank_with_code_1_and_a_line(
    checkpoint: Path, run_folder: Path
) -> None:
    async def vanish(socket: Path) -> None:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            call = execute(channel)
            await call.write(hello(epoch=1))
            await call.read()
            call.cancel()

    with ranks(run_folder, checkpoint, 1) as (rank,):
        asyncio.run(vanish(rank.socket))
        assert rank.end() == (1, ["error: the router's stream broke"])


def test_a_plan_that_contradicts_the_rank_is_one_line_and_ends_it_with_code_1(
    checkpoint: Path, run_folder: Path
) -> None:
    async def contradict(socket: Path) -> str:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            call = execute(channel)
            await call.write(hello(epoch=1))
            await call.write(first_plan(with_blocks=False))
            await call.done_writing()
            async for data in call:
                response = shard_pb2.ExecuteResponse.FromString(data)
                if response.WhichOneof("frame") == "error":
                    return response.error.message
        return ""

    with ranks(run_folder, checkpoint, 1) as (rank,):
        message = asyncio.run(contradict(rank.socket))
        assert message.startswith("plan 1 failed: ")
        assert rank.end() == (1, [f"error: {message}"])


@pytest.mark.fault("X8")
def test_a_second_rank_at_the_same_address_exits_4_and_the_first_goes_on(
    checkpoint: Path, run_folder: Path
) -> None:
    with ranks(run_folder, checkpoint, 1) as (first,):
        code, lines = Rank(run_folder, 0, checkpoint).end()
        assert code == 4
        assert lines == [
            f"error: --listen: taken by the process with id {first.process.pid};"
            f" got unix:{first.socket}"
        ]
        ids, _ = asyncio.run(drive(first.socket, 0))
        assert len(ids) == STEP_COUNT


@pytest.mark.fault("S19")
def test_a_rank_leaves_with_its_starter_and_on_sigterm_and_removes_what_it_made(
    checkpoint: Path, tmp_path: Path
) -> None:
    orphaned, stopped = tmp_path / "orphaned", tmp_path / "stopped"
    with (
        ranks(orphaned, checkpoint, 1, "--exit-with-stdin") as (orphan,),
        ranks(stopped, checkpoint, 1) as (told,),
    ):
        told.process.send_signal(signal.SIGTERM)
        assert told.end() == (0, [])
        assert list(stopped.iterdir()) == []
        # `communicate` closes its standard input, as the death of its starter would.
        assert orphan.end() == (0, [])
        assert not orphaned.exists()


@pytest.mark.parametrize(
    ("extra", "code", "text"),
    [
        (("--model=nowhere/at/all",), 3, "error: model: is not a folder"),
        (("--tp=3", "--rendezvous=r"), 2, "error: --tp: must divide"),
        (("--kv-cache-tokens=64",), 2, "error: --kv-cache-tokens"),
        (("--device=cuda",), 2, "error: --device: "),
        (("--listen=unix:/tmp/rank-0.sock",), 2, "error: --listen: folder /tmp is open"),
    ],
)
def test_what_cannot_work_is_one_line_and_its_exit_code(
    checkpoint: Path, run_folder: Path, extra: tuple[str, ...], code: int, text: str
) -> None:
    got, lines = Rank(run_folder, 0, checkpoint, *extra).end()
    assert got == code
    assert len(lines) == 1 and lines[0].startswith(text)
