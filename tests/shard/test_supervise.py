"""Supervision of real processes: small scripts in the places of router and ranks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from santacoder_shard.crash_reports import Death
from santacoder_shard.log import make_logger
from santacoder_shard.restart_budget import RestartBudget
from santacoder_shard.supervise import Supervisor

WAIT_SECONDS = 60.0
# Says that it is ready, notes its signals in a file, and leaves on SIGTERM or the end of its input.
SERVING = """
import signal, sys
name = sys.argv[1]
notes = open(sys.argv[2], "a")
def note(number, _):
    print(name, signal.Signals(number).name, file=notes, flush=True)
    if number == signal.SIGTERM:
        sys.exit(0)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, note)
signal.signal(signal.SIGUSR2, note if name == "router" else signal.SIG_IGN)
print("started", name, file=notes, flush=True)
print(f"ready {name}", flush=True)
while sys.stdin.read(1):
    pass
"""
FAILING = "import sys; sys.stderr.write('noise\\nerror: no room\\n'); sys.exit(int(sys.argv[3]))"


@dataclass
class Service:
    """A supervisor under test and everything it said."""

    notes: Path
    rank_scripts: Callable[[int, int], str] = lambda rank, epoch: SERVING
    router_script: str = SERVING
    failing_code: int = 1
    rank_count: int = 2
    announced: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)

    def supervisor(self) -> Supervisor:
        return Supervisor(
            self._command(self.router_script, "router"),
            lambda rank, epoch: self._command(
                self.rank_scripts(rank, epoch), f"rank{rank}-epoch{epoch}"
            ),
            self.rank_count,
            self.announced.append,
            self.said.append,
            make_logger("info"),
            self,
        )

    def stacks(self, rank: int, epoch: int) -> str:
        return f"stacks of rank {rank} in life {epoch}"

    def write(self, death: Death) -> None:
        self.deaths.append(death)

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    def _command(self, script: str, name: str) -> list[str]:
        return [sys.executable, "-S", "-c", script, name, str(self.notes), str(self.failing_code)]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


async def children(supervisor: Supervisor) -> dict[str, int]:
    everyone = [supervisor._router, *supervisor._ranks]
    return {child.name: child._process.pid for child in everyone if child is not None}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def test_the_ready_line_is_announced_once_and_a_signal_stops_router_then_ranks(
    notes: Path,
) -> None:
    async def test() -> None:
        service = Service(notes)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3 and bool(service.announced))
        pids = await children(supervisor)
        supervisor.signalled(signal.SIGTERM)
        assert await asyncio.wait_for(running, WAIT_SECONDS) == 0
        assert service.announced == ["ready router"]
        stops = [line for line in service.noted() if "SIGTERM" in line]
        assert stops[0] == "router SIGTERM"
        assert sorted(stops[1:]) == ["rank0-epoch1 SIGTERM", "rank1-epoch1 SIGTERM"]
        for pid in pids.values():
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    run(test)


@pytest.mark.fault("S1")
def test_a_killed_rank_is_named_with_its_signal_and_the_whole_group_starts_again(
    notes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test() -> None:
        service = Service(notes)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3)
        pids = await children(supervisor)
        os.kill(pids["rank 1"], signal.SIGKILL)
        await service.until(lambda: "started rank1-epoch2" in service.noted())
        await service.until(lambda: "started rank0-epoch2" in service.noted())
        with pytest.raises(ProcessLookupError):
            os.kill(pids["rank 0"], 0)
        os.kill(pids["router"], 0)
        supervisor.signalled(signal.SIGTERM)
        assert await asyncio.wait_for(running, WAIT_SECONDS) == 0
        assert "rank 1 was killed by SIGKILL" in capfd.readouterr().err
        [death] = service.deaths
        assert (death.epoch, death.note) == (1, {})
        assert death.obituaries[-1] == "rank 1 was killed by SIGKILL"
        assert death.stacks["rank 0"] == "stacks of rank 0 in life 1"

    run(test)


def test_before_ranks_are_replaced_the_router_hears_that_no_request_is_at_fault(
    notes: Path,
) -> None:
    async def test() -> None:
        service = Service(notes)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3 and bool(service.announced))
        supervisor.renew_group()
        await service.until(lambda: len(service.noted()) == 6)
        assert service.noted()[3] == "router SIGUSR2"
        assert set(service.noted()[4:]) == {"started rank0-epoch2", "started rank1-epoch2"}
        supervisor.signalled(signal.SIGTERM)
        assert await running == 0

    run(test)


@pytest.mark.fault("S18")
def test_what_the_router_says_of_a_death_is_part_of_it_and_tells_how_soon_to_start_again(
    notes: Path,
) -> None:
    router = SERVING.replace(
        "while sys.stdin",
        # Only when it is told that a rank has died, as a real one that sees its streams break.
        "import os, time\n"
        "while not os.path.exists(sys.argv[2] + '.dead'): time.sleep(0.01)\n"
        "time.sleep(0.1)\n"
        'print(\'note {"epoch": 1, "last_step": 4, "cause": "why"}\', flush=True)\nwhile sys.stdin',
    )

    async def test() -> None:
        service = Service(notes, router_script=router)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3 and bool(service.announced))
        os.kill((await children(supervisor))["rank 0"], signal.SIGKILL)
        Path(f"{notes}.dead").touch()
        await service.until(lambda: "started rank0-epoch2" in service.noted())
        [death] = service.deaths
        assert death.note["cause"] == "why"
        # It had worked, so that nothing is counted against it.
        assert supervisor._budget._restarted_at == []
        supervisor.signalled(signal.SIGTERM)
        assert await asyncio.wait_for(running, WAIT_SECONDS) == 0

    run(test)


def failing_rank_1(after_epoch: int) -> Callable[[int, int], str]:
    return lambda rank, epoch: FAILING if rank == 1 and epoch > after_epoch else SERVING


@pytest.mark.fault("S17")
@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_rank_that_can_never_start_ends_the_service_with_its_code_and_reason(
    notes: Path, code: int
) -> None:
    async def test() -> None:
        waiting_router = SERVING.replace('print(f"ready', 'print(f"not ready')
        service = Service(notes, failing_rank_1(0), waiting_router, failing_code=code)
        assert await asyncio.wait_for(service.supervisor().run(), WAIT_SECONDS) == code
        assert any(
            line.startswith(f"error: rank 1 exited with code {code}: no room")
            for line in service.said
        )
        assert service.announced == []

    run(test)


@pytest.mark.fault("S17")
def test_when_the_group_cannot_come_back_the_router_is_told_and_drained_and_the_code_is_1(
    notes: Path,
) -> None:
    async def test() -> None:
        service = Service(notes, failing_rank_1(1), failing_code=3)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3 and bool(service.announced))
        os.kill((await children(supervisor))["rank 0"], signal.SIGKILL)
        assert await asyncio.wait_for(running, WAIT_SECONDS) == 1
        router = [line for line in service.noted() if line.startswith("router ")]
        assert router == ["router SIGUSR1", "router SIGTERM"]

    run(test)


@pytest.mark.fault("S19")
def test_a_dead_router_stops_everything_with_code_70(notes: Path) -> None:
    async def test() -> None:
        service = Service(notes)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3 and bool(service.announced))
        pids = await children(supervisor)
        os.kill(pids["router"], signal.SIGKILL)
        assert await asyncio.wait_for(running, WAIT_SECONDS) == 70
        assert "error: router was killed by SIGKILL; stopping" in service.said
        with pytest.raises(ProcessLookupError):
            os.kill(pids["rank 0"], 0)

    run(test)


def test_a_router_that_cannot_listen_ends_the_service_with_its_code(notes: Path) -> None:
    async def test() -> None:
        service = Service(notes, router_script=FAILING, failing_code=4)
        assert await asyncio.wait_for(service.supervisor().run(), WAIT_SECONDS) == 4
        assert "error: router exited with code 4: no room; stopping" in service.said

    run(test)


@pytest.mark.fault("X2")
@pytest.mark.parametrize(("second", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_everything_at_once(
    notes: Path, second: signal.Signals, code: int
) -> None:
    async def test() -> None:
        stubborn = SERVING.replace("sys.exit(0)", "pass")
        service = Service(notes, router_script=stubborn)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3)
        pids = await children(supervisor)
        supervisor.signalled(signal.SIGTERM)
        await service.until(lambda: "router SIGTERM" in service.noted())
        supervisor.signalled(second)
        assert await asyncio.wait_for(running, WAIT_SECONDS) == code
        for pid in pids.values():
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    run(test)


@pytest.mark.fault("S20")
@pytest.mark.long
def test_a_hundred_deaths_leave_no_process_and_no_descriptor_behind(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RestartBudget, "next_delay", lambda *_: 0.0)

    def held() -> tuple[int, int]:
        """Descriptors and children of this process."""
        tasks = Path("/proc/self/task").iterdir()
        born = [len((task / "children").read_text().split()) for task in tasks]
        return len(list(Path("/proc/self/fd").iterdir())), sum(born)

    async def test() -> None:
        service = Service(notes)
        supervisor = service.supervisor()
        running = asyncio.create_task(supervisor.run())
        await service.until(lambda: len(service.noted()) == 3 and bool(service.announced))
        before = held()
        for epoch in range(2, 102):
            os.kill((await children(supervisor))[f"rank {epoch % 2}"], signal.SIGKILL)
            started = {f"started rank{rank}-epoch{epoch}" for rank in (0, 1)}
            await service.until(lambda started=started: started <= set(service.noted()))  # type: ignore[misc]
            # A rank may speak before its starter has come to know it.
            await service.until(lambda: len(supervisor._ranks) == 2)
        assert held() == before
        assert len(service.deaths) == 100
        supervisor.signalled(signal.SIGTERM)
        assert await asyncio.wait_for(running, WAIT_SECONDS) == 0

    run(test)


def test_what_children_write_is_passed_on_with_their_names(notes: Path) -> None:
    async def test() -> None:
        service = Service(notes, failing_rank_1(0), failing_code=3)
        await asyncio.wait_for(service.supervisor().run(), WAIT_SECONDS)
        assert "rank 1 | noise" in service.said

    run(test)
