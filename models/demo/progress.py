"""Exact match while training: is every id of a held-out line the likeliest, and its end too?

Each id is judged given all before it, in one pass, so no text is generated. What is counted here
counts for greedy generation too, which also takes a line that goes on with a newline for right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from corpus import LineTask
from documents import special_ids
from evaluate import MAX_NEW_TOKENS, infill_ids
from rows import POSITIONS
from tokenizers import Tokenizer
from transformers import GPTBigCodeForCausalLM

BATCH_TASKS = 16


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with its answer; the last `answer_length` ids are the line and its end."""

    ids: list[int]
    answer_length: int


def questions(tokenizer: Tokenizer, tasks: list[LineTask], suffix_first: bool) -> list[Question]:
    """The tasks as evaluate.py asks them; longer lines than it generates are cut."""
    found, end = [], special_ids(tokenizer)[0]
    for task in tasks:
        answer = [*tokenizer.encode(task.line).ids, end][:MAX_NEW_TOKENS]
        prompt = infill_ids(tokenizer, task, POSITIONS - MAX_NEW_TOKENS, suffix_first)
        found.append(Question(prompt + answer, len(answer)))
    return found


def exact_percent(model: GPTBigCodeForCausalLM, asked: list[Question]) -> float:
    """How many of the questions are answered by the likeliest ids alone."""
    right = 0
    model.train(False)
    with torch.no_grad(), torch.autocast(model.device.type, dtype=torch.bfloat16):
        for begin in range(0, len(asked), BATCH_TASKS):
            batch = asked[begin : begin + BATCH_TASKS]
            rows = torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(question.ids) for question in batch], batch_first=True
            ).to(model.device)
            likeliest = model(input_ids=rows, use_cache=False).logits.argmax(dim=2)
            for row, guess, question in zip(rows, likeliest, batch, strict=True):
                last = len(question.ids)
                first = last - question.answer_length
                right += bool(torch.equal(row[first:last], guess[first - 1 : last - 1]))
    model.train()
    return 100 * right / len(asked)
