"""Trains the demo checkpoint on one GPU: `python models/demo/train.py --output FOLDER`.

Writes config.json, model.safetensors (fp16, GPTBigCode layout), tokenizer.json, training.json.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from corpus import SourceFile, default_library, read_library
from documents import (
    SPECIAL_TOKENS,
    cut_windows,
    encode_documents,
    identifiers,
    make_document,
    pack,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

ROW_TOKENS = 1024
LOADER_WORKERS = 14
FILES_PER_DRAW = 80
BASE_VOCABULARY = 5_060
# Padded as SantaCoder's is: ids past the tokenizer's length have weights and are never sampled.
PADDED_VOCABULARY = 5_120


def train_tokenizer(files: list[SourceFile]) -> Tokenizer:
    """Byte-level BPE with SantaCoder's pre-tokenizer (every digit alone) and its five specials."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((file.text for file in files), trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def build_model(tokenizer: Tokenizer) -> GPTBigCodeForCausalLM:
    """SantaCoder's architecture, small: 9 layers of width 256, 4 query heads, one K and V head."""
    end = tokenizer.token_to_id(SPECIAL_TOKENS[0])
    config = GPTBigCodeConfig(
        vocab_size=PADDED_VOCABULARY,
        n_positions=ROW_TOKENS,
        n_embd=256,
        n_layer=9,
        n_head=4,
        n_inner=1024,
        multi_query=True,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPTBigCodeForCausalLM(config)


class Rows(IterableDataset[torch.Tensor]):
    """Ids and weights [2, ROW_TOKENS] without end: files drawn anew, cut anew each time.

    Every worker draws its own few files at a time, so that rows come steadily and no worker's long
    preparation lets the GPU wait.
    """

    def __init__(self, tokenizer: Tokenizer, files: list[SourceFile], seed: int) -> None:
        self._tokenizer, self._files, self._seed = tokenizer, files, seed

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        names, files = identifiers(self._files), list(self._files)
        rng = random.Random(self._seed * 1_000_003 + (worker.id if worker else 0))
        while True:
            rng.shuffle(files)
            for begin in range(0, len(files), FILES_PER_DRAW):
                windows = cut_windows(files[begin : begin + FILES_PER_DRAW], ROW_TOKENS, rng)
                documents = [make_document(window, names, rng) for window in windows]
                rows = pack(encode_documents(self._tokenizer, documents, ROW_TOKENS), ROW_TOKENS)
                rng.shuffle(rows)
                yield from torch.tensor(rows, dtype=torch.int16)


def loss_of(model: Callable[..., Any], batch: torch.Tensor) -> torch.Tensor:
    """Weighted mean of next-token cross entropy over a batch [rows, 2, ROW_TOKENS]."""
    ids, weights = batch[:, 0].long(), batch[:, 1, 1:].float()
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    return (losses * weights.flatten()).sum() / weights.sum()


def make_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def learning_rate(peak_rate: float, step: int, share: float) -> float:
    """Warm-up over 200 steps, then a cosine over the share of time used, down to 2 percent."""
    return peak_rate * min(1.0, (step + 1) / 200) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))


def train(
    model: GPTBigCodeForCausalLM, rows: Rows, end: float, rows_per_batch: int, peak_rate: float
) -> dict[str, float]:
    """Train until the monotonic time `end`; return steps, tokens seen and the last loss."""
    optimizer, compiled = make_optimizer(model, peak_rate), torch.compile(model)
    loader = DataLoader(
        rows, rows_per_batch, num_workers=LOADER_WORKERS, prefetch_factor=16, pin_memory=True
    )
    begin, last_loss = time.monotonic(), math.nan
    for step, batch in enumerate(loader):
        share = (time.monotonic() - begin) / (end - begin)
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(peak_rate, step, share)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = loss_of(compiled, batch.cuda(non_blocking=True))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 200 == 0:
            last_loss = loss.item()
            print(f"step {step} loss {last_loss:.3f} share {share:.2f}", flush=True)
    return {"steps": step, "tokens": step * rows_per_batch * ROW_TOKENS, "loss": last_loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--library", type=Path, default=default_library(), help="standard library folder"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=530, help="time for all of it")
    parser.add_argument("--rows-per-batch", type=int, default=96)
    parser.add_argument("--peak-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    arguments, begin = parser.parse_args(), time.monotonic()
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    files, held_out = read_library(arguments.library)
    tokenizer = train_tokenizer(files)
    model = build_model(tokenizer)
    torch.nn.Module.cuda(model).train()
    print(
        f"{len(files)} files, {sum(len(f.text) for f in files):,} characters, "
        f"{model.num_parameters():,} parameters"
    )
    figures = train(
        model,
        Rows(tokenizer, files, arguments.seed),
        begin + arguments.seconds,
        arguments.rows_per_batch,
        arguments.peak_rate,
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.nn.Module.half(model)
    model.save_pretrained(arguments.output)
    tokenizer.save(str(arguments.output / "tokenizer.json"))
    record = {
        **figures,
        "files": len(files),
        "held_out_files": len(held_out),
        "parameters": model.num_parameters(),
    }
    (arguments.output / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
