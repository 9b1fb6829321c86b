"""What requests are served with, made once from what the first shard group says about itself."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from santacoder_router.core.scheduler import Scheduler, SchedulerConfig
from santacoder_router.handshake import Description, GroupRefused
from santacoder_router.limits import Limits
from santacoder_router.metrics import Metrics
from santacoder_router.overload_options import OverloadConfig
from santacoder_router.step_loop import Log, StepLoop
from santacoder_router.text.tokenizer import Tokenizer, TokenizerFileError, TokenizerThreads

TOKENIZER_THREAD_COUNT = 2
CACHE_SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts of a router that exist once a group has described itself."""

    description: Description
    limits: Limits
    tokenizer: Tokenizer
    tokenizer_threads: TokenizerThreads
    step_loop: StepLoop

    @property
    def model_revision(self) -> str:
        """The resolved commit, or the fingerprint of the weights where there is none."""
        return self.description.model_revision or self.description.checkpoint_fingerprint


def make_serving(
    description: Description,
    overload: OverloadConfig,
    metrics: Metrics,
    clock: Callable[[], float],
    log: Log,
) -> Serving:
    """Makes the parts; raises GroupRefused if the group's tokenizer cannot be used."""
    try:
        tokenizer = Tokenizer(description.tokenizer_json)
    except TokenizerFileError as error:
        raise GroupRefused(str(error)) from error
    if tokenizer.token_count < description.token_count:
        raise GroupRefused(
            f"tokenizer: knows {tokenizer.token_count} ids; the model has {description.token_count}"
        )
    config = scheduler_config(description, overload.queue_wait_seconds)
    limits = limits_of(description, overload, config.max_request_tokens, tokenizer)
    scheduler = Scheduler(config, secrets.token_bytes(CACHE_SEED_BYTES))
    return Serving(
        description=description,
        limits=limits,
        tokenizer=tokenizer,
        tokenizer_threads=TokenizerThreads(
            tokenizer, TOKENIZER_THREAD_COUNT, limits.tokenizer_seconds
        ),
        step_loop=StepLoop(scheduler, metrics, clock, log),
    )


def scheduler_config(description: Description, queue_wait_seconds: float) -> SchedulerConfig:
    """The group's capacity in the scheduler's words."""
    return SchedulerConfig(
        block_size=description.block_size,
        block_count=description.block_count,
        slot_count=description.slot_count,
        blocks_per_sequence=description.blocks_per_sequence,
        tokens_per_step=description.tokens_per_step,
        steps_per_lease=description.steps_per_lease,
        plans_in_flight=description.plans_in_flight,
        context_token_count=description.context_token_count,
        queue_wait_seconds=queue_wait_seconds,
    )


def limits_of(
    description: Description,
    overload: OverloadConfig,
    max_request_tokens: int,
    tokenizer: Tokenizer,
) -> Limits:
    """The bounds on requests: the server's own, or the group's where they are narrower."""
    standing = Limits(
        # A pool smaller than the context bounds a request too.
        context_token_count=max_request_tokens,
        token_count=description.token_count,
        vocabulary_size=description.vocabulary_size,
        infill_supported=description.fim_enabled and tokenizer.sentinels is not None,
        running_request_count=description.slot_count,
        queued_request_count=overload.queued_request_count,
        queued_token_count=overload.queued_token_count,
        queue_wait_seconds=overload.queue_wait_seconds,
    )
    return dataclasses.replace(
        standing,
        logprobs=min(standing.logprobs, description.max_logprobs),
        stop_token_id_count=min(standing.stop_token_id_count, description.max_stop_ids),
        logit_bias_count=min(standing.logit_bias_count, description.max_logit_biases),
    )
