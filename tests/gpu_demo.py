"""The demo checkpoint as a model, and prompts from files that it was not trained on."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.model import SantaCoder
from santacoder_shard.weights import load_model

DEMO = Path(__file__).parents[1] / "models" / "demo"
LONGEST_PROMPT = 256


def demo_folder() -> Path:
    """Where it lies in a checkout."""
    return DEMO / "checkpoint"


def demo_model(device: torch.device, dtype: torch.dtype) -> SantaCoder:
    """Loaded as the shard loads it."""
    folder = demo_folder()
    return load_model(open_checkpoint(folder, folder.name, ""), 0, 1, dtype, device)


def demo_token_count() -> int:
    """How many ids exist."""
    folder = demo_folder()
    return open_checkpoint(folder, folder.name, "").token_count


def held_out_prompts(count: int, seed: int) -> list[list[int]]:
    """What stands before a line of a held-out file, cut to its end."""
    sys.path.append(str(DEMO))
    try:
        import corpus
    finally:
        sys.path.remove(str(DEMO))
    _, held_out = corpus.read_library(corpus.default_library())
    tokenizer = Tokenizer.from_file(str(demo_folder() / "tokenizer.json"))
    # A first line has nothing before it.
    tasks = [task for task in corpus.line_tasks(held_out, 2 * count, seed) if task.prefix]
    return [tokenizer.encode(task.prefix[-4000:]).ids[-LONGEST_PROMPT:] for task in tasks[:count]]
