"""The tokenizer keeps every character, keeps text text, and leaves the event loop free."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as LibraryTokenizer

from santacoder_router.errors import Overloaded, Reason
from santacoder_router.text.fim import Sentinels
from santacoder_router.text.prompt import (
    FimOrder,
    InfillPrompt,
    PromptIds,
    TextPrompt,
    TokenPrompt,
)
from santacoder_router.text.tokenizer import (
    INLINE_CHARACTER_COUNT,
    Tokenizer,
    TokenizerFileError,
    TokenizerThreads,
)

HYPHENS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
UNDERSCORES = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
DEMO_TOKENIZER = Path(__file__).parents[3] / "models" / "demo" / "checkpoint" / "tokenizer.json"
MIB = 1 << 20
BUDGET_SECONDS = 2.0
LONG_TEXT = "def f(x):\n    return x\n" * 200


@given(text=st.text())
def test_any_text_survives_encode_and_detokenize(tokenizer: Tokenizer, text: str) -> None:
    [ids] = tokenizer.encode(text)
    assert tokenizer.detokenize(ids) == text


@given(data=st.binary())
def test_any_bytes_as_ids_decode_as_python_decodes_them(
    tokenizer: Tokenizer, byte_ids: list[int], data: bytes
) -> None:
    ids = [byte_ids[byte] for byte in data]
    assert tokenizer.detokenize(ids) == data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("in_vocabulary", [False, True])
@pytest.mark.parametrize("family", [HYPHENS, UNDERSCORES])
def test_text_that_spells_a_special_token_stays_text(
    make_tokenizer_json: Callable[..., bytes], family: tuple[str, ...], in_vocabulary: bool
) -> None:
    tokenizer = Tokenizer(make_tokenizer_json(family, in_vocabulary=in_vocabulary))
    text = "a " + " ".join(family) + "".join(family) + "\n" + family[2]
    [ids] = tokenizer.encode(text)
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert tokenizer.detokenize(ids) == text


@pytest.mark.parametrize("normalized", [False, True])
def test_text_that_spells_an_added_token_that_is_not_special_stays_text(
    tokenizer_json: bytes, normalized: bool
) -> None:
    library = LibraryTokenizer.from_str(tokenizer_json.decode())
    library.add_tokens([AddedToken("<mark>", special=False, normalized=normalized)])
    tokenizer = Tokenizer(library.to_str().encode())
    mark = tokenizer.special_tokens["<mark>"]
    assert mark == library.token_to_id("<mark>")
    [ids] = tokenizer.encode("a<mark>b")
    assert mark not in ids
    assert tokenizer.detokenize(ids) == "a<mark>b"
    assert tokenizer.token_bytes(mark) == b"<mark>"


@given(text=st.text(alphabet="def fib(n):\n 12é<->x"))
def test_ids_are_the_library_s_own(tokenizer: Tokenizer, tokenizer_json: bytes, text: str) -> None:
    library = LibraryTokenizer.from_str(tokenizer_json.decode())
    library.encode_special_tokens = True
    assert tokenizer.encode(text) == [library.encode(text, add_special_tokens=False).ids]


def test_several_texts_are_encoded_apart(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("retu", "rn", "") == [
        *tokenizer.encode("retu"),
        *tokenizer.encode("rn"),
        [],
    ]


def test_settings_in_the_file_that_add_or_drop_ids_are_ignored(tokenizer_json: bytes) -> None:
    library = LibraryTokenizer.from_str(tokenizer_json.decode())
    library.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 320)]
    )
    library.enable_truncation(4)
    library.enable_padding(length=64)
    plain = Tokenizer(tokenizer_json)
    assert Tokenizer(library.to_str().encode()).encode(LONG_TEXT) == plain.encode(LONG_TEXT)


@pytest.mark.parametrize("family", [HYPHENS, UNDERSCORES])
def test_special_ids_are_found_by_name_in_both_families(
    make_tokenizer_json: Callable[..., bytes], family: tuple[str, ...]
) -> None:
    content = make_tokenizer_json(family)
    library = LibraryTokenizer.from_str(content.decode())
    vocabulary = library.get_vocab(with_added_tokens=True)
    end, prefix, middle, suffix, _ = (vocabulary[name] for name in family)
    tokenizer = Tokenizer(content)
    assert tokenizer.end_of_text_id == end
    assert tokenizer.sentinels == Sentinels(prefix=prefix, middle=middle, suffix=suffix)
    assert list(tokenizer.special_tokens) == list(family)
    assert tokenizer.token_count == library.get_vocab_size()


def test_a_tokenizer_without_all_three_sentinels_has_none(
    make_tokenizer_json: Callable[..., bytes],
) -> None:
    tokenizer = Tokenizer(make_tokenizer_json(("<fim-prefix>", "<fim-middle>")))
    assert tokenizer.sentinels is None
    assert tokenizer.end_of_text_id is None


def test_special_tokens_detokenize_to_their_spelling(tokenizer: Tokenizer) -> None:
    for name, token_id in tokenizer.special_tokens.items():
        assert tokenizer.detokenize([token_id]) == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "holds no tokenizer model"),
        (b'{"model": {"type": "BPE"}}', "tokenizer.json: "),
        (b'{"model": {}, "added_tokens": [{"id": 1}]}', "added_tokens"),
    ],
)
def test_a_damaged_file_is_named_on_one_line(content: bytes, message: str) -> None:
    with pytest.raises(TokenizerFileError, match=message) as caught:
        Tokenizer(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("token_id", [-1, 1 << 24, 1 << 62])
def test_an_id_that_no_table_holds_is_refused(tokenizer_json: bytes, token_id: int) -> None:
    content = json.loads(tokenizer_json)
    content["added_tokens"][0]["id"] = token_id
    with pytest.raises(TokenizerFileError, match=f"out of range; got {token_id}; allowed 0.."):
        Tokenizer(json.dumps(content).encode())


def test_a_panic_of_the_library_is_a_damaged_file(tokenizer_json: bytes) -> None:
    content = json.loads(tokenizer_json)
    content["model"]["continuing_subword_prefix"] = "longer than any token"
    with pytest.raises(TokenizerFileError, match="out of range for slice"):
        Tokenizer(json.dumps(content).encode())


def test_a_panic_over_a_text_fails_its_request_alone(tokenizer_json: bytes) -> None:
    tokenizer = Tokenizer(tokenizer_json)

    class PanicException(BaseException):
        """As pyo3 raises it, which cannot be imported."""

    class Encoder:
        def encode_batch_fast(self, *_: object, **__: object) -> None:
            raise PanicException

    tokenizer._encoder = Encoder()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="panicked"):
        tokenizer.encode("x")


def test_a_vocabulary_that_would_drop_bytes_is_refused(tokenizer_json: bytes) -> None:
    content = json.loads(tokenizer_json)
    content["model"]["merges"] = []
    content["model"]["vocab"] = {
        symbol: token_id
        for symbol, token_id in content["model"]["vocab"].items()
        if len(symbol) == 1 and symbol != "q"
    }
    with pytest.raises(TokenizerFileError, match="no symbol for byte 0x71"):
        Tokenizer(json.dumps(content).encode())


def test_threads_may_share_a_tokenizer(tokenizer: Tokenizer) -> None:
    texts = [f"{LONG_TEXT}{number}é" for number in range(64)]
    expected = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(tokenizer.encode, texts)) == expected


def test_the_event_loop_runs_on_while_a_large_text_is_encoded(tokenizer: Tokenizer) -> None:
    async def count_ticks(character_count: int) -> int:
        threads = TokenizerThreads(tokenizer, 1, budget_seconds=600.0)
        work = asyncio.ensure_future(threads.encode("a" * character_count))
        ticks = 0
        while not work.done():
            await asyncio.sleep(0.001)
            ticks += 1
        assert len((await work)[0]) > 1000
        threads.close()
        return ticks

    # The first takes tenths of a second. With the interpreter lock held there is one tick, however
    # large the text; the larger ones are for machines on which the first takes no time.
    sizes = (1 << 20, 1 << 22, 1 << 24)
    assert any(asyncio.run(count_ticks(size)) >= 5 for size in sizes)


WORST_TEXTS = {
    "one letter": "a" * MIB,
    "digits, each a token": "1" * MIB,
    "blanks": " " * MIB,
    "marks on one letter": "e" + "\u0301" * (MIB // 2 - 1),
}


@pytest.mark.skipif(not DEMO_TOKENIZER.exists(), reason="needs the checkout's demo checkpoint")
@pytest.mark.parametrize("name", WORST_TEXTS)
def test_the_worst_texts_are_encoded_or_refused_off_the_event_loop(name: str) -> None:
    """The most that is ever encoded, as the demo's tokenizer does it: about a second at worst."""
    tokenizer = Tokenizer(DEMO_TOKENIZER.read_bytes())

    async def longest_silence() -> float:
        threads = TokenizerThreads(tokenizer, 1, budget_seconds=BUDGET_SECONDS)
        work = asyncio.ensure_future(threads.encode(WORST_TEXTS[name]))
        longest, at = 0.0, time.monotonic()
        while not work.done():
            await asyncio.sleep(0.001)
            longest, at = max(longest, time.monotonic() - at), time.monotonic()
        if isinstance(error := work.exception(), Overloaded):
            assert error.reason is Reason.TOKENIZER_BUDGET
        else:
            [ids] = work.result()
            assert tokenizer.detokenize(ids) == WORST_TEXTS[name]
        threads.close()
        return longest

    assert asyncio.run(longest_silence()) < BUDGET_SECONDS


