"""Which device a rank computes on, and the room there. Refuses in one line what cannot work."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path

import torch

from santacoder_shard.errors import UnusableOption
from santacoder_shard.geometry import Geometry

# Beside weights and cache: a step's buffers, CUDA's own state, graphs, and sampling in float64.
GPU_RESERVE_BYTES = 2 << 30
# A tensor core's step of k, for each of the two parts that sums over inner columns are cut into.
_SIZE_STEP = 32


def choose_device(
    wanted: str, rank: int, parallel_size: int, geometry: Geometry
) -> tuple[torch.device, str | None]:
    """The device of a rank for `--device` (auto, cpu, cuda), and why auto passes a GPU over.

    auto is the GPU wherever the kernels can run the model on it, for one rank; several ranks have
    a GPU each where cuda is asked for. Raises UnusableOption where that cannot be.
    """
    cpu = torch.device("cpu")
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return cpu, None
    obstacle = _gpu_obstacle(parallel_size) or _shape_obstacle(geometry)
    if wanted == "auto" and parallel_size > 1:
        obstacle = obstacle or "several ranks use GPUs only where --device cuda asks for it"
    if obstacle is None:
        return torch.device("cuda", rank), None
    if wanted == "auto":
        return cpu, obstacle
    raise UnusableOption(f"--device: {obstacle}; got cuda; allowed auto, cpu")


def kv_budget_bytes(device: torch.device) -> int:
    """What is free for K and V on the GPU, once the weights are there."""
    torch.cuda.empty_cache()
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return max(0, free_bytes - GPU_RESERVE_BYTES)


def _gpu_obstacle(parallel_size: int) -> str | None:
    """Why no GPU can be used here, in a few words; None if one can."""
    if not torch.cuda.is_available():
        found = f"{torch.cuda.device_count()} CUDA devices, torch {torch.__version__}"
        return f"no CUDA device here (found {found})"
    if parallel_size > torch.cuda.device_count():
        return f"a rank takes a GPU, and there are {torch.cuda.device_count()} for {parallel_size}"
    for module, package in (("triton", "triton"), ("cuda", "cuda-bindings")):
        if importlib.util.find_spec(module) is None:
            return f"the kernels need {package}, which is not installed (pip install {package})"
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        return "triton needs a C compiler, and there is no cc, gcc or clang on PATH"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "triton needs Python's headers, and there is no Python.h (install python3-dev)"
    return None


def _shape_obstacle(geometry: Geometry) -> str | None:
    """Why the kernels cannot run a model of this shape, in a few words; None if they can."""
    for name, size in (
        ("embedding size", geometry.embedding_size),
        ("inner size", geometry.inner_size),
    ):
        if size % _SIZE_STEP:
            return f"the kernels need a model's {name} in multiples of {_SIZE_STEP} (it is {size})"
    head_size = geometry.head_size
    if head_size < 16 or head_size & (head_size - 1):
        return f"the kernels need a head size that is a power of two from 16 on (it is {head_size})"
    return None
