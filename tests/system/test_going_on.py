"""An answer that was cut off at any index goes on as the undisturbed one, with a real model.

Ids, log probabilities to the bit, text, end and usage: a prompt of all ids is run where they had
been made one by one, and penalties, minimum and random numbers count what was received.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from running_service import Service
from system.cases import OPTIONS, prompt_ids

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder.inference.v1.inference_pb2_grpc import CompletionServiceStub
from santacoder_client import CompletionOptions
from santacoder_client._codec import encode_call

TOKEN_COUNT = 20
FIXED = CompletionOptions(max_new_tokens=TOKEN_COUNT, ignore_eos=True, logprobs=2)
CASES = {kind: options | FIXED for kind, options in OPTIONS.items()} | {
    "stop strings": CompletionOptions(
        max_new_tokens=60, temperature=1.5, seed=3, stop=["ee", "zz", "\n", "a!"], ignore_eos=True
    ),
    "min tokens": CompletionOptions(
        max_new_tokens=60,
        min_new_tokens=12,
        temperature=1.5,
        seed=8,
        frequency_penalty=0.5,
        stop_token_ids=list(range(64, 128)),
    ),
}


@pytest.fixture(scope="module")
def completions(service: Service) -> Iterator[CompletionServiceStub]:
    with grpc.insecure_channel(service.target) as channel:
        yield CompletionServiceStub(channel)


@pytest.mark.fault("C13")
@pytest.mark.parametrize("kind", CASES)
def test_an_answer_cut_off_at_any_index_goes_on_as_if_it_had_not_been(
    completions: CompletionServiceStub, kind: str
) -> None:
    request = encode_call(prompt_ids(31, 40), CASES[kind]).completion
    whole = completions.Complete(pb.CompleteRequest(completion=request))
    [choice] = whole.choices
    ids = list(choice.token_ids)
    # Those that can stop do: else they would show nothing of it.
    assert (choice.finish_reason == pb.FINISH_REASON_STOP) == (kind not in OPTIONS)
    assert len(ids) > 4
    texts = []
    for count in range(len(ids) + 1):
        request.resume.CopyFrom(pb.Resume(choices=[pb.ResumedChoice(token_ids=ids[:count])]))
        rest = completions.Complete(pb.CompleteRequest(completion=request))
        [new] = rest.choices
        assert ids[:count] + list(new.token_ids) == ids
        assert list(choice.logprobs)[count:] == list(new.logprobs)
        assert choice.text.endswith(new.text)
        texts.append(new.text)
        assert (new.finish_reason, new.matched_stop, new.matched_token_id) == (
            choice.finish_reason,
            choice.matched_stop,
            choice.matched_token_id,
        )
        assert rest.usage.completion_token_count == len(ids)
        assert rest.usage.prompt_token_count == 40
    assert texts[0] == choice.text
    assert [len(text) for text in texts] == sorted(map(len, texts), reverse=True)
