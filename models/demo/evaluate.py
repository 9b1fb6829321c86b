"""Measures a checkpoint on held-out files: `python models/demo/evaluate.py [--checkpoint FOLDER]`.

Prints, from one run: loss a token and bits a byte, single-line infill exact match in both orders,
and the same for a baseline that copies the previous line. A line counts if the first generated
line, stripped, equals the line that was taken out, stripped. transformers generates, so the serving
code is not its own judge.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from corpus import LineTask, SourceFile, default_library, line_tasks, read_library
from documents import special_ids
from tokenizers import Tokenizer
from transformers import GPTBigCodeForCausalLM

SUFFIX_TOKENS = 256
MAX_NEW_TOKENS = 64


def held_out_loss(
    model: GPTBigCodeForCausalLM, tokenizer: Tokenizer, files: list[SourceFile], windows: int
) -> tuple[float, float]:
    """(nats a token, bits a byte) over the first `windows` full windows, left to right."""
    length, nats, tokens, text_bytes = model.config.n_positions, 0.0, 0, 0
    for file in files:
        ids = tokenizer.encode(file.text).ids
        for begin in range(0, len(ids) - length, length):
            if tokens // (length - 1) >= windows:
                break
            row = torch.tensor([ids[begin : begin + length]], device=model.device)
            nats += model(input_ids=row, labels=row).loss.item() * (length - 1)
            tokens += length - 1
            text_bytes += len(tokenizer.decode(ids[begin + 1 : begin + length]).encode())
    return nats / tokens, nats / math.log(2) / text_bytes


def infill_ids(tokenizer: Tokenizer, task: LineTask, room: int, suffix_first: bool) -> list[int]:
    """The prompt's ids, the suffix cut to its start and the prefix to its end."""
    _, prefix, middle, suffix = special_ids(tokenizer)
    after = tokenizer.encode(task.suffix[:4000]).ids[:SUFFIX_TOKENS]
    before = tokenizer.encode(task.prefix[-8000:]).ids[-(room - 3 - len(after)) :]
    if suffix_first:
        return [prefix, suffix, *after, middle, *before]
    return [prefix, *before, suffix, *after, middle]


def line_end_ids(tokenizer: Tokenizer) -> list[int]:
    """Every token with a newline in it, and the end of text: what follows is not the first line."""
    ids = range(tokenizer.get_vocab_size())
    return [special_ids(tokenizer)[0], *(i for i in ids if "\n" in tokenizer.decode([i]))]


def generate_line(
    model: GPTBigCodeForCausalLM,
    tokenizer: Tokenizer,
    task: LineTask,
    suffix_first: bool,
    stop_ids: list[int],
) -> str:
    """The first line that the model puts in the gap, greedily."""
    ids = infill_ids(tokenizer, task, model.config.n_positions - MAX_NEW_TOKENS, suffix_first)
    row = torch.tensor([ids], device=model.device)
    answer = model.generate(  # type: ignore[misc]  # its mixin annotates self by a protocol
        input_ids=row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        eos_token_id=stop_ids,
        pad_token_id=model.config.eos_token_id,
    )
    text = tokenizer.decode(answer[0, len(ids) :].tolist(), skip_special_tokens=True)
    return text.split("\n")[0]


def previous_line(task: LineTask) -> str:
    """The baseline: the nearest line before that is not blank."""
    return next((line for line in reversed(task.prefix.split("\n")) if line.strip()), "")


def exact_match_percent(tasks: list[LineTask], answer: Callable[[LineTask], str]) -> float:
    return 100 * sum(answer(task).strip() == task.line.strip() for task in tasks) / len(tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument(
        "--library", type=Path, default=default_library(), help="standard library folder"
    )
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json"))
    model = GPTBigCodeForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    model.train(False).to(arguments.device)
    held_out = read_library(arguments.library)[1]
    tasks, stop_ids = line_tasks(held_out, arguments.lines, seed=0), line_end_ids(tokenizer)

    def infilled(suffix_first: bool) -> Callable[[LineTask], str]:
        return lambda task: generate_line(model, tokenizer, task, suffix_first, stop_ids)

    with torch.inference_mode():
        loss, bits = held_out_loss(model, tokenizer, held_out, arguments.windows)
        psm = exact_match_percent(tasks, infilled(suffix_first=False))
        spm = exact_match_percent(tasks, infilled(suffix_first=True))
    figures = {
        "held_out_files": len(held_out),
        "loss_nats_per_token": round(loss, 3),
        "bits_per_byte": round(bits, 3),
        "lines": len(tasks),
        "infill_exact_match_psm_percent": round(psm, 1),
        "infill_exact_match_spm_percent": round(spm, 1),
        "copy_previous_line_percent": round(exact_match_percent(tasks, previous_line), 1),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
