"""What an operator sees: metrics that move with the work, and no door open to other machines."""

from __future__ import annotations

import ipaddress
import os
import struct
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running_service import Service
from system.cases import prompt_ids

from santacoder_client import Client, InvalidRequest

TCP_LISTEN = "0A"
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
SERIES = {
    "santacoder_router_requests": "counter",
    "santacoder_router_choices": "counter",
    "santacoder_router_prompt_tokens": "counter",
    "santacoder_router_cached_tokens": "counter",
    "santacoder_router_completion_tokens": "counter",
    "santacoder_router_preemptions": "counter",
    "santacoder_router_group_failures": "counter",
    "santacoder_router_plans": "counter",
    "santacoder_router_running_requests": "gauge",
    "santacoder_router_queued_requests": "gauge",
    "santacoder_router_queued_tokens": "gauge",
    "santacoder_router_kv_blocks": "gauge",
    "santacoder_router_event_loop_lag_seconds": "gauge",
    "santacoder_router_step_seconds": "histogram",
    "santacoder_router_plan_round_trip_seconds": "histogram",
    "santacoder_router_plan_work_seconds": "histogram",
    "santacoder_router_queue_seconds": "histogram",
    "santacoder_router_first_token_seconds": "histogram",
}


def socket_inodes(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(descriptor)
        except FileNotFoundError:
            continue
        if name.startswith("socket:["):
            inodes.add(name.removeprefix("socket:[").removesuffix("]"))
    return inodes


def address(hexadecimal: str) -> tuple[IPAddress, int]:
    """Host and port of /proc/net/tcp's notation: words of 32 bits, in this machine's order."""
    host, port = hexadecimal.split(":")
    words = [int(host[start : start + 8], 16) for start in range(0, len(host), 8)]
    found = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return found, int(port, 16)


def internet_sockets(pids: list[int]) -> list[tuple[str, IPAddress, int]]:
    """State, host and port of every TCP and UDP socket of the processes; UDP has no listeners."""
    owned = set().union(*(socket_inodes(pid) for pid in pids))
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in owned:
                found.append((fields[3], *address(fields[1])))
    return found


def test_every_socket_of_every_process_is_on_loopback(
    service_of_two_ranks: Service, client_of_two_ranks: Client
) -> None:
    # Ranks and router have met by now.
    client_of_two_ranks.complete(prompt_ids(91, 10), max_new_tokens=2)
    children = service_of_two_ranks.children()
    assert children.keys() == {"router", "rank 0", "rank 1"}
    sockets = internet_sockets([service_of_two_ranks.process.pid, *children.values()])
    assert [host for _, host, _ in sockets if not host.is_loopback] == []
    # The two addresses of the ready line are among them, so nothing was overlooked.
    listening = {port for state, _, port in sockets if state == TCP_LISTEN}
    announced = (service_of_two_ranks.target, service_of_two_ranks.metrics_address)
    assert listening >= {int(place.rpartition(":")[2]) for place in announced}


def test_the_metrics_page_has_every_series_and_no_other(service: Service) -> None:
    families = text_string_to_metric_families(service.metrics_page())
    # `_created` is what the format adds to counters and histograms.
    found = {f.name: f.type for f in families if not f.name.endswith("_created")}
    assert found == SERIES
    assert all(f.documentation for f in text_string_to_metric_families(service.metrics_page()))


def test_counters_move_by_what_was_done(service: Service, client: Client) -> None:
    names = ("prompt_tokens", "completion_tokens", "cached_tokens")

    def counts() -> dict[str, float]:
        found = {name: service.metric(f"santacoder_router_{name}_total") for name in names}
        answered, refused = (
            service.metric("santacoder_router_requests_total", method="Complete", code=code)
            for code in ("OK", "INVALID_ARGUMENT")
        )
        ended = service.metric("santacoder_router_choices_total", reason="LENGTH")
        return found | {"answered": answered, "refused": refused, "ended": ended}

    before = counts()
    prompt = prompt_ids(92, 40)
    for _ in range(2):
        client.complete(prompt, max_new_tokens=5, ignore_eos=True, cache_salt="counted")
    with pytest.raises(InvalidRequest):
        client.complete(prompt, top_k=-1)
    moved = {name: count - before[name] for name, count in counts().items()}
    assert moved == {
        "prompt_tokens": 80,
        "completion_tokens": 10,
        "cached_tokens": 32,
        "answered": 2,
        "refused": 1,
        "ended": 2,
    }


def test_histograms_count_requests_and_plans(service: Service, client: Client) -> None:
    def counts() -> list[float]:
        histograms = ("first_token", "queue", "plan_round_trip", "plan_work", "step")
        return [service.metric(f"santacoder_router_{name}_seconds_count") for name in histograms]

    before = counts()
    client.complete(prompt_ids(93, 10), max_new_tokens=8, ignore_eos=True)
    first_token, queue, *plans = (
        after - earlier for after, earlier in zip(counts(), before, strict=True)
    )
    assert (first_token, queue) == (1, 1)
    assert min(plans) >= 1


def test_all_blocks_are_free_or_cached_when_nothing_runs(service: Service, client: Client) -> None:
    client.complete(prompt_ids(94, 50), max_new_tokens=2, ignore_eos=True)
    service.wait_metric("santacoder_router_running_requests", 0)
    service.wait_metric("santacoder_router_kv_blocks", 0, state="held")
    free, cached = (
        service.metric("santacoder_router_kv_blocks", state=state) for state in ("free", "cached")
    )
    block_count = client.model().kv_cache_token_count // 16
    assert cached > 0
    assert free + cached == block_count
