"""A small byte-level BPE built as SantaCoder's or StarCoder's is; it knows nothing of weights."""

from __future__ import annotations

import functools
from typing import Literal

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

TokenizerFamily = Literal["santacoder", "starcoder", "old"]

BASE_TOKEN_COUNT = 384
SANTACODER_SPECIALS = (
    "<|endoftext|>",
    "<fim-prefix>",
    "<fim-middle>",
    "<fim-suffix>",
    "<fim-pad>",
)
STARCODER_SPECIALS = (
    "<|endoftext|>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<filename>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<empty_output>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    "<reponame>",
)

TRAINING_TEXT = '''
def fibonacci(count):
    """Return the first count numbers of the Fibonacci sequence as a list."""
    numbers = [0, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:count]


class Stack:
    def __init__(self, items=None):
        self.items = list(items or [])

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()


def print_hello(name):
    for index in range(10):
        print(f"Hello {name}, this is greeting number {index}")
    return None


import json
import os

with open(os.path.join("folder", "file.json"), encoding="utf-8") as stream:
    values = json.load(stream)
for key, value in sorted(values.items()):
    print(key, "=", value)
'''


@functools.cache
def tokenizer_json(family: TokenizerFamily = "santacoder") -> bytes:
    """A small byte-level BPE built as SantaCoder's is; "old" is a revision without specials."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_TOKEN_COUNT,
        special_tokens=list(STARCODER_SPECIALS) if family == "starcoder" else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TRAINING_TEXT], trainer)
    if family == "santacoder":
        tokenizer.add_special_tokens(
            [AddedToken(name, special=True, normalized=False) for name in SANTACODER_SPECIALS]
        )
    return tokenizer.to_str().encode()
