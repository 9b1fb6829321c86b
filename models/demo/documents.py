"""Text to training rows: windows of files, many of them with a middle taken out. Knows no model.

Splits are made on characters and the three parts are tokenized apart, as SantaCoder's training did,
so a cursor inside a word is in distribution. Half of the fill-in-the-middle documents are PSM, half
SPM variant 2. In half of the windows some identifiers are renamed throughout, so that a small model
learns to copy names from its context more than to remember the library's.
"""

from __future__ import annotations

import keyword
import random
import re
from dataclasses import dataclass

from corpus import SourceFile
from tokenizers import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
FIM_RATE = 0.8
SPM_RATE = 0.5
WHOLE_LINE_RATE = 0.6
LINE_END_RATE = 0.2
FULL_WINDOW_RATE = 0.35
RENAMED_WINDOW_RATE = 0.5
RENAMED_NAME_RATE = 0.4
LONGEST_MIDDLE_CHARACTERS = 300
CHARACTERS_PER_TOKEN = 3.0
# A middle is some 12 tokens of 500: without a weight, filling in would hardly count in training.
MIDDLE_WEIGHT = 4
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{2,}")


@dataclass(frozen=True, slots=True)
class Document:
    """One training document: plain text in `prefix`, or three parts."""

    prefix: str
    middle: str | None
    suffix: str
    suffix_first: bool


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """Ids, end of text included; the last `middle_length` of them are the middle and its end."""

    ids: list[int]
    middle_length: int


def identifiers(files: list[SourceFile]) -> list[str]:
    """Every identifier of the files once, in order of first use."""
    return list(dict.fromkeys(name for file in files for name in IDENTIFIER.findall(file.text)))


def rename(text: str, names: list[str], rng: random.Random) -> str:
    """`text` with some of its identifiers replaced throughout by others of the corpus."""
    replacements = {
        name: rng.choice(names)
        for name in dict.fromkeys(IDENTIFIER.findall(text))
        if rng.random() < RENAMED_NAME_RATE and not keyword.iskeyword(name) and name != "self"
    }
    return IDENTIFIER.sub(lambda match: replacements.get(match[0], match[0]), text)


def middle_span(text: str, rng: random.Random) -> tuple[int, int]:
    """Where the middle begins and ends: a whole line, the rest of a line, or any short span."""
    draw = rng.random()
    if draw >= WHOLE_LINE_RATE + LINE_END_RATE:
        begin = rng.randrange(len(text))
        return begin, min(len(text), begin + rng.randint(1, LONGEST_MIDDLE_CHARACTERS))
    place = rng.randrange(len(text))
    line_begin = text.rfind("\n", 0, place) + 1
    line_end = text.find("\n", place)
    line_end = len(text) if line_end < 0 else line_end
    return (line_begin if draw < WHOLE_LINE_RATE else place), line_end


def cut_windows(files: list[SourceFile], row_tokens: int, rng: random.Random) -> list[str]:
    """One pass over `files`, each cut at random places into windows of a row or less."""
    longest = int(row_tokens * CHARACTERS_PER_TOKEN)
    windows = []
    for file in files:
        begin = -rng.randrange(longest)
        while begin < len(file.text):
            share = 1.0 if rng.random() < FULL_WINDOW_RATE else rng.uniform(0.05, 0.6)
            window = file.text[max(begin, 0) : begin + int(longest * share)]
            begin += int(longest * share)
            if window.strip():
                windows.append(window)
    rng.shuffle(windows)
    return windows


def make_document(window: str, names: list[str], rng: random.Random) -> Document:
    """The window as a document: perhaps renamed, perhaps with its middle taken out."""
    if rng.random() < RENAMED_WINDOW_RATE:
        window = rename(window, names, rng)
    if rng.random() >= FIM_RATE:
        return Document(window, None, "", False)
    first, last = middle_span(window, rng)
    parts = window[:first], window[first:last], window[last:]
    return Document(*parts, suffix_first=rng.random() < SPM_RATE)


def special_ids(tokenizer: Tokenizer) -> tuple[int, int, int, int]:
    """Ids of end of text, fim-prefix, fim-middle and fim-suffix."""
    vocabulary = tokenizer.get_vocab()
    end, prefix, middle, suffix = (vocabulary[token] for token in SPECIAL_TOKENS[:4])
    return end, prefix, middle, suffix


def encode_documents(
    tokenizer: Tokenizer, documents: list[Document], row_tokens: int
) -> list[EncodedDocument]:
    """Each document's ids, at most `row_tokens`; one with too long a middle is left out.

    What is too long loses the start of its prefix and the end of its suffix.
    """
    end, fim_prefix, fim_middle, fim_suffix = special_ids(tokenizer)

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]

    prefixes = encode([document.prefix for document in documents])
    middles = encode([document.middle or "" for document in documents])
    suffixes = encode([document.suffix for document in documents])
    encoded = []
    for document, prefix, middle, suffix in zip(
        documents, prefixes, middles, suffixes, strict=True
    ):
        if document.middle is None:
            encoded.append(EncodedDocument([*prefix[: row_tokens - 1], end], 0))
            continue
        room = row_tokens - 4 - len(middle)
        if room < 0:
            continue
        suffix = suffix[: max(room // 3, room - len(prefix))]
        prefix = prefix[max(0, len(prefix) - (room - len(suffix))) :]
        if document.suffix_first:
            ids = [fim_prefix, fim_suffix, *suffix, fim_middle, *prefix, *middle, end]
        else:
            ids = [fim_prefix, *prefix, fim_suffix, *suffix, fim_middle, *middle, end]
        encoded.append(EncodedDocument(ids, len(middle) + 1))
    return encoded


def pack(documents: list[EncodedDocument], row_tokens: int) -> list[tuple[list[int], list[int]]]:
    """(ids, weights) rows of `row_tokens`: whole documents, first fit among the last few rows.

    Padding at a row's end has weight 0, a middle `MIDDLE_WEIGHT`, all else 1.
    """
    finished: list[tuple[list[int], list[int]]] = []
    open_rows: list[tuple[list[int], list[int]]] = []
    for document in documents:
        length = len(document.ids)
        fitting = (row for row in open_rows if len(row[0]) + length <= row_tokens)
        row = next(fitting, None)
        if row is None:
            row = ([], [])
            open_rows.append(row)
        row[0].extend(document.ids)
        row[1].extend([1] * (length - document.middle_length))
        row[1].extend([MIDDLE_WEIGHT] * document.middle_length)
        if len(open_rows) > 64:
            finished.append(open_rows.pop(0))
    for ids, weights in (rows := finished + open_rows):
        weights.extend([0] * (row_tokens - len(ids)))
        ids.extend([0] * (row_tokens - len(ids)))
    return rows
