"""Every layout, cut into ranks and served over gRPC, says what transformers says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from checkpoints import LAYOUTS, Layout, make_checkpoint
from running_service import Service, serving
from system.cases import prompt_ids
from system.judge import greedy_ids

from santacoder_client import Client

NEW_TOKEN_COUNT = 64
HEAD_COUNT = 4
PROMPT = prompt_ids(7, 21)
FORMATS: dict[Layout, tuple[int, Literal["safetensors", "bin"]]] = {
    "a": (1, "bin"),
    "a'": (2, "bin"),
    "b": (1, "safetensors"),
    "b'": (2, "safetensors"),
    "c": (2, "safetensors"),
    "c0": (1, "safetensors"),
    "d": (1, "safetensors"),
}


@pytest.mark.parametrize(
    ("layout", "size"), [*((layout, 2) for layout in LAYOUTS), ("a", 4), ("a'", 4), ("c", 4)]
)
def test_64_greedy_ids_over_grpc_equal_those_of_transformers(
    tmp_path: Path, run_folders: Path, layout: Layout, size: int
) -> None:
    shards, file_format = FORMATS[layout]
    folder = make_checkpoint(
        tmp_path / "m", layout, heads=HEAD_COUNT, shards=shards, file_format=file_format
    )
    with (
        serving(folder, run_folders, f"--tp={size}") as service,
        Client(service.target) as client,
    ):
        model = client.model()
        done = client.complete(PROMPT, max_new_tokens=NEW_TOKEN_COUNT, ignore_eos=True)
    assert model.tensor_parallel_size == size
    assert model.kv_head_count == (HEAD_COUNT if layout in ("a'", "b'") else 1)
    assert done.token_ids == greedy_ids(folder, PROMPT, NEW_TOKEN_COUNT)
    # A model that repeats one id would hide most faults.
    assert len(set(done.token_ids)) > 5


@pytest.mark.parametrize("size", [3, 8])
def test_a_tp_that_does_not_divide_the_heads_is_exit_code_2_and_one_line(
    model_folder: Path, run_folders: Path, size: int
) -> None:
    service = Service(model_folder, run_folders, f"--tp={size}")
    code, out, err = service.end()
    service.close()
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: --tp: does not divide the model's heads (4)")
    assert line.endswith(f"got {size}; allowed 1, 2, 4")
