"""Resident memory of every process of a service, beside the bytes of weights and KV cache."""

from __future__ import annotations

import math
from pathlib import Path

from figures import Figure
from safetensors import safe_open
from service import Service

MEBIBYTE = 2**20
FLOAT_BYTES = 4


def measure(service: Service, name: str, checkpoint: Path) -> list[Figure]:
    """One line a process; shared pages count for the part that is the process's own (PSS)."""
    model = service.client.model()
    weights = parameter_count(checkpoint) * FLOAT_BYTES
    head_size = model.embedding_size // model.head_count
    token_bytes = 2 * model.layer_count * model.kv_head_count * head_size * FLOAT_BYTES
    kv_cache = model.kv_cache_token_count * token_bytes
    figures = []
    for role, process_id in service.processes().items():
        proportional, resident = resident_bytes(process_id)
        beside = f"RSS {resident / MEBIBYTE:.0f}"
        if role.startswith("rank"):
            rest = proportional - weights - kv_cache
            beside += (
                f"; weights {weights / MEBIBYTE:.0f}, KV {kv_cache / MEBIBYTE:.0f},"
                f" rest {rest / MEBIBYTE:.0f}"
            )
        figures.append(
            Figure(f"{name}, memory of {role}", proportional / MEBIBYTE, "MiB", beside=beside)
        )
    return figures


def resident_bytes(process_id: int) -> tuple[int, int]:
    """(PSS, RSS) of a process."""
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
    return fields["Pss:"], fields["Rss:"]


def parameter_count(checkpoint: Path) -> int:
    """Elements of all tensors that are stored; the tied head is stored once."""
    total = 0
    for path in checkpoint.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    return total
