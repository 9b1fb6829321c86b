"""Two GPUs give the ids of one, alone and in a crowd."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint
from running_service import Service, serving
from system.cases import OPTIONS, complete, prompt_ids

from santacoder_client import Client

PROMPT_COUNT = 24


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # A short path, as sockets need.
    folder = Path(tempfile.mkdtemp(prefix="st-"))
    yield folder
    shutil.rmtree(folder)


def answers(target: str) -> list[list[int]]:
    """Of every kind of request, all at once."""
    prompts = [prompt_ids(number, 1 + 40 * number) for number in range(PROMPT_COUNT)]
    kinds = list(OPTIONS.values()) * (PROMPT_COUNT // len(OPTIONS))
    with Client(target) as client, ThreadPoolExecutor(PROMPT_COUNT) as pool:
        done = pool.map(lambda case: complete(client, *case), zip(prompts, kinds, strict=True))
        return [list(completion.token_ids) for completion in done]


@pytest.mark.two_gpus
@pytest.mark.parametrize("layout", ["b", "b'"], ids=["multi_query", "multi_head"])
def test_two_ranks_give_the_ids_of_one(folder: Path, layout: str) -> None:
    sizes = {"positions": 2048, "embd": 256, "layers": 4}
    name = "mqa" if layout == "b" else "mha"
    model = make_checkpoint(folder / name, layout, dtype=torch.float16, **sizes)  # type: ignore[arg-type]
    with serving(model, folder, "--device=cuda") as service:
        one = answers(service.target)
        service.stop()
    two_ranks = Service(model, folder, "--device=cuda", "--tp=2")
    try:
        two_ranks.wait_ready()
    except AssertionError as refusal:
        if "this version serves one GPU alone" in str(refusal):
            pytest.skip("this version serves one GPU alone")
        raise
    else:
        assert answers(two_ranks.target) == one
    finally:
        two_ranks.close()