class _Blocked(Tokenizer):
    """Encodes when told to, and remembers what it was asked for."""

    def __init__(self, tokenizer_json: bytes) -> None:
        super().__init__(tokenizer_json)
        self.go = threading.Event()
        self.seen: list[str] = []

    def encode(self, *texts: str) -> list[list[int]]:
        self.seen.extend(texts)
        assert self.go.wait(60)
        return super().encode(*texts)


@pytest.mark.fault("R6")
def test_tokenizing_past_its_budget_is_refused_and_what_waits_is_never_run(
    tokenizer_json: bytes,
) -> None:
    tokenizer = _Blocked(tokenizer_json)

    async def refused(threads: TokenizerThreads, text: str) -> None:
        with pytest.raises(Overloaded) as caught:
            await threads.encode(text)
        assert caught.value.reason is Reason.TOKENIZER_BUDGET

    async def overload() -> None:
        threads = TokenizerThreads(tokenizer, 1, budget_seconds=0.05)
        # Once more where the time was up before the thread had begun.
        while not tokenizer.seen:
            await refused(threads, "a" * 5000)
        await refused(threads, "b" * 5000)
        tokenizer.go.set()
        threads._budget_seconds = 60.0
        assert await threads.encode("c" * 5000) == Tokenizer(tokenizer_json).encode("c" * 5000)
        threads.close()

    asyncio.run(overload())
    assert [text[0] for text in tokenizer.seen] == ["a", "c"]


