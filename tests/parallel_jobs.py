"""What the ranks of a group run in tests: collectives, and the same plans on a cut model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from engine_driver import EngineDriver, prompt_ids
from rank_processes import result_path

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.parallel import Parallel
from santacoder_shard.step import SamplingParameters
from santacoder_shard.weights import load_model

LAYOUT_FOLDERS = ("multi_query", "multi_head")


def collectives(parallel: Parallel, folder: Path) -> dict[str, Any]:
    """Each collective once, with values that tell ranks and orders of addition apart."""
    rank, size = parallel.rank, parallel.size
    parts = order_sensitive_parts(size)
    gathered = parallel.gather_logits(torch.full((2, 3), float(rank)))
    return {
        "sum": parallel.all_reduce(parts[rank].clone()),
        "sum_of_one_row": parallel.all_reduce(parts[rank][37:38].clone()),
        "gathered": gathered,
        "broadcast": parallel.broadcast(torch.tensor([rank + 7])),
        "listening_addresses": listening_addresses(),
    }


def order_sensitive_parts(size: int) -> torch.Tensor:
    """[size, 100, 8] float32 of such sizes that another order of addition shows in the sum."""
    generator = torch.Generator().manual_seed(size)
    scales = 10.0 ** torch.randint(-4, 5, (size, 100, 8), generator=generator)
    return torch.randn(size, 100, 8, generator=generator) * scales


def listening_addresses() -> list[str]:
    """Hexadecimal IPv4 addresses that this process listens on; any IPv6 one is told as itself."""
    own = {f"{link.readlink()}" for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    addresses: list[str] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                addresses.append(fields[1].split(":")[0])
    return addresses


def everything(parallel: Parallel, folder: Path) -> dict[str, Any]:
    """The collectives, and at sizes that divide the heads the plans on both attention kinds."""
    results = {"collectives": collectives(parallel, folder)}
    if parallel.size != 3:
        results |= {name: generate(parallel, folder / name) for name in LAYOUT_FOLDERS}
    return results


def generate(parallel: Parallel, checkpoint_folder: Path) -> dict[str, Any]:
    """Greedy and seeded texts in a crowd, slot 1's text alone, and the steps of two cut leases."""
    checkpoint = open_checkpoint(checkpoint_folder)
    drivers = [
        EngineDriver(
            load_model(
                checkpoint, parallel.rank, parallel.size, torch.float32, torch.device("cpu")
            ),
            slot_count=4,
            blocks_per_sequence=8,
            parallel=parallel,
            token_count=checkpoint.token_count,
        )
        for _ in range(2)
    ]
    crowd, alone = drivers
    for slot in range(4):
        seeded = SamplingParameters(temperature=1.0, seed=slot)
        crowd.start(
            slot,
            prompt_ids(30 + slot, seed=slot),
            sampling=seeded if slot % 2 else SamplingParameters(),
            logprob_count=1 if slot == 0 else None,
        )
    crowd.run([crowd.row(slot, 30 + slot) for slot in range(4)])
    crowd.run([crowd.row(slot) for slot in range(4)], num_steps=20)
    interrupted = crowd.run(
        [crowd.row(0)],
        num_steps=20,
        interrupted=lambda: parallel.rank == 0 and len(crowd.ids[0]) >= 24,
    )
    capped = crowd.run(
        [crowd.row(0)], num_steps=20, time_cap_seconds=1e-9 if parallel.rank == 0 else 1e9
    )
    alone.start(1, prompt_ids(31, seed=1), sampling=SamplingParameters(temperature=1.0, seed=1))
    alone.prefill(1, 31, chunk_size=13)
    alone.run([alone.row(1)], num_steps=20)
    leads = parallel.rank == 0
    return {
        "ids": [crowd.ids[slot] for slot in range(4)],
        "alone_ids": alone.ids[1],
        "logits": crowd.all_logits(1) if leads else None,
        "alone_logits": alone.all_logits(1) if leads else None,
        "interrupted_steps": len(interrupted),
        "capped_steps": len(capped),
    }


def lose_a_peer(parallel: Parallel, folder: Path) -> dict[str, Any]:
    """Rank 1 leaves without a word; how long rank 0's collective takes to fail, and with what."""
    if parallel.rank == 1:
        return {}
    started = time.monotonic()
    try:
        parallel.all_reduce(torch.ones(4))
    except RuntimeError as error:
        return {"seconds": time.monotonic() - started, "message": str(error)}
    return {}


def wait_for_a_silent_peer(parallel: Parallel, folder: Path) -> dict[str, Any]:
    """Rank 1 is alive and says nothing until rank 0 has given up."""
    if parallel.rank == 1:
        while not result_path(folder, 0).exists():
            time.sleep(0.05)
        return {}
    return lose_a_peer(parallel, folder)
