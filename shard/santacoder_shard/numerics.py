"""Names what decides the bits of a logit, so that equal names of one checkpoint mean equal bits."""

from __future__ import annotations

import torch

from santacoder_shard.kernels.attention.reference import SPLIT_TOKENS
from santacoder_shard.model import SantaCoder


def numerics_id(model: SantaCoder) -> str:
    """Kernels, number format, device, threads, library and the cuts of sums, in words."""
    if model.token_embedding.device.type == "cuda":
        return _gpu_numerics_id(model)
    dtype = str(model.dtype).removeprefix("torch.")
    parts = (
        model.pack().name,
        f"attention splits of {SPLIT_TOKENS}",
        dtype,
        f"{model.token_embedding.device.type} {torch.backends.cpu.get_cpu_capability()}",
        f"{torch.get_num_threads()} threads",
        f"{model.parallel_size} ranks",
        f"torch {torch.__version__}",
    )
    return ", ".join(parts)


def _gpu_numerics_id(model: SantaCoder) -> str:
    # Here, because a CPU rank needs no Triton.
    import triton

    from santacoder_shard.gpu_model import ROW_PARALLEL_SEGMENTS

    dtype = str(model.dtype).removeprefix("torch.")
    parts = (
        f"triton {triton.__version__}",
        f"sums over inner columns in {ROW_PARALLEL_SEGMENTS} segments",
        f"attention splits of {SPLIT_TOKENS}",
        dtype,
        torch.cuda.get_device_name(model.token_embedding.device),
        f"{model.parallel_size} ranks",
        f"torch {torch.__version__}",
    )
    return ", ".join(parts)
