"""A service on the GPU, in processes of its own, with a random checkpoint of the real shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import random_checkpoint
import torch
from gpu_parts import Settings
from service import Service


def serve(
    settings: Settings, *arguments: str, environment: dict[str, str] | None = None
) -> Service:
    """Start it and wait until it is ready; the checkpoint is written if it is not there."""
    shape = random_checkpoint.Shape(layer_count=settings.layer_count)
    folder = random_checkpoint.ensure(settings.checkpoint, shape, torch.float16)
    own = (f"--model={folder}", "--device=cuda", *arguments)
    return Service([*own, *settings.serve_arguments], environment)


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
