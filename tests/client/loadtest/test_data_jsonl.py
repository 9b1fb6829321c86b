"""JSONL files and timed traces: read strictly, refused with file and line, replayed as they say."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_data import MODEL, SAME_EXAMPLES, prepared, prompts, source

from santacoder_client._codec import encode_call
from santacoder_client.loadtest.data import strict_json
from santacoder_client.loadtest.data.source import DataError, DescribedSource, ModelFacts
from santacoder_client.loadtest.data.strict_json import MOST_LINE_BYTES, objects

TRACE = {"timestamp": 0, "input_length": 1000, "output_length": 9, "hash_ids": [1, 2]}


def written(folder: Path, *lines: object) -> Path:
    path = folder / "data.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes("\n".join(texts).encode("utf-8", "surrogateescape"))
    return path


def jsonl(folder: Path, *lines: object, argv: tuple[object, ...] = ()) -> DescribedSource:
    return source("--data", "jsonl", "--data-file", written(folder, *lines), *argv)


def test_every_kind_of_prompt_is_read(tmp_path: Path) -> None:
    made = jsonl(
        tmp_path,
        {"prompt": "def f():\r\n", "max_new_tokens": 7, "family": "f"},
        {"prefix": "a", "suffix": "", "expected": "b"},
        "",
        {"token_ids": [1, 2, 3]},
    )
    text, infill, tokens = prompts(made, range(3))
    assert (text.kind, text.text, text.max_new_tokens, text.family) == (
        *("text", "def f():\r\n", 7, "f"),
    )
    assert (infill.kind, infill.prefix, infill.suffix, infill.expected) == ("infill", "a", "", "b")
    assert (tokens.kind, tokens.token_ids) == ("token_ids", (1, 2, 3))
    assert made.schedule is None


def test_the_example_in_the_clients_readme_is_read(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "client/README.md").read_text()
    (line,) = re.findall(r"^```json\n(.*)\n```$", readme, re.M)
    made = jsonl(tmp_path, line)
    assert made.prompt(0).prefix.startswith("def add") and made.schedule == (0.25,)


def test_lines_come_again_after_the_last(tmp_path: Path) -> None:
    made = jsonl(tmp_path, {"prompt": "a"}, {"prompt": "b"}, argv=("--new-tokens", "uniform:1:9"))
    asked = prompts(made, range(200))
    assert [prompt.text for prompt in asked] == ["a", "b"] * 100
    assert {prompt.max_new_tokens for prompt in asked} == set(range(1, 10))


def test_request_options_are_those_of_the_sdk(tmp_path: Path) -> None:
    given = {
        "temperature": 0.5,
        "top_k": 4,
        "stop": ["x", "y"],
        "logit_bias": {"5": 1.5},
        "seed": 3,
        "echo": True,
        "priority": "high",
        "timeout": 2,
        "ignore_eos": False,
    }
    prompt = jsonl(tmp_path, {"prompt": "a", "cache_salt": "é", **given}).prompt(0)
    assert prompt.cache_salt == "é".encode()
    assert set(prompt.options) == set(given)
    sent = encode_call("a", prompt.options)
    assert dict(sent.completion.sampling.logit_bias) == {5: 1.5}
    assert list(sent.completion.stopping.stop) == ["x", "y"]
    assert sent.timeout_seconds == 2


def test_times_are_a_schedule_in_order_and_it_ends(tmp_path: Path) -> None:
    lines = [{"prompt": str(at), "at": at} for at in (3, 0.5, 0, 0.5)]
    made = jsonl(tmp_path, *lines)
    assert made.schedule == (0, 0.5, 0.5, 3)
    assert [prompt.scheduled_at for prompt in prompts(made, range(4))] == [0, 0.5, 0.5, 3]
    assert [prompt.text for prompt in prompts(made, range(4))] == ["0", "0.5", "0.5", "3"]
    read = prepared("--data", "jsonl", "--data-file", tmp_path / "data.jsonl")
    assert read.schedule == made.schedule
    with pytest.raises(IndexError):
        made.prompt(4)


def test_a_trace_has_its_lengths_times_and_shared_blocks(tmp_path: Path) -> None:
    made = jsonl(
        tmp_path,
        {**TRACE, "timestamp": 1500, "hash_ids": [1, 3]},
        TRACE,
        {**TRACE, "timestamp": 2000, "input_length": 512, "hash_ids": [7], "output_length": 1},
    )
    first, second, third = prompts(made, range(3))
    assert made.schedule == (0, 1.5, 2)
    assert [len(prompt.token_ids) for prompt in (first, second, third)] == [1000, 1000, 512]
    assert [prompt.max_new_tokens for prompt in (first, second, third)] == [9, 9, 1]
    assert first.token_ids[:512] == second.token_ids[:512]
    assert first.token_ids[512:516] != second.token_ids[512:516]
    assert third.token_ids[:4] != first.token_ids[:4]
    assert first.options == {"ignore_eos": True}
    assert not set(first.token_ids) & MODEL.special_token_ids


def test_a_trace_too_long_for_the_context_is_refused_and_can_be_scaled(tmp_path: Path) -> None:
    long = {**TRACE, "input_length": 5000, "output_length": 100, "hash_ids": list(range(10))}
    with pytest.raises(
        DataError, match=r"jsonl:2: input_length: .+context.+got up to 5000 and 100"
    ):
        jsonl(tmp_path, TRACE, long)
    short, prompt = prompts(jsonl(tmp_path, TRACE, long, argv=("--length-scale", 0.1)), range(2))
    assert len(prompt.token_ids) == 500 and prompt.max_new_tokens == 10
    assert short.token_ids[:51] == prompt.token_ids[51:102], "the blocks of hash 1"


def test_blocks_of_another_size_are_read_if_told(tmp_path: Path) -> None:
    line = {**TRACE, "input_length": 40, "hash_ids": [1, 2, 3]}
    with pytest.raises(DataError, match=r":1: hash_ids: .+got 3; allowed 1 \(or other --block-tok"):
        jsonl(tmp_path, line)
    assert len(jsonl(tmp_path, line, argv=("--block-tokens", 16)).prompt(0).token_ids) == 40


@SAME_EXAMPLES
@given(st.integers(1, 3000), st.integers(1, 600), st.floats(0.001, 3))
def test_scaled_lengths_are_never_more_than_the_blocks_hold(
    tmp_path_factory: pytest.TempPathFactory, length: int, block: int, scale: float
) -> None:
    line = {**TRACE, "input_length": length, "hash_ids": list(range(-(-length // block)))}
    path = written(tmp_path_factory.mktemp("trace"), line)
    argv = ("--block-tokens", block, "--length-scale", round(scale, 4))
    model = ModelFacts(1000)
    made = source("--data", "jsonl", "--data-file", path, *argv, model=model)
    count = len(made.prompt(0).token_ids)
    blocks = -(-length // block)
    assert 1 <= count <= max(1, round(length * round(scale, 4)))
    # What rounding a block's size may lose: half a token in every block, and half in the whole.
    assert count >= length * round(scale, 4) - blocks / 2 - 1


BROKEN = {
    "[1]": "no object; got a JSON list",
    "null": "no object; got a JSON NoneType",
    '{"prompt": "a"': "not JSON at column 15",
    '{"prompt": "a"} x': "not JSON at column 17",
    "prompt: a": "not JSON at column 1",
    '{"prompt": "a", "prompt": "b"}': "key given twice; got 'prompt'",
    '{"prompt": "a", "logit_bias": {"1": 1, "1": 2}}': "key given twice; got '1'",
    '{"prompt": "a", "temperature": NaN}': "not a JSON number; got NaN",
    '{"prompt": "a", "temperature": -Infinity}': "not a JSON number; got -Infinity",
    '{"prompt": "a", "at": 1e999}': "at: wrong value; got Infinity",
    '{"prompt": "a", "seed": 1' + "0" * 5000 + "}": "not JSON; got too many digits",
    "[" * 100_000: "not JSON; got too many brackets",
    "{}": "not exactly one prompt; got none",
    '{"prompt": "a", "token_ids": [1]}': "not exactly one prompt; got prompt, token_ids",
    '{"prefix": "a"}': "not exactly one prompt; got prefix",
    '{"prefix": "", "suffix": ""}': "prefix and suffix: wrong value; got ''",
    '{"prompt": ""}': "prompt: wrong value; got ''",
    '{"prompt": 5}': "prompt: wrong type; got a value of type int",
    '{"prompt": "\\ud800"}': "prompt: not Unicode text",
    '{"token_ids": []}': "token_ids: wrong value; got a JSON list of 0",
    '{"token_ids": "1 2"}': "token_ids: wrong value; got '1 2'",
    '{"token_ids": [1, true]}': "token_ids[1]: wrong value; got true",
    '{"token_ids": [1, 2.0]}': "token_ids[1]: wrong value; got 2.0",
    '{"token_ids": [-1]}': "token_ids[0]: wrong value; got -1",
    '{"token_ids": [1, 1000]}': "token_ids[1]: out of range; got 1000; allowed 0 to 999",
    '{"prompt": "a", "temprature": 1}': "unknown key; got 'temprature'; allowed at, ",
    '{"prompt": "a", "request_id": "x"}': "unknown key; got 'request_id'",
    '{"prompt": "a", "temperature": "1"}': "sampling.temperature: wrong type",
    '{"prompt": "a", "max_new_tokens": 1.5}': "stopping.max_new_tokens: wrong type",
    '{"prompt": "a", "max_new_tokens": 0}': "stopping.max_new_tokens: out of range; got 0",
    '{"prompt": "a", "max_new_tokens": 99999999999}': "stopping.max_new_tokens: out of range",
    '{"prompt": "a", "logit_bias": {"x": 1}}': "sampling.logit_bias key: wrong type",
    '{"prompt": "a", "fim_order": "xyz"}': "infill.order: unknown; got 'xyz'",
    '{"prompt": "a", "at": -1}': "at: wrong value; got -1",
    '{"prompt": "a", "at": "0"}': "at: wrong value; got '0'",
    '{"prompt": "a", "at": true}': "at: wrong value; got true",
    '{"prompt": "a", "family": 1}': "family: wrong type",
    '{"prompt": "a", "expected": null}': "expected: wrong type",
    '{"timestamp": 0}': "hash_ids: missing",
    json.dumps({**TRACE, "hash_ids": []}): "hash_ids: wrong value; got a JSON list of 0",
    json.dumps({**TRACE, "hash_ids": [1, "2"]}): "hash_ids[1]: wrong value; got '2'",
    json.dumps({**TRACE, "input_length": 0}): "input_length: wrong value; got 0",
    json.dumps({**TRACE, "output_length": 1.5}): "output_length: wrong value; got 1.5",
    json.dumps({**TRACE, "timestamp": -1}): "timestamp: wrong value; got -1",
    json.dumps({**TRACE, "prompt": "a"}): "unknown key; got 'prompt'",
    '{"prompt": "\udcff"}': "not UTF-8; got byte 0xff at column 13",
    "\ufeff{}": "not JSON at column 1",
}


@pytest.mark.parametrize("line", BROKEN, ids=[line[:40] for line in BROKEN])
def test_a_broken_line_is_refused_with_its_file_and_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError) as refusal:
        jsonl(tmp_path, {"prompt": "whole"}, "", line)
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}/data.jsonl:3: {BROKEN[line]}")
    assert "; got " in message and "; allowed " in message
    assert "\n" not in message and len(message) < 800


def test_times_on_some_lines_only_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"jsonl:2: times on some.+; got a line without; allowed"):
        jsonl(tmp_path, {"prompt": "a", "at": 0}, {"prompt": "b"})


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.jsonl: no prompt in it; got 2 bytes; allowed"):
        jsonl(tmp_path, "", "", "")


def test_a_line_too_long_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"jsonl:1: line too long; .+; allowed .+{MOST_LINE_BYTES}"
    ):
        jsonl(tmp_path, "[" * (MOST_LINE_BYTES + 1))


def test_a_file_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict_json, "MOST_FILE_BYTES", 100)
    with pytest.raises(DataError, match=r"--data-file: too large; got over 100 bytes; allowed"):
        jsonl(tmp_path, {"prompt": "a" * 100})


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(DataError, match=r"^--data-file: .+; got .+; allowed .+"):
            prepared("--data", "jsonl", "--data-file", path)
    with pytest.raises(DataError, match=r"^--data-file: No such file.+; got .+; allowed .+"):
        prepared("--data", "jsonl", "--data-file", tmp_path / "nowhere")


@SAME_EXAMPLES
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes) -> None:
    try:
        for _, value in objects("file", content):
            assert isinstance(value, dict)
    except DataError as error:
        assert str(error).startswith("file:") and "; allowed " in str(error)
        assert "\n" not in str(error)
