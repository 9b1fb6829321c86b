"""A completion's way in: checks, tokens, a place in the queue. Knows no gRPC and no streams."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from santacoder.inference.v1 import inference_pb2
from santacoder_router.core.plan import FinishReason
from santacoder_router.endings import QUEUE_RETRY_SECONDS, error_for
from santacoder_router.errors import AlreadyExists, Overloaded, Reason, Unsupported, shown
from santacoder_router.faults import Log
from santacoder_router.generation import Generation, Surroundings
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.metrics import Metrics
from santacoder_router.poison_list import PoisonList
from santacoder_router.resolution import ResolvedRequest, core_request, resolve
from santacoder_router.resumption import Beginning, begin_anew, go_on
from santacoder_router.serving import Serving
from santacoder_router.turns import Turns
from santacoder_router.validation import SessionDefaults, ValidRequest, normalise

SEED_BITS = 63


class Intake:
    """Takes completions in. `clock` is the scheduler's, in seconds."""

    def __init__(
        self, lifecycle: Lifecycle, metrics: Metrics, clock: Callable[[], float], log: Log
    ) -> None:
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._clock = clock
        self._log = log
        self._running_ids: set[str] = set()
        self._last_sequence = 0
        self._poison = PoisonList(clock)
        self._surroundings: Surroundings | None = None

    @property
    def running_count(self) -> int:
        """Requests that were taken in and not yet released."""
        return len(self._running_ids)

    def check(
        self,
        message: inference_pb2.CompletionRequest,
        request_id: str,
        defaults: SessionDefaults | None = None,
    ) -> ValidRequest:
        """Every check before tokenizing. `request_id` is for a request that brings none."""
        return normalise(
            message,
            self._lifecycle.admit().limits,
            draw_seed=lambda: secrets.randbits(SEED_BITS),
            draw_request_id=lambda: request_id,
            defaults=defaults,
        )

    async def start(self, valid: ValidRequest, remaining_seconds: float | None) -> Generation:
        """Queues a request; the caller must `release` it. Raises RouterError."""
        arrival = self._clock()
        serving = self._lifecycle.admit()
        _check_model(valid, serving.model_revision)
        self._claim(valid.request_id)
        try:
            prompt = await serving.tokenizer_threads.encode_prompt(valid.prompt)
            resolved = resolve(valid, prompt, serving.limits, serving.tokenizer.sentinels)
            if resolved.prompt_ids in self._poison:
                raise error_for(FinishReason.POISON, False, self._log)
            beginnings = await _beginnings(serving, resolved)
            # The phase may have changed while a thread was tokenizing.
            serving = self._lifecycle.admit()
            self._check_room(serving, resolved, beginnings)
            return self._submit(serving, resolved, beginnings, arrival, remaining_seconds)
        except BaseException:
            self._running_ids.discard(valid.request_id)
            raise

    def release(self, valid: ValidRequest, generation: Generation) -> None:
        """The caller is done with a request: what still runs of it is cancelled."""
        self._running_ids.discard(valid.request_id)
        generation.close()

    def _claim(self, request_id: str) -> None:
        if request_id in self._running_ids:
            raise AlreadyExists(
                Reason.REQUEST_ID_IN_USE,
                f"request_id: a request of this id is running; got {shown(request_id)};"
                " allowed an id that is not in use",
            )
        self._running_ids.add(request_id)

    def _check_room(
        self, serving: Serving, resolved: ResolvedRequest, beginnings: list[Beginning]
    ) -> None:
        scheduler, limits = serving.step_loop.scheduler, serving.limits
        prompt_length = len(resolved.prompt_ids)
        new = [prompt_length + len(run.token_ids) for run in beginnings if run.end is None]
        if not new:
            return
        request_count = scheduler.queued_request_count + len(new)
        token_count = scheduler.queued_token_count + sum(new)
        for reason, got, allowed, unit in (
            (Reason.QUEUE_FULL, request_count, limits.queued_request_count, "sequences"),
            (Reason.PREFILL_BACKLOG, token_count, limits.queued_token_count, "tokens"),
        ):
            if got > allowed:
                raise Overloaded(
                    reason,
                    f"queue: full; got {got} {unit} with this request; allowed {allowed}",
                    retry_after_seconds=QUEUE_RETRY_SECONDS,
                )

    def _submit(
        self,
        serving: Serving,
        resolved: ResolvedRequest,
        beginnings: list[Beginning],
        arrival: float,
        remaining_seconds: float | None,
    ) -> Generation:
        limits, loop = serving.limits, serving.step_loop
        if remaining_seconds is None:
            remaining_seconds = limits.default_deadline_seconds
        deadline = arrival + min(remaining_seconds, limits.max_deadline_seconds)
        first = self._last_sequence + 1
        sequences = range(first, first + resolved.valid.completion_count)
        self._last_sequence = sequences[-1]
        surroundings = self._surroundings or self._surroundings_of(serving)
        generation = Generation(resolved, sequences, arrival, surroundings, beginnings)
        if resolved.valid.resume is not None:
            self._metrics.resumed_requests.inc()
        for index, choice in enumerate(generation.choices):
            if choice.end is not None:
                continue
            request = core_request(
                resolved,
                request_id=sequences[index],
                sample_index=index,
                arrival=arrival,
                deadline=deadline,
                output_ids=beginnings[index].token_ids,
            )
            loop.submit(request, choice)
        return generation

    def _surroundings_of(self, serving: Serving) -> Surroundings:
        """Made once: there is one `Serving` in a router's life."""
        self._surroundings = Surroundings(
            tokenizer=serving.tokenizer,
            model_revision=serving.model_revision,
            cancel=serving.step_loop.cancel,
            turns=Turns(self._clock),
            clock=self._clock,
            metrics=self._metrics,
            log=self._log,
            poison=self._poison,
        )
        return self._surroundings


def _check_model(valid: ValidRequest, revision: str) -> None:
    wanted = valid.resume.model_revision if valid.resume is not None else None
    if wanted is not None and wanted != revision:
        raise Unsupported(
            Reason.RESUME_MODEL,
            f"resume.model_revision: another model is served; got {shown(wanted)};"
            f" allowed {shown(revision)}",
        )


async def _beginnings(serving: Serving, resolved: ResolvedRequest) -> list[Beginning]:
    resume = resolved.valid.resume
    if resume is None:
        return begin_anew(resolved, serving.tokenizer)
    description = serving.description
    ending_ids = frozenset((description.end_of_text_id, *description.sentinel_ids))
    # Thousands of ids in eight choices take longer than a step.
    work = partial(go_on, resolved, resume, serving.tokenizer, ending_ids)
    return await serving.tokenizer_threads.run(work)
