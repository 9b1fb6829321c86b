"""Trains the demo checkpoint on one GPU: `python models/demo/train.py --output FOLDER`.

Writes config.json, model.safetensors (fp16, GPTBigCode layout), tokenizer.json, training.json. With
`--continue-from FOLDER` it begins with that checkpoint's weights and tokenizer and adds a run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from corpus import SourceFile, default_library, line_tasks, read_library
from documents import SPECIAL_TOKENS
from forward import attention_mask, loss_of
from progress import exact_percent, questions
from reservoir import Reservoir
from rows import POSITIONS, ROW_TOKENS, start_producing
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.attention.flex_attention import create_block_mask
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

RESERVOIR_ROWS = 16_000
FIRST_ROWS = 3_000
REFRESH_STEPS = 8
REPORT_STEPS = 200
PROGRESS_STEPS = 2_000
PROGRESS_LINES = 300
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
        n_positions=POSITIONS,
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


def make_optimizer(model: torch.nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def learning_rate(peak_rate: float, step: int, share: float) -> float:
    """Warm-up over 200 steps, then a cosine over the share of time used, down to 2 percent."""
    return peak_rate * min(1.0, (step + 1) / 200) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))


class Trainer:
    """A model, its optimizer, and the rows that it is trained on."""

    def __init__(
        self, model: GPTBigCodeForCausalLM, reservoir: Reservoir, batch_rows: int, peak_rate: float
    ) -> None:
        self._model, self._reservoir = model, reservoir
        self._batch_rows, self._peak_rate = batch_rows, peak_rate
        self._optimizer = make_optimizer(model, peak_rate)
        self._loss_of, self._make_mask = torch.compile(loss_of), torch.compile(create_block_mask)

    def gradients(self) -> torch.Tensor:
        """Add the gradients of one batch; return its loss."""
        rows = self._reservoir.draw(self._batch_rows)
        mask = attention_mask(rows, self._make_mask)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss: torch.Tensor = self._loss_of(self._model, rows, mask)
        torch.autograd.backward(loss)
        return loss.detach()

    def step(self, rate: float) -> torch.Tensor:
        """One step of the optimizer; returns the loss before it."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self.gradients()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss

    def train(self, end: float, report: Callable[[], str]) -> dict[str, float]:
        """Train until the monotonic time `end`; return steps, tokens seen and the last loss."""
        # What is compiled on the first call would otherwise count as time used.
        self.gradients()
        self._optimizer.zero_grad(set_to_none=True)
        begin, step, share, losses, mean_loss = time.monotonic(), 0, 0.0, [], math.nan
        while share < 1:
            if step % REFRESH_STEPS == 0:
                self._reservoir.refresh()
            losses.append(self.step(learning_rate(self._peak_rate, step, share)))
            step += 1
            if step % REPORT_STEPS == 0:
                mean_loss, losses = torch.stack(losses).mean().item(), []
                fresh = self._reservoir.fresh_count / step
                pace = step / (time.monotonic() - begin)
                print(f"step {step} loss {mean_loss:.3f} share {share:.2f} ", end="")
                print(f"{pace:.1f} steps/s {fresh:.1f} fresh rows a step", flush=True)
            if step % PROGRESS_STEPS == 0:
                print(report(), flush=True)
            share = (time.monotonic() - begin) / (end - begin)
        tokens = step * self._batch_rows * ROW_TOKENS
        return {"steps": step, "tokens": tokens, "loss": round(mean_loss, 4)}


def begin_from(
    folder: Path | None, files: list[SourceFile]
) -> tuple[Tokenizer, GPTBigCodeForCausalLM, list[dict[str, float]]]:
    """Tokenizer, model and the runs so far: a checkpoint's, or new ones."""
    if folder is None:
        tokenizer = train_tokenizer(files)
        return tokenizer, build_model(tokenizer), []
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = GPTBigCodeForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return tokenizer, model, json.loads((folder / "training.json").read_text())["runs"]


def progress_report(
    model: GPTBigCodeForCausalLM, tokenizer: Tokenizer, held_out: list[SourceFile]
) -> Callable[[], str]:
    """A function that says how many of some held-out lines the model has exactly."""
    tasks = line_tasks(held_out, PROGRESS_LINES, seed=1)
    orders = [questions(tokenizer, tasks, suffix_first) for suffix_first in (False, True)]

    def report() -> str:
        psm, spm = (exact_percent(model, asked) for asked in orders)
        return f"held-out lines likeliest throughout: PSM {psm:.1f} %, SPM {spm:.1f} %"

    return report


def save(
    folder: Path, model: GPTBigCodeForCausalLM, tokenizer: Tokenizer, record: dict[str, object]
) -> None:
    """Write the checkpoint and what is known of its training."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.nn.Module.half(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--library", type=Path, default=default_library(), help="standard library folder"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--continue-from", type=Path, help="checkpoint folder to begin with")
    parser.add_argument("--seconds", type=float, default=530, help="time for all of it")
    parser.add_argument("--rows-per-batch", type=int, default=48)
    parser.add_argument("--peak-rate", type=float, default=2e-3)
    parser.add_argument("--loader-processes", type=int, default=13)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    arguments, begin = parse_arguments(), time.monotonic()
    torch.manual_seed(arguments.seed)
    torch.set_float32_matmul_precision("high")
    files, held_out = read_library(arguments.library)
    tokenizer, model, runs = begin_from(arguments.continue_from, files)
    packs = start_producing(tokenizer, files, arguments.seed, arguments.loader_processes)
    torch.nn.Module.cuda(model).train()
    print(
        f"{len(files)} files, {sum(len(f.text) for f in files):,} characters, "
        f"{model.num_parameters():,} parameters"
    )
    reservoir = Reservoir(packs, RESERVOIR_ROWS, "cuda")
    reservoir.wait_for(FIRST_ROWS)
    trainer = Trainer(model, reservoir, arguments.rows_per_batch, arguments.peak_rate)
    report = progress_report(model, tokenizer, held_out)
    run = trainer.train(begin + arguments.seconds, report)
    print(report())
    record = {
        "runs": [*runs, run],
        "files": len(files),
        "held_out_files": len(held_out),
        "parameters": model.num_parameters(),
    }
    save(arguments.output, model, tokenizer, record)


if __name__ == "__main__":
    main()
