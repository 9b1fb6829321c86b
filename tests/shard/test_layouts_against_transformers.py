"""Every layout computes what transformers computes from the same file: logits and greedy ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from checkpoints import LAYOUTS, Layout, gpt2_oracle, make_checkpoint, oracle

from santacoder_shard.checkpoint import Checkpoint, open_checkpoint
from santacoder_shard.engine import Engine, EngineConfig
from santacoder_shard.inputs import Chunk, build_inputs
from santacoder_shard.kv_cache import BLOCK_SIZE, KVCache
from santacoder_shard.model import SantaCoder
from santacoder_shard.parallel import Parallel
from santacoder_shard.step import Admit, BlockGrant, Plan, Row, SamplingParameters, StepOutcome
from santacoder_shard.weights import load_model

PROMPT_LENGTH = 21
NEW_TOKEN_COUNT = 64
BLOCK_COUNT = 8
CPU = torch.device("cpu")
VARIANTS: list[tuple[int, Literal["safetensors", "bin"]]] = [
    (1, "safetensors"),
    (2, "safetensors"),
    (1, "bin"),
    (2, "bin"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model loses time to a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prompt_ids(seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(number) for number in torch.randint(0, 384, (PROMPT_LENGTH,), generator=generator)]


def load(checkpoint: Checkpoint) -> SantaCoder:
    return load_model(checkpoint, 0, 1, torch.float32, CPU)


@torch.inference_mode()
def all_logits(checkpoint: Checkpoint, token_ids: list[int]) -> torch.Tensor:
    """Logits [tokens, vocabulary] of one forward step over `token_ids`."""
    model = load(checkpoint)
    model.pack()
    cache = KVCache(checkpoint.geometry, 1, BLOCK_COUNT, torch.float32, CPU)
    tables = torch.arange(BLOCK_COUNT).unsqueeze(0)
    inputs = build_inputs([Chunk(0, token_ids, 0, sample=True)], tables)
    # Every row is asked for, not the last alone.
    every_row = inputs._replace(sample_rows=torch.arange(len(token_ids)))
    logits = model(every_row, cache, Parallel())
    assert isinstance(logits, torch.Tensor)
    return logits


def greedy_ids(checkpoint: Checkpoint, prompt: list[int]) -> list[int]:
    """What the engine generates: one plan for the prompt, one lease for the rest."""
    config = EngineConfig(
        slot_count=1,
        block_count=BLOCK_COUNT,
        blocks_per_sequence=BLOCK_COUNT,
        tokens_per_step=512,
        token_count=checkpoint.token_count,
        end_of_text_id=checkpoint.end_of_text_id,
        sentinel_ids=checkpoint.sentinel_ids,
    )
    engine = Engine(load(checkpoint), Parallel(), config)
    admit = Admit(
        sequence=1,
        generation=1,
        slot=0,
        token_ids=tuple(prompt),
        prompt_length=len(prompt),
        computed_length=0,
        sampling=SamplingParameters(),
        remaining_min_tokens=0,
        remaining_max_tokens=NEW_TOKEN_COUNT,
        ignore_eos=True,
        stop_ids=(),
        logit_bias=(),
        logprob_count=None,
    )
    limit = BLOCK_COUNT * BLOCK_SIZE
    grant = BlockGrant(0, 0, tuple(range(BLOCK_COUNT)))
    prefill = Row(0, len(prompt), sample=True, kv_token_limit=limit)
    decode = Row(0, 1, sample=True, kv_token_limit=limit)
    plans = (
        Plan(1, (), (admit,), (grant,), (), (prefill,), 1, 0.0, False, 60.0),
        Plan(2, (), (), (), (), (decode,), NEW_TOKEN_COUNT - 1, 0.0, False, 60.0),
    )
    outcomes: list[StepOutcome] = []
    for plan in plans:
        engine.run(plan, outcomes.append, lambda: False)
    return [token_id for outcome in outcomes for token_id in outcome.rows[0].token_ids]


@torch.inference_mode()
def judge_ids(judge: Any, checkpoint: Checkpoint, prompt: list[int]) -> list[int]:
    dummies = list(range(checkpoint.token_count, checkpoint.geometry.vocabulary_size))
    output = judge.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=NEW_TOKEN_COUNT,
        do_sample=False,
        suppress_tokens=dummies,
    )
    return [int(token_id) for token_id in output[0, len(prompt) :]]


@pytest.mark.parametrize(("shards", "file_format"), VARIANTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_and_64_greedy_ids_equal_those_of_transformers(
    tmp_path: Path, layout: Layout, shards: int, file_format: Literal["safetensors", "bin"]
) -> None:
    folder = make_checkpoint(tmp_path / "m", layout, shards=shards, file_format=file_format)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.layout.letter == layout
    prompt = prompt_ids(seed=7)
    judge = oracle(folder)
    with torch.inference_mode():
        expected = judge(torch.tensor([prompt])).logits[0]
    assert (all_logits(checkpoint, prompt) - expected).abs().max() < 1e-4
    ids = greedy_ids(checkpoint, prompt)
    assert ids == judge_ids(judge, checkpoint, prompt)
    assert len(ids) == NEW_TOKEN_COUNT
    # A model that repeats one id would hide most faults.
    assert len(set(ids)) > 5


def test_the_mha_branch_equals_plain_gpt2(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m", "a'", seed=3)
    prompt = prompt_ids(seed=8)
    with torch.inference_mode():
        expected = gpt2_oracle(folder)(torch.tensor([prompt])).logits[0]
    assert (all_logits(open_checkpoint(folder), prompt) - expected).abs().max() < 1e-4


def test_the_order_of_multi_head_rows_changes_the_answer(tmp_path: Path) -> None:
    """Read as blocks, interleaved rows give other logits: the trap that shapes cannot show."""
    folder = make_checkpoint(tmp_path / "m", "b'")
    prompt = prompt_ids(seed=9)
    right = all_logits(open_checkpoint(folder), prompt)
    config = (folder / "config.json").read_text().replace("gpt_bigcode", "gpt2")
    (folder / "config.json").write_text(config)
    wrong = all_logits(open_checkpoint(folder), prompt)
    assert (wrong - right).abs().max() > 0.1


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
def test_the_config_says_which_gelu(tmp_path: Path, activation: str) -> None:
    folder = make_checkpoint(tmp_path / "m", "b", activation=activation, layers=4)
    prompt = prompt_ids(seed=10)
    with torch.inference_mode():
        expected = oracle(folder)(torch.tensor([prompt])).logits[0]
    assert (all_logits(open_checkpoint(folder), prompt) - expected).abs().max() < 1e-5
