"""An answer that was cut off goes on with another router as if nothing had been cut."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from router.mock_engine import Oracle
from router.mock_shard import END_OF_TEXT_ID, Behaviour, byte_tokenizer, ids_of
from router.oracles import WideOracle
from router.running_router import (
    Running,
    failure_of,
    ids_in,
    reason_of,
    request,
    running_router,
    text_of,
)

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_router.text.detokenizer import ChoiceText
from santacoder_router.text.stop_strings import StopStrings
from santacoder_router.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer(byte_tokenizer().to_str().encode())
# One id a byte: characters of two and three bytes lie across most borders.
WIDE = WideOracle(end_every=25)
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"stopping": pb.Stopping(max_new_tokens=30, ignore_eos=True)},
    "seeded": {
        "sampling": pb.Sampling(temperature=0.5, seed=4),
        "stopping": pb.Stopping(max_new_tokens=30),
        "output": pb.Output(logprobs=2),
    },
    "stop strings": {
        "sampling": pb.Sampling(temperature=0.5, seed=5),
        "stopping": pb.Stopping(max_new_tokens=60, ignore_eos=True, stop=["a\n", "é☃a", "aaa"]),
        "output": pb.Output(echo=True),
    },
    "min tokens": {
        "sampling": pb.Sampling(temperature=0.5, seed=6),
        "stopping": pb.Stopping(max_new_tokens=60, min_new_tokens=20),
    },
    "stop ids": {
        "sampling": pb.Sampling(temperature=0.5, seed=9),
        "stopping": pb.Stopping(max_new_tokens=60, stop_token_ids=ids_of("\n"), min_new_tokens=15),
    },
}


@dataclass(frozen=True)
class Answer:
    """One choice, whole."""

    ids: list[int]
    text: str
    logprobs: list[pb.PositionLogprobs]
    end: pb.ChoiceFinished
    token_count: int

    @classmethod
    def of(cls, events: list[pb.CompletionEvent]) -> Answer:
        [end] = [event.choice_finished for event in events if event.HasField("choice_finished")]
        logprobs = [entry for event in events for entry in event.delta.logprobs]
        usage = events[-1].finished.usage
        return cls(ids_in(events), text_of(events), logprobs, end, usage.completion_token_count)


def cut_at(count: int, whole: Answer, **fields: Any) -> pb.Resume:
    """What a caller has that was cut off after so many ids."""
    return pb.Resume(choices=[pb.ResumedChoice(token_ids=whole.ids[:count], **fields)])


def text_after(ids: list[int], stop: tuple[str, ...]) -> str:
    """What has been told when these ids have."""
    return ChoiceText(TOKENIZER, StopStrings(stop)).push(ids).text


async def assert_goes_on(running: Running, kind: str, count: int, whole: Answer) -> None:
    fields = CASES[kind]
    events = await running.stream(**fields, resume=cut_at(count, whole))
    rest = Answer.of(events)
    echo = "def f(x):" if kind == "stop strings" else ""
    before = echo + text_after(whole.ids[:count], tuple(fields["stopping"].stop))
    assert events[0].accepted.resumed_token_count == count
    assert whole.ids[:count] + rest.ids == whole.ids
    assert before + rest.text == whole.text
    assert whole.logprobs[count:] == rest.logprobs
    assert (rest.end, rest.token_count) == (whole.end, whole.token_count)


@pytest.mark.fault("C13")
@pytest.mark.parametrize("kind", CASES)
def test_going_on_at_every_index_equals_the_undisturbed_answer(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(oracle=WIDE)) as running:
            whole = Answer.of(await running.stream(**CASES[kind]))
            assert len(whole.ids) > 5
            for count in range(len(whole.ids) + 1):
                await assert_goes_on(running, kind, count, whole)

    asyncio.run(scenario())


def test_text_that_was_received_is_not_repeated_wherever_it_was_cut(tmp_path: Path) -> None:
    """Also between the text that is let go at the end and the word of the end."""

    async def scenario() -> None:
        fields = {"stopping": pb.Stopping(max_new_tokens=12, ignore_eos=True, stop=["\n" * 90])}
        # The end of the answer may begin a stop string or a character.
        oracle = Oracle(ids_of("☃\n"), END_OF_TEXT_ID)
        async with running_router(tmp_path, Behaviour(oracle=oracle)) as running:
            for prompt in ("a", "b", "c", "d"):
                whole = Answer.of(await running.stream(text=prompt, **fields))
                told = text_after(whole.ids, ("\n" * 90,))
                for text in [told[:count] for count in range(len(told) + 1)] + [whole.text]:
                    resume = cut_at(12, whole, text_byte_count=len(text.encode()))
                    rest = Answer.of(await running.stream(text=prompt, resume=resume, **fields))
                    assert text + rest.text == whole.text
                    assert (rest.ids, rest.end.reason) == ([], pb.FINISH_REASON_LENGTH)

    asyncio.run(scenario())


def test_each_choice_goes_on_from_its_own_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        fields: dict[str, Any] = {
            "sampling": pb.Sampling(temperature=0.5, seed=1),
            "stopping": pb.Stopping(max_new_tokens=20, ignore_eos=True),
            "output": pb.Output(echo=True),
            "completion_count": 4,
        }
        async with running_router(tmp_path, Behaviour(oracle=WIDE)) as running:
            whole = await running.complete(**fields)
            ids = [list(choice.token_ids) for choice in whole.choices]
            resume = pb.Resume(
                choices=[
                    pb.ResumedChoice(index=2, token_ids=ids[2], finished=True),
                    pb.ResumedChoice(index=1, token_ids=ids[1][:7]),
                    pb.ResumedChoice(index=3, text_byte_count=len("def f(x):")),
                ]
            )
            rest = await running.complete(**fields, resume=resume)
            assert [choice.index for choice in rest.choices] == [0, 1, 3]
            new, cut, echoed = rest.choices
            assert new == whole.choices[0]
            assert ids[1][:7] + list(cut.token_ids) == ids[1]
            assert "def f(x):" + echoed.text == whole.choices[3].text
            assert list(echoed.token_ids) == ids[3]
            assert rest.usage.completion_token_count == 80
            assert rest.accepted.resumed_token_count == 27

    asyncio.run(scenario())


def test_what_had_ended_needs_no_shard(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path, Behaviour(oracle=WIDE)) as running:
            whole = Answer.of(await running.stream(**CASES["greedy"]))
            generated = running.generated_count
            events = await running.stream(**CASES["greedy"], resume=cut_at(30, whole))
            assert Answer.of(events).token_count == 30
            told = cut_at(30, whole, finished=True)
            events = await running.stream(**CASES["greedy"], resume=told)
            assert [event.WhichOneof("event") for event in events] == ["accepted", "finished"]
            assert events[-1].finished.usage.completion_token_count == 30
            assert running.generated_count == generated
            name = "santacoder_router_resumed_requests_total"
            assert running.router.metrics.registry.get_sample_value(name) == 2

    asyncio.run(scenario())


@pytest.mark.fault("R1")
def test_an_answer_goes_on_through_the_death_of_its_group_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        behaviour = Behaviour(oracle=WIDE, step_seconds=0.01)
        async with running_router(tmp_path, behaviour) as running:
            whole = Answer.of(await running.stream(**CASES["greedy"]))
            asked = pb.StreamCompleteRequest(
                completion=request(**CASES["greedy"], resume=cut_at(5, whole))
            )
            answers = aiter(running.completion.StreamComplete(asked))
            events = [(await anext(answers)).event for _ in range(2)]
            await running.next_life()
            events += [response.event async for response in answers]
            assert whole.ids[:5] + ids_in(events) == whole.ids

    asyncio.run(scenario())


NEWLINE = ids_of("\n")
STOP = pb.Stopping(max_new_tokens=8, stop=["\n"])
SNOWMAN = ids_of("☃")
REFUSALS: list[tuple[pb.ResumedChoice, pb.Stopping, str, str]] = [
    (
        pb.ResumedChoice(token_ids=[1, *NEWLINE, 1, 1]),
        STOP,
        "RESUME_TOKENS",
        "resume.choices[0].token_ids: goes on after a stop string; got 4 ids; allowed at most 2",
    ),
    (
        pb.ResumedChoice(token_ids=[1, END_OF_TEXT_ID]),
        STOP,
        "RESUME_TOKENS",
        "resume.choices[0].token_ids[1]: an id that ends the text; got 256; allowed"
        " ids before the end",
    ),
    (
        pb.ResumedChoice(token_ids=[65] * 129),
        pb.Stopping(),
        "RESUME_TOKENS",
        "resume.choices[0].token_ids: too many ids; got 129; allowed at most 128, which is"
        " max_new_tokens",
    ),
    (
        pb.ResumedChoice(token_ids=SNOWMAN, text_byte_count=2),
        pb.Stopping(),
        "RESUME_TEXT",
        "resume.choices[0].text_byte_count: ends within a character; got 2; allowed a count"
        " of whole characters",
    ),
    (
        pb.ResumedChoice(token_ids=SNOWMAN, text_byte_count=4),
        pb.Stopping(),
        "RESUME_TEXT",
        "resume.choices[0].text_byte_count: more text than the ids bring; got 4; allowed 0..3",
    ),
]


def test_what_a_resumed_request_cannot_have_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_router(tmp_path) as running:
            for choice, stopping, reason, message in REFUSALS:
                resume = pb.Resume(choices=[choice])
                error = await failure_of(running.complete(stopping=stopping, resume=resume))
                assert (reason_of(error), error.details()) == (reason, message)
            resume = pb.Resume(model_revision="another")
            error = await failure_of(running.complete(resume=resume))
            assert error.code().name == "FAILED_PRECONDITION"
            assert reason_of(error) == "RESUME_MODEL"
            served = pb.Resume(model_revision="fingerprint")
            await running.complete(resume=served, stopping=pb.Stopping(max_new_tokens=1))

    asyncio.run(scenario())
