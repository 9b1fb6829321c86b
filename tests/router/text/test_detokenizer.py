"""The text of a choice is whole, whatever its ids and however they come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from santacoder_router.core.plan import TokenLogprobs
from santacoder_router.text.detokenizer import ChoiceText, Piece, Utf8Stream
from santacoder_router.text.stop_strings import StopStrings
from santacoder_router.text.tokenizer import Tokenizer

ANY_BYTES = st.lists(st.binary(max_size=5), max_size=20)


class _Table:
    """Ids whose bytes are given, so that any bytes can be cut into tokens anywhere."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._tokens = tokens

    def token_bytes(self, token_id: int) -> bytes:
        return self._tokens[token_id]

    def joined_bytes(self, token_ids: Sequence[int]) -> bytes:
        return b"".join(self._tokens[token_id] for token_id in token_ids)


def _joined(pieces: Sequence[Piece]) -> Piece:
    matched = [piece.matched_stop for piece in pieces if piece.matched_stop is not None]
    assert len(matched) <= 1
    return Piece(
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(i for piece in pieces for i in piece.token_ids),
        logprobs=tuple(entry for piece in pieces for entry in piece.logprobs),
        matched_stop=matched[0] if matched else None,
    )


def _run(tokens: Sequence[bytes], stop: Sequence[str], batches: Sequence[Sequence[int]]) -> Piece:
    choice = ChoiceText(_Table(tokens), StopStrings(stop))
    pieces = [choice.push(ids, [TokenLogprobs(-float(i), ()) for i in ids]) for ids in batches]
    return _joined([*pieces, choice.finish()])


@given(chunks=ANY_BYTES)
def test_pieces_joined_are_python_s_decode_of_the_whole(chunks: list[bytes]) -> None:
    stream = Utf8Stream()
    text = "".join(stream.push(chunk) for chunk in chunks) + stream.finish()
    assert text == b"".join(chunks).decode("utf-8", errors="replace")


@given(text=st.text(alphabet=st.characters(exclude_characters="\ufffd", codec="utf-8")))
def test_a_character_is_never_split(text: str) -> None:
    stream = Utf8Stream()
    known = ""
    for byte in text.encode():
        known += stream.push(bytes([byte]))
        assert text.startswith(known)
    assert known == text
    assert stream.finish() == ""


def test_a_character_appears_with_its_last_byte_and_a_bad_byte_as_soon_as_it_is_certain() -> None:
    stream = Utf8Stream()
    assert [stream.push(bytes([byte])) for byte in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    assert [stream.push(b"\xff"), stream.push(b"\xf0\x9f"), stream.push(b"a")] == [
        "\ufffd",
        "",
        "\ufffda",
    ]


@given(text=st.text(), cuts=st.lists(st.integers(1, 7)))
def test_streams_of_real_ids_keep_every_character(
    tokenizer: Tokenizer, text: str, cuts: list[int]
) -> None:
    [ids] = tokenizer.encode(text)
    choice = ChoiceText(tokenizer, StopStrings([]))
    pieces = []
    while ids:
        count = cuts.pop() if cuts else 1
        pieces.append(choice.push(ids[:count]))
        ids = ids[count:]
    assert "".join(piece.text for piece in pieces) + choice.finish().text == text


@given(
    tokens=st.lists(st.sampled_from([b"a", b"b", b"ab", b"\xc3", b"\xa9", b""]), max_size=20),
    stop=st.lists(st.sampled_from(["aa", "bab", "é", "\ufffd", "b\ufffd", "aé"]), max_size=3),
    data=st.data(),
)
def test_how_ids_are_batched_changes_nothing(
    tokens: list[bytes], stop: list[str], data: st.DataObject
) -> None:
    ids = list(range(len(tokens)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)))))
    edges = [0, *cuts, len(ids)]
    batches = [ids[a:b] for a, b in pairwise(edges)]
    whole = _run(tokens, stop, [ids])
    assert _run(tokens, stop, batches) == whole
    assert _run(tokens, stop, [[i] for i in ids]) == whole


@given(
    tokens=st.lists(st.sampled_from([b"a", b"b", b"ab", b"\xc3", b"\xa9"]), max_size=20),
    stop=st.lists(st.sampled_from(["aa", "bab", "é", "\ufffd", "aé"]), max_size=3),
)
def test_the_text_ends_before_the_first_stop_string_and_the_ids_with_it(
    tokens: list[bytes], stop: list[str]
) -> None:
    text = b"".join(tokens).decode("utf-8", errors="replace")
    ends = [(end, s) for end in range(len(text) + 1) for s in stop if text[:end].endswith(s)]
    answer = _run(tokens, stop, [list(range(len(tokens)))])
    if not ends:
        assert (answer.text, answer.matched_stop) == (text, None)
        assert len(answer.token_ids) == len(tokens)
        return
    end = ends[0][0]
    winner = max((s for e, s in ends if e == end), key=len)
    assert (answer.text, answer.matched_stop) == (text[: end - len(winner)], winner)
    assert len(answer.token_ids) == _tokens_until(tokens, end)


def _tokens_until(tokens: Sequence[bytes], character_count: int) -> int:
    """How many tokens it takes to know so many characters; all, if only the end tells."""
    stream = Utf8Stream()
    known = 0
    for count, token in enumerate(tokens, start=1):
        known += len(stream.push(token))
        if known >= character_count:
            return count
    return len(tokens)


def test_ids_go_out_at_once_while_their_text_is_held_back() -> None:
    choice = ChoiceText(_Table([b"x", b"\n", b"\ny"]), StopStrings(["\n\nz"]))
    assert choice.push([0, 1]) == Piece(text="x", token_ids=(0, 1))
    assert choice.push([2]) == Piece(text="\n\ny", token_ids=(2,))


def test_a_stop_string_over_a_token_border_keeps_the_id_that_completed_it() -> None:
    choice = ChoiceText(_Table([b"x = 1\n", b"\ndef", b" f"]), StopStrings(["\n\n"]))
    logprobs = [TokenLogprobs(-1.0, ()), TokenLogprobs(-2.0, ()), TokenLogprobs(-3.0, ())]
    piece = choice.push([0, 1, 2], logprobs)
    assert piece == Piece("x = 1", (0, 1), tuple(logprobs[:2]), matched_stop="\n\n")
    assert choice.stopped


def test_after_a_stop_string_nothing_more_comes() -> None:
    choice = ChoiceText(_Table([b"!", b"a"]), StopStrings(["!"]))
    assert choice.push([0]).matched_stop == "!"
    assert choice.push([1]) == Piece()
    assert choice.finish() == Piece()


def test_finish_lets_go_of_a_half_stop_string_and_a_half_character() -> None:
    choice = ChoiceText(_Table([b"a\n", b"\xe2\x82"]), StopStrings(["\n\n"]))
    assert choice.push([0, 1]).text == "a"
    assert choice.finish() == Piece(text="\n\ufffd")
