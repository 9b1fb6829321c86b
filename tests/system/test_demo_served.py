"""Without --model the demo is served, and says what transformers says from the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running_service import serving
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from santacoder_client import Client

CHECKPOINT = Path(__file__).parents[2] / "models" / "demo" / "checkpoint"
SPECIALS = ("<|endoftext|>", "<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>")
PREFIX = "class Point:\n    def __init__(self, x, y):\n        self.x = x\n"
SUFFIX = '\n    def __repr__(self):\n        return f"Point({self.x}, {self.y})"\n'
NEW_TOKEN_COUNT = 32


@pytest.fixture(scope="module")
def demo(run_folders: Path) -> Iterator[Client]:
    with serving(None, run_folders) as service, Client(service.target) as client:
        yield client
        service.stop()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))


@pytest.fixture(scope="module")
def judge() -> Any:
    """Read by transformers' own loader, as any tool would."""
    model: Any = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    return model.eval()


@torch.inference_mode()
def judge_text(judge: Any, tokenizer: Tokenizer, prompt: list[int]) -> str:
    """Greedy, until a special token."""
    specials = [tokenizer.token_to_id(name) for name in SPECIALS]
    output = judge.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=NEW_TOKEN_COUNT,
        do_sample=False,
        eos_token_id=specials,
        pad_token_id=specials[0],
        suppress_tokens=list(range(tokenizer.get_vocab_size(), judge.config.vocab_size)),
    )
    ids = [int(token_id) for token_id in output[0, len(prompt) :]]
    text: str = tokenizer.decode([token_id for token_id in ids if token_id not in specials])
    return text


def test_the_demo_completes_as_transformers_does(
    demo: Client, judge: Any, tokenizer: Tokenizer
) -> None:
    assert demo.model().name == "santacoder-demo"
    text = demo.complete(PREFIX, max_new_tokens=NEW_TOKEN_COUNT).text
    assert text == judge_text(judge, tokenizer, tokenizer.encode(PREFIX).ids)
    assert "(self)" in text


@pytest.mark.parametrize("order", ["psm", "spm"])
def test_the_demo_fills_in_as_transformers_does(
    demo: Client, judge: Any, tokenizer: Tokenizer, order: str
) -> None:
    prefix, suffix = (tokenizer.encode(text).ids for text in (PREFIX, SUFFIX))
    ids = tokenizer.get_vocab()
    first, middle, last = (ids[name] for name in SPECIALS[1:4])
    prompt = {
        "psm": [first, *prefix, last, *suffix, middle],
        "spm": [first, last, *suffix, middle, *prefix],
    }[order]
    done = demo.infill(PREFIX, SUFFIX, fim_order=order, max_new_tokens=NEW_TOKEN_COUNT)
    assert done.text == judge_text(judge, tokenizer, prompt)
    assert done.text.strip()
