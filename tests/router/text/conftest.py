"""A small byte-level BPE in SantaCoder's form, made without a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from santacoder_router.text.tokenizer import Tokenizer

HYPHENS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
UNDERSCORES = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
SOURCE = "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n" * 8

MakeTokenizerJson = Callable[..., bytes]


def _make(specials: tuple[str, ...] = HYPHENS, *, in_vocabulary: bool = False) -> bytes:
    """`in_vocabulary` puts the specials at ids 0 and up, as StarCoder has them."""
    tokenizer = LibraryTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(specials) if in_vocabulary else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator([SOURCE], trainer)
    if not in_vocabulary:
        tokenizer.add_special_tokens(list(specials))
    return tokenizer.to_str().encode()


@pytest.fixture(scope="session")
def make_tokenizer_json() -> MakeTokenizerJson:
    return _make


@pytest.fixture(scope="session")
def tokenizer_json() -> bytes:
    return _make()


@pytest.fixture(scope="session")
def tokenizer(tokenizer_json: bytes) -> Tokenizer:
    return Tokenizer(tokenizer_json)


@pytest.fixture(scope="session")
def byte_ids(tokenizer_json: bytes) -> list[int]:
    """The id of each byte, from the file and the library's own alphabet."""
    vocabulary = json.loads(tokenizer_json)["model"]["vocab"]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = [s for s in symbols if ord(s) < 256]
    ids = {ord(symbol): vocabulary[symbol] for symbol in printable}
    others = [byte for byte in range(256) if byte not in ids]
    ids |= {byte: vocabulary[chr(256 + place)] for place, byte in enumerate(others)}
    return [ids[byte] for byte in range(256)]
