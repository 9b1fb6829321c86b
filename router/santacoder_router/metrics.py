"""Every series of the router: names, units, labels. Labels come from closed sets only.

Knows no requests and no scheduler: its callers hand it numbers. The registry is made here and
handed around; none is global.
"""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROUTER_BUCKETS = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1)
REQUEST_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)


class Metrics:
    """The router's series, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._certificate_expiry: Gauge | None = None
        self.certificate_expiry: datetime | None = None
        self._add_requests(registry)
        self._add_plans(registry)
        self._add_faults(registry)
        self._add_refusals(registry)
        self._add_surroundings(registry)
        self._add_gauges(registry)
        self._add_histograms(registry)

    def _add_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "santacoder_router_requests_total",
            "RPCs that ended, by method and gRPC status code.",
            ["method", "code"],
            registry=registry,
        )
        self.choices = Counter(
            "santacoder_router_choices_total",
            "Answers that ended, by finish reason.",
            ["reason"],
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "santacoder_router_prompt_tokens_total",
            "Tokens of the prompts that started, over all answers.",
            registry=registry,
        )
        self.cached_tokens = Counter(
            "santacoder_router_cached_tokens_total",
            "Prompt tokens that came from the prefix cache.",
            registry=registry,
        )
        self.completion_tokens = Counter(
            "santacoder_router_completion_tokens_total",
            "Tokens generated and accepted.",
            registry=registry,
        )

    def _add_plans(self, registry: CollectorRegistry) -> None:
        self.preemptions = Counter(
            "santacoder_router_preemptions_total",
            "Sequences that gave up their slot to another.",
            registry=registry,
        )
        self.resumed_requests = Counter(
            "santacoder_router_resumed_requests_total",
            "Requests that went on where an earlier answer was cut off.",
            registry=registry,
        )
        self.plans = Counter(
            "santacoder_router_plans_total", "Plans sent to the shards.", registry=registry
        )

    def note_expiry(self, expiry: datetime) -> None:
        """When the public port's certificate ends; without TLS the series is not there."""
        if self._certificate_expiry is None:
            self._certificate_expiry = Gauge(
                "santacoder_router_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends.",
                registry=self.registry,
            )
        self.certificate_expiry = expiry
        self._certificate_expiry.set(expiry.timestamp())

    def _add_faults(self, registry: CollectorRegistry) -> None:
        self.group_failures = Counter(
            "santacoder_router_group_failures_total",
            "Times that the shard group ended.",
            registry=registry,
        )
        self.sequence_faults = Counter(
            "santacoder_router_sequence_faults_total",
            "Sequences that ended by a fault of their own: failed, non_finite or poison.",
            ["kind"],
            registry=registry,
        )

    def _add_refusals(self, registry: CollectorRegistry) -> None:
        self.refused_requests = Counter(
            "santacoder_router_refused_requests_total",
            "Requests, turns of sessions included, that were refused or failed, by reason.",
            ["reason"],
            registry=registry,
        )
        self.client_stalls = Counter(
            "santacoder_router_client_stalls_total",
            "Streams that were ended because nobody read them.",
            registry=registry,
        )

    def _add_surroundings(self, registry: CollectorRegistry) -> None:
        self.log_dropped_lines = Counter(
            "santacoder_router_log_dropped_lines_total",
            "Lines of the log that nobody took in time.",
            registry=registry,
        )
        self.reload_failures = Counter(
            "santacoder_router_reload_failures_total",
            "Times that changed certificates or tokens could not be used, and the old ones stayed.",
            registry=registry,
        )
        self.idle_sessions = Counter(
            "santacoder_router_idle_sessions_total",
            "Editor sessions that were closed because nothing was asked in them.",
            registry=registry,
        )
        self.refused_groups = Counter(
            "santacoder_router_refused_groups_total",
            "Tries at which ranks were there that make no group for this router, by what they are:"
            " another, mixed or malformed.",
            ["kind"],
            registry=registry,
        )
        # Descriptors, memory and processor time of this process, under their usual names.
        ProcessCollector(namespace="santacoder_router", registry=registry)

    def _add_gauges(self, registry: CollectorRegistry) -> None:
        self.memory = Gauge(
            "santacoder_router_memory_bytes",
            "Memory that the router holds, and how much it may: resident or limit.",
            ["kind"],
            registry=registry,
        )
        self.running_requests = Gauge(
            "santacoder_router_running_requests", "Sequences in a slot.", registry=registry
        )
        self.queued_requests = Gauge(
            "santacoder_router_queued_requests", "Sequences waiting.", registry=registry
        )
        self.queued_tokens = Gauge(
            "santacoder_router_queued_tokens", "Tokens of the sequences waiting.", registry=registry
        )
        self.kv_blocks = Gauge(
            "santacoder_router_kv_blocks",
            "KV blocks by state: free, cached (free, with content worth keeping) or held.",
            ["state"],
            registry=registry,
        )
        self.loop_lag = Gauge(
            "santacoder_router_event_loop_lag_seconds",
            "How late the event loop woke, at the last look.",
            registry=registry,
        )

    def _add_histograms(self, registry: CollectorRegistry) -> None:
        self.step = Histogram(
            "santacoder_router_step_seconds",
            "Device time of a step.",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.plan_round_trip = Histogram(
            "santacoder_router_plan_round_trip_seconds",
            "From sending a plan to its last result.",
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self.plan_work = Histogram(
            "santacoder_router_plan_work_seconds",
            "The router's own work on a plan: results in, plan out, events handed on.",
            buckets=ROUTER_BUCKETS,
            registry=registry,
        )
        self.queue_time = Histogram(
            "santacoder_router_queue_seconds",
            "From a request's arrival to its first plan.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.first_token = Histogram(
            "santacoder_router_first_token_seconds",
            "From a request's arrival to its first token.",
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
