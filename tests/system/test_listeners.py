"""Who listens where: what SECURITY.md lists, and nothing else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
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
