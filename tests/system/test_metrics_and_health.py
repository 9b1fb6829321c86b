"""What an operator sees: metrics that move with the work."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running_service import WAIT_SECONDS, Service
from system.cases import prompt_ids

from santacoder_client import Client, InvalidRequest

SERIES = {
    "santacoder_router_requests": "counter",
    "santacoder_router_choices": "counter",
    "santacoder_router_prompt_tokens": "counter",
    "santacoder_router_cached_tokens": "counter",
    "santacoder_router_completion_tokens": "counter",
    "santacoder_router_preemptions": "counter",
    "santacoder_router_resumed_requests": "counter",
    "santacoder_router_group_failures": "counter",
    "santacoder_router_sequence_faults": "counter",
    "santacoder_router_plans": "counter",
    "santacoder_router_refused_requests": "counter",
    "santacoder_router_client_stalls": "counter",
    "santacoder_router_log_dropped_lines": "counter",
    "santacoder_router_reload_failures": "counter",
    "santacoder_router_idle_sessions": "counter",
    "santacoder_router_refused_groups": "counter",
    "santacoder_router_process_cpu_seconds": "counter",
    "santacoder_router_running_requests": "gauge",
    "santacoder_router_queued_requests": "gauge",
    "santacoder_router_queued_tokens": "gauge",
    "santacoder_router_kv_blocks": "gauge",
    "santacoder_router_event_loop_lag_seconds": "gauge",
    "santacoder_router_process_virtual_memory_bytes": "gauge",
    "santacoder_router_process_resident_memory_bytes": "gauge",
    "santacoder_router_process_start_time_seconds": "gauge",
    "santacoder_router_process_open_fds": "gauge",
    "santacoder_router_process_max_fds": "gauge",
    "santacoder_router_memory_bytes": "gauge",
    "santacoder_router_step_seconds": "histogram",
    "santacoder_router_plan_round_trip_seconds": "histogram",
    "santacoder_router_plan_work_seconds": "histogram",
    "santacoder_router_queue_seconds": "histogram",
    "santacoder_router_first_token_seconds": "histogram",
}


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
        client.complete([10_000_000])  # only the server knows how many ids there are
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
    block_count = client.model().kv_cache_token_count // 16

    def counts() -> dict[str, float]:
        states = ("free", "cached", "held")
        return {n: service.metric("santacoder_router_kv_blocks", state=n) for n in states}

    # The gauges follow four times a second, and each is asked for alone: they come to agree.
    deadline = time.monotonic() + WAIT_SECONDS
    while not (now := counts())["cached"] or now["held"] or sum(now.values()) != block_count:
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    assert service.metric("santacoder_router_running_requests") == 0
