"""What a router has counted of its callers."""

from __future__ import annotations

from router.running_router import Running

REQUESTS = "santacoder_router_requests_total"


def request_count(running: Running, method: str) -> int:
    """RPCs of a method that have ended."""
    samples = next(f for f in running.router.metrics.registry.collect() if f.name == REQUESTS[:-6])
    named = [s for s in samples.samples if s.name == REQUESTS and s.labels["method"] == method]
    return int(sum(sample.value for sample in named))
