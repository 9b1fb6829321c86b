"""What is asked for: prompts of all lengths, every kind of sampling, stops, choices, log probs."""

from __future__ import annotations

from pathlib import Path

from faults.load import Case
from system.cases import OPTIONS, prompt_ids

from santacoder_client import CompletionOptions

TEXTS = ("def fib(n):", "import os\n\n\nclass ", "é☃ = {", "for x in range(", "# a comment\n", "x")


def cases_of(model: Path | None) -> list[Case]:
    """For a real checkpoint texts, for one of random weights ids."""
    prompts: list[str | list[int]]
    prompts = list(TEXTS) if model else [prompt_ids(n, 3 + 37 * n) for n in range(len(TEXTS))]
    kinds = list(OPTIONS.values())
    cases = [
        Case(prompt, kinds[place % len(kinds)] | CompletionOptions(max_new_tokens=8 + 8 * place))
        for place, prompt in enumerate(prompts)
    ]
    first, second = prompts[:2]
    more = CompletionOptions(max_new_tokens=24, ignore_eos=True)
    return [
        *cases,
        Case(first, more | CompletionOptions(logprobs=3)),
        Case(second, more | CompletionOptions(completion_count=3, temperature=0.8, seed=5)),
        Case(first, more | CompletionOptions(stop=["e", "\n"], echo=True)),
        Case(second, CompletionOptions(max_new_tokens=200, ignore_eos=True, priority="low")),
    ]
