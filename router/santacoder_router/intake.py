"""A completion's way in: checks, tokens, a place in the queue. Knows no gRPC and no streams."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial

from santacoder.inference.v1 import inference_pb2
from santacoder_router.accounts import Account
from santacoder_router.core.plan import Caller, FinishReason, Priority
from santacoder_router.core.sequence import Sequence
from santacoder_router.endings import error_for, memory_pressure
from santacoder_router.errors import Reason, Unsupported, shown
from santacoder_router.faults import Log
from santacoder_router.generation import Generation
from santacoder_router.lifecycle import Lifecycle
from santacoder_router.memory import Pressure
from santacoder_router.metrics import Metrics
from santacoder_router.poison_list import PoisonList
from santacoder_router.queue_entry import Newcomer, enter, retry_seconds
from santacoder_router.request_ids import RequestIds, RequestKey
from santacoder_router.resolution import ResolvedRequest, core_request, resolve
from santacoder_router.resumption import Beginning, begin_anew, go_on
from santacoder_router.serving import Serving
from santacoder_router.surroundings import Surroundings
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
        self._ids = RequestIds(clock)
        self._last_sequence = 0
        self._poison = PoisonList(clock)
        self._surroundings: Surroundings | None = None
        self._pressure = Pressure.NONE

    @property
    def running_count(self) -> int:
        """Requests that were taken in and not yet released."""
        return len(self._ids)

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

    async def start(
        self, valid: ValidRequest, remaining_seconds: float | None, account: Account
    ) -> Generation:
        """Queues a request; the caller must `release` it. Raises RouterError."""
        arrival = self._clock()
        serving = self._lifecycle.admit()
        account.check_priority(valid.priority)
        _check_model(valid, serving.model_revision)
        if remaining_seconds is None:
            remaining_seconds = serving.limits.default_deadline_seconds
        deadline = arrival + min(remaining_seconds, serving.limits.max_deadline_seconds)
        if serving.step_loop.scheduler.queued_request_count:
            # Before its prompt is tokenized: a refusal must cost little.
            self._enter(serving, account, valid, deadline, [1] * valid.completion_count, 1)
        key = RequestKey(account.name, valid.request_id)
        self._ids.claim(key)
        try:
            prompt = await serving.tokenizer_threads.encode_prompt(valid.prompt)
            resolved = resolve(valid, prompt, serving.limits, serving.tokenizer.sentinels)
            if resolved.prompt_ids in self._poison:
                raise error_for(FinishReason.POISON, False, 0.0, self._log)
            if not valid.is_id_drawn:
                self._ids.check(key, resolved.content)
            beginnings = await _beginnings(serving, resolved)
            # The phase may have changed while a thread was tokenizing.
            serving = self._lifecycle.admit()
            length = len(resolved.prompt_ids)
            new = [length + len(run.token_ids) for run in beginnings if run.end is None]
            displaced = self._enter(
                serving, account, valid, deadline, new, length + resolved.max_new_tokens
            )
            serving.step_loop.drop(displaced, FinishReason.DISPLACED)
            return self._submit(serving, resolved, beginnings, arrival, deadline, account.caller)
        except BaseException:
            self._ids.release(key)
            raise

    def release(self, valid: ValidRequest, generation: Generation, account: Account) -> None:
        """The caller is done with a request: what still runs of it is cancelled."""
        key = RequestKey(account.name, valid.request_id)
        self._ids.release(key)
        if not valid.is_id_drawn and generation.is_answered:
            self._ids.note_answered(key, generation.content)
        generation.close()

    def press(self, pressure: Pressure) -> None:
        """What memory allows from now on; whoever waits and has not started may have to go."""
        if pressure is not self._pressure:
            self._log.warning("memory", pressure=pressure.name.lower())
        self._pressure = pressure
        serving = self._lifecycle.serving
        if serving is not None and pressure is Pressure.SHED:
            waiting = serving.step_loop.scheduler.waiting
            newcomers = [sequence for sequence in waiting if not sequence.generation]
            serving.step_loop.drop(newcomers, FinishReason.SHED)

    def _enter(
        self,
        serving: Serving,
        account: Account,
        valid: ValidRequest,
        deadline: float,
        token_counts: list[int],
        work: int,
    ) -> list[Sequence]:
        """Who leaves the queue for this request; raises RouterError if it cannot come in."""
        if not token_counts:
            return []
        if self._pressure is not Pressure.NONE:
            raise memory_pressure()
        now = self._clock()
        newcomer = Newcomer(
            caller=account.caller,
            priority=valid.priority,
            sequence_count=len(token_counts),
            token_count=sum(token_counts),
            work=work * len(token_counts),
            seconds_left=deadline - now,
        )
        waiting = serving.step_loop.scheduler.waiting
        return enter(newcomer, waiting, serving.limits, account, now)

    def _submit(
        self,
        serving: Serving,
        resolved: ResolvedRequest,
        beginnings: list[Beginning],
        arrival: float,
        deadline: float,
        caller: Caller,
    ) -> Generation:
        first = self._last_sequence + 1
        sequences = range(first, first + resolved.valid.completion_count)
        self._last_sequence = sequences[-1]
        surroundings = self._surroundings or self._surroundings_of(serving)
        generation = Generation(resolved, sequences, arrival, surroundings, beginnings, caller)
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
                caller=caller,
            )
            serving.step_loop.submit(request, choice)
        return generation

    def _surroundings_of(self, serving: Serving) -> Surroundings:
        """Made once: there is one `Serving` in a router's life."""
        waiting = serving.step_loop.scheduler.waiting

        def seconds_until_retry(caller: Caller, priority: Priority) -> float:
            return retry_seconds(waiting.seconds_until_turn(caller, priority, self._clock()))

        self._surroundings = Surroundings(
            tokenizer=serving.tokenizer,
            model_revision=serving.model_revision,
            cancel=serving.step_loop.cancel,
            hold=serving.step_loop.hold_request,
            retry_seconds=seconds_until_retry,
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
