"""What transformers says on a checkpoint folder: the judge of greedy ids."""

from __future__ import annotations

from pathlib import Path

import torch
from checkpoints import oracle
from tokenizers import Tokenizer


@torch.inference_mode()
def greedy_ids(folder: Path, prompt: list[int], count: int) -> list[int]:
    """`count` ids in fp32; rows of the embedding that no id of the tokenizer names are left out."""
    model = oracle(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    dummies = range(tokenizer.get_vocab_size(), model.config.vocab_size)
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=count,
        do_sample=False,
        suppress_tokens=list(dummies),
    )
    return [int(token_id) for token_id in output[0, len(prompt) :]]
