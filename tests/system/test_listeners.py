"""Who listens where: what SECURITY.md lists, and nothing else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from mock_service import started
from process_sockets import TCP_LISTEN, internet_sockets, unix_listeners
from running_service import Service
from system.cases import prompt_ids

from santacoder_client import Client


@pytest.fixture(params=["service", "service_of_two_ranks"])
def running(request: pytest.FixtureRequest) -> Service:
    """A service that has served, so that ranks and router have met."""
    service: Service = request.getfixturevalue(request.param)
    with Client(service.target) as client:
        client.complete(prompt_ids(91, 10), max_new_tokens=2)
    return service


def processes(service: Service) -> dict[str, int]:
    return {"launcher": service.process.pid, **service.children()}


def test_every_socket_of_every_process_is_on_loopback(running: Service) -> None:
    for name, pid in processes(running).items():
        hosts = [host for _, host, _ in internet_sockets(pid)]
        assert [host for host in hosts if not host.is_loopback] == [], name


def test_only_the_router_listens_and_ranks_of_a_group_for_each_other(running: Service) -> None:
    listening = {
        name: [port for state, _, port in internet_sockets(pid) if state == TCP_LISTEN]
        for name, pid in processes(running).items()
    }
    announced = (running.target, running.metrics_address)
    ports = sorted(int(place.rpartition(":")[2]) for place in announced)
    assert sorted(listening.pop("router")) == ports
    assert listening.pop("launcher") == []
    for ports in listening.values():
        # gloo's, by which ranks exchange tensors.
        assert bool(ports) == (len(listening) > 1)


def test_ranks_take_plans_on_sockets_in_a_folder_of_their_owner_alone(running: Service) -> None:
    sockets = {name: unix_listeners(pid) for name, pid in processes(running).items()}
    assert sockets.pop("router") == sockets.pop("launcher") == []
    for name, paths in sockets.items():
        [path] = map(Path, paths)
        assert path.name == f"{name.replace(' ', '-')}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def tcp_ports(pid: int) -> list[tuple[bool, int]]:
    """Every port that a process listens on, and whether that is on loopback alone."""
    return [
        (host.is_loopback, port)
        for state, host, port in internet_sockets(pid)
        if state == TCP_LISTEN
    ]


def test_a_router_and_a_mock_group_alone_listen_where_they_say(tmp_path: Path) -> None:
    group_words = ["santacoder_client.loadtest", "mock-shard", "--listen=127.0.0.1:0"]
    # An exporter of traces calls, and is not called.
    router_words = ["santacoder_router", "--port=0", "--otlp-endpoint=http://127.0.0.1:1"]
    with started(group_words) as (group, shards):
        assert tcp_ports(group.pid) == [(True, int(shards["shards"].rpartition(":")[2]))]
        assert unix_listeners(group.pid) == []
        with started([*router_words, f"--shards={shards['shards']}"]) as (router, facts):
            announced = sorted(int(facts[name].rpartition(":")[2]) for name in ("grpc", "metrics"))
            assert sorted(tcp_ports(router.pid)) == [(True, port) for port in announced]
            assert unix_listeners(router.pid) == []


@pytest.mark.long
def test_a_rank_alone_listens_where_it_says(model_folder: Path, tmp_path: Path) -> None:
    words = ["santacoder_shard", "--rank=0", f"--model={model_folder}", "--threads=1"]
    with started([*words, "--listen=127.0.0.1:0"]) as (rank, facts):
        assert tcp_ports(rank.pid) == [(True, int(facts["listen"].rpartition(":")[2]))]
        assert unix_listeners(rank.pid) == []
    socket = tmp_path / "rank.sock"
    with started([*words, f"--listen=unix:{socket}"]) as (rank, _):
        assert tcp_ports(rank.pid) == [] and unix_listeners(rank.pid) == [str(socket)]
