"""Ranks in processes of their own: collectives, equal ids at every size, and peers that go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_checkpoint
from parallel_jobs import (
    everything,
    generate,
    lose_a_peer,
    order_sensitive_parts,
    wait_for_a_silent_peer,
)
from rank_processes import run_on_ranks

from santacoder_shard.parallel import Parallel

KINDS = ("multi_query", "multi_head")
SIZES = (2, 4)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    make_checkpoint(folder / "multi_query", "b")
    make_checkpoint(folder / "multi_head", "b'")
    return folder


@pytest.fixture(scope="module")
def one_rank(checkpoints: Path) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    results = {kind: generate(Parallel(), checkpoints / kind) for kind in KINDS}
    torch.set_num_threads(threads)
    return results


@pytest.fixture(scope="module")
def by_size(checkpoints: Path) -> dict[int, list[dict[str, Any]]]:
    results = {}
    for size in (*SIZES, 3):
        results[size] = run_on_ranks(everything, size, checkpoints)
        (checkpoints / "rendezvous").unlink(missing_ok=True)
    return results


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_one_rank_on_every_rank(
    one_rank: dict[str, Any], by_size: dict[int, list[dict[str, Any]]], size: int, kind: str
) -> None:
    for rank in by_size[size]:
        assert rank[kind]["ids"] == one_rank[kind]["ids"]
    assert one_rank[kind]["ids"][1] != one_rank[kind]["ids"][0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_one_rank_within_rounding(
    one_rank: dict[str, Any], by_size: dict[int, list[dict[str, Any]]], size: int, kind: str
) -> None:
    ours = by_size[size][0][kind]["logits"]
    assert ours.shape == one_rank[kind]["logits"].shape
    assert torch.allclose(ours, one_rank[kind]["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_at_one_size_alone_and_chunked_equals_whole_in_a_crowd_bit_for_bit(
    by_size: dict[int, list[dict[str, Any]]], size: int, kind: str
) -> None:
    leader = by_size[size][0][kind]
    assert torch.equal(leader["alone_logits"], leader["logits"])
    assert all(rank[kind]["alone_ids"] == rank[kind]["ids"][1] for rank in by_size[size])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_rank_0_alone_decides_the_step_that_ends_a_lease(
    by_size: dict[int, list[dict[str, Any]]], size: int, kind: str
) -> None:
    ends = [(r[kind]["interrupted_steps"], r[kind]["capped_steps"]) for r in by_size[size]]
    assert ends == [(4, 1)] * size


@pytest.mark.parametrize("size", [2, 3, 4])
def test_collectives_sum_in_a_tree_gather_to_rank_0_and_stay_on_loopback(
    by_size: dict[int, list[dict[str, Any]]], size: int
) -> None:
    results = [rank["collectives"] for rank in by_size[size]]
    parts = list(order_sensitive_parts(size))
    tree = {
        2: lambda: parts[0] + parts[1],
        3: lambda: (parts[0] + parts[1]) + parts[2],
        4: lambda: (parts[0] + parts[1]) + (parts[2] + parts[3]),
    }[size]()
    for rank, result in enumerate(results):
        assert torch.equal(result["sum"], tree)
        assert torch.equal(result["sum_of_one_row"], tree[37:38])
        assert result["broadcast"].tolist() == [7]
        assert set(result["listening_addresses"]) == {"0100007F"}
        if rank:
            assert result["gathered"] is None
    expected = torch.arange(float(size)).repeat_interleave(3).expand(2, -1)
    assert torch.equal(results[0]["gathered"], expected)


@pytest.mark.fault("S10", "N14")
@pytest.mark.parametrize("job", [lose_a_peer, wait_for_a_silent_peer])
def test_a_collective_fails_in_time_when_a_peer_is_gone_or_silent(tmp_path: Path, job: Any) -> None:
    leader, _ = run_on_ranks(job, 2, tmp_path, timeout_seconds=4.0)
    assert 0 <= leader["seconds"] < 60.0  # gloo's own limit is half an hour
    assert leader["message"]


def test_one_rank_sends_nothing_and_changes_nothing() -> None:
    parallel = Parallel.join(0, 1, Path("/nowhere/at/all"))
    tensor = torch.arange(4.0)
    assert parallel.all_reduce(tensor) is tensor
    assert parallel.gather_logits(tensor) is tensor
    assert parallel.broadcast(tensor) is tensor
