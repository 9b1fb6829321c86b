"""A running request by itself: what it leaves behind."""

from __future__ import annotations

import gc
import weakref

from router.mock_shard import byte_tokenizer
from router.running_router import make_log

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.core import plan as core
from santacoder_router.generation import Generation
from santacoder_router.limits import Limits
from santacoder_router.metrics import Metrics
from santacoder_router.poison_list import PoisonList
from santacoder_router.resolution import resolve
from santacoder_router.surroundings import Surroundings
from santacoder_router.text.prompt import PromptIds
from santacoder_router.text.tokenizer import Tokenizer
from santacoder_router.turns import Turns
from santacoder_router.validation import normalise

LIMITS = Limits(
    context_token_count=64, token_count=261, vocabulary_size=272, infill_supported=False
)


def generation() -> Generation:
    request = pb.CompletionRequest(text="a")
    valid = normalise(request, LIMITS, draw_seed=lambda: 1, draw_request_id=lambda: "r")
    surroundings = Surroundings(
        tokenizer=Tokenizer(byte_tokenizer().to_str().encode()),
        model_revision="",
        retry_seconds=lambda caller, priority: 1.0,
        hold=lambda sequence, is_held: None,
        cancel=lambda _: None,
        turns=Turns(lambda: 0.0),
        clock=lambda: 0.0,
        metrics=Metrics(),
        log=make_log([]),
        poison=PoisonList(lambda: 0.0),
    )
    resolved = resolve(valid, PromptIds((1,)), LIMITS, None)
    return Generation(resolved, range(1, 2), 0.0, surroundings)


def test_a_request_that_is_over_is_gone_without_the_collector() -> None:
    gc.disable()
    try:
        running = generation()
        for event in (core.Started(1, 0), core.Tokens(1, (65, 66), ())):
            running.choices[0].read(event)
        running.choices[0].read(core.Finished(1, core.FinishReason.LENGTH))
        left = weakref.ref(running)
        running.close()
        del running
        assert left() is None
    finally:
        gc.enable()
