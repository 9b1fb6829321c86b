"""The limits are the documented ones and bear the wire's names."""

from __future__ import annotations

from santacoder.inference.v1 import inference_pb2
from santacoder_router.limits import Limits

LIMITS = Limits(
    context_token_count=2048, token_count=49_157, vocabulary_size=49_280, infill_supported=True
)


def test_every_bound_told_to_clients_is_a_limit_of_the_same_name() -> None:
    for field in inference_pb2.Limits.DESCRIPTOR.fields:
        value = getattr(LIMITS, field.name)
        assert isinstance(value, int), field.name
        assert value > 0, field.name


def test_the_longest_prompt_leaves_room_for_one_token() -> None:
    assert LIMITS.prompt_token_count == 2047


def test_the_defaults_are_the_documented_ones() -> None:
    assert (LIMITS.prompt_byte_count, LIMITS.default_max_new_tokens) == (1_048_576, 128)
    assert (LIMITS.stop_string_count, LIMITS.stop_string_byte_count) == (16, 256)
    assert (LIMITS.stop_token_id_count, LIMITS.logit_bias_count, LIMITS.logprobs) == (64, 256, 20)
    assert (LIMITS.completion_count, LIMITS.cache_salt_byte_count) == (8, 64)
    assert (LIMITS.queued_request_count, LIMITS.queued_token_count) == (512, 262_144)
    assert (LIMITS.queue_wait_seconds, LIMITS.tokenizer_seconds) == (10.0, 2.0)
    assert (LIMITS.default_deadline_seconds, LIMITS.max_deadline_seconds) == (120.0, 600.0)
