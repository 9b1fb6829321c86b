"""From prompts to requests."""

from __future__ import annotations

from typing import Any

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.request import MOST_TEMPLATES, Encoder, Wishes


def encoded(prompt: Prompt, index: int = 3, **wishes: Any) -> pb.CompletionRequest:
    return Encoder(Wishes(**wishes)).completion(prompt, index)


def test_every_kind_of_prompt_has_its_place() -> None:
    assert encoded(Prompt("text", text="def f")).text == "def f"
    infill = encoded(Prompt("infill", prefix="a", suffix="b")).infill
    assert (infill.prefix, infill.suffix) == ("a", "b")
    assert list(encoded(Prompt("token_ids", token_ids=(5, 6))).token_ids.ids) == [5, 6]


def test_a_prompts_own_options_win_over_the_runs() -> None:
    request = encoded(
        Prompt("text", text="x", max_new_tokens=9, cache_salt=b"s", options={"temperature": 0.5}),
        options={"temperature": 1.0, "top_k": 4, "cache_salt": "run", "priority": "low"},
    )
    assert request.sampling.temperature == 0.5
    assert request.sampling.top_k == 4
    assert request.stopping.max_new_tokens == 9
    assert request.cache_salt == b"s"
    assert request.priority == pb.PRIORITY_LOW


def test_prompts_do_not_inherit_from_each_other() -> None:
    encoder = Encoder(Wishes(options={"temperature": 1.0}))
    first = encoder.completion(Prompt("text", text="x", options={"stop": ["a"]}), 0)
    second = encoder.completion(Prompt("token_ids", token_ids=(1,), max_new_tokens=2), 1)
    third = encoder.completion(Prompt("text", text="y"), 2)
    assert list(first.stopping.stop) == ["a"]
    assert list(second.stopping.stop) == []
    assert third.text == "y" and not third.stopping.HasField("max_new_tokens")


def test_options_that_all_differ_do_not_fill_the_memory() -> None:
    encoder = Encoder(Wishes())
    for seed in range(2 * MOST_TEMPLATES):
        prompt = Prompt("text", text="x", options={"seed": seed})
        assert encoder.completion(prompt, seed).sampling.seed == seed
    assert len(encoder._templates) == MOST_TEMPLATES


def test_request_ids_name_the_run_and_the_place_in_it() -> None:
    assert encoded(Prompt("text", text="x"), index=12, run_id="load-ab").request_id == "load-ab-12"


def test_the_share_that_is_cancelled_is_drawn_from_the_seed() -> None:
    wishes = Wishes(cancel_share=0.25, cancel_after_seconds=0.5)
    drawn = [wishes.cancel_after(index) for index in range(4000)]
    assert drawn == [wishes.cancel_after(index) for index in range(4000)]
    assert set(drawn) == {None, 0.5}
    assert 800 < drawn.count(0.5) < 1200
    assert Wishes().cancel_after(1) is None


def test_a_prompts_own_deadline_wins() -> None:
    wishes = Wishes(timeout_seconds=9.0)
    assert wishes.timeout(Prompt("text", text="x")) == 9.0
    assert wishes.timeout(Prompt("text", text="x", options={"timeout": 2.0})) == 2.0