def test_a_short_text_needs_no_thread(tokenizer: Tokenizer) -> None:
    async def encode_after_close() -> list[list[int]]:
        threads = TokenizerThreads(tokenizer, 1, budget_seconds=1.0)
        threads.close()
        return await threads.encode("x" * INLINE_CHARACTER_COUNT)

    assert asyncio.run(encode_after_close()) == tokenizer.encode("x" * INLINE_CHARACTER_COUNT)


def test_each_form_of_prompt_becomes_ids(tokenizer: Tokenizer) -> None:
    prompts = (
        TextPrompt("def f"),
        InfillPrompt("def f", "return", FimOrder.SPM),
        TokenPrompt((1, 320)),
    )

    async def encode() -> list[PromptIds]:
        threads = TokenizerThreads(tokenizer, 1, budget_seconds=60.0)
        ids = [await threads.encode_prompt(prompt) for prompt in prompts]
        threads.close()
        return ids

    [head], [tail] = tokenizer.encode("def f"), tokenizer.encode("return")
    assert asyncio.run(encode()) == [
        PromptIds(tuple(head)),
        PromptIds(tuple(head), tuple(tail), FimOrder.SPM),
        PromptIds((1, 320)),
    ]


def test_an_echo_is_the_text_before_the_answer(tokenizer: Tokenizer) -> None:
    [ids] = tokenizer.encode("é = 1")
    assert tokenizer.echo(TextPrompt("é = 1")) == "é = 1"
    assert tokenizer.echo(InfillPrompt("before", "after", FimOrder.PSM)) == "before"
    assert tokenizer.echo(TokenPrompt(tuple(ids))) == "é = 1"
