"""What it costs that a row's bits do not depend on its neighbours: our products beside cuBLAS and
cuBLASLt, which may choose a kernel by the number of rows and split sums as they like.

All products of a step in one CUDA graph each; of the libraries the faster one counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import gpu_products
import torch
from gpu_ceilings import median_seconds
from gpu_job import Job
from gpu_parts import Settings

DECODE_BATCHES = (1, 8, 32, 64, 128, 256)
PROMPT_LENGTH = 1024
ROUND_COUNT = 5


@torch.inference_mode()
def measure(settings: Settings) -> dict[str, float]:
    """The cost as a share; of decode the greatest of all batches."""
    job = Job(settings.layer_count, max(DECODE_BATCHES), PROMPT_LENGTH)
    products = gpu_products.Products(job)
    values: dict[str, float] = {}
    costs: list[float] = []
    for batch in DECODE_BATCHES:
        ours, library = _milliseconds(products, batch, batch)
        values[f"products_b{batch}_ms"], values[f"library_b{batch}_ms"] = ours, library
        costs.append(ours / library - 1)
    ours, library = _milliseconds(products, PROMPT_LENGTH, 1)
    values |= {"products_1024_ms": ours, "library_1024_ms": library}
    values["invariance_cost_decode"] = max(costs)
    values["invariance_cost_prefill"] = ours / library - 1
    return values


def _milliseconds(
    products: gpu_products.Products, row_count: int, head_row_count: int
) -> tuple[float, float]:
    """Ours and the faster library's, medians of rounds in turn."""
    graphs = [_capture(lambda: products.ours(row_count, head_row_count))]
    for name in gpu_products.LIBRARIES:
        gpu_products.use_library(name)
        graphs.append(_capture(lambda: products.library(row_count, head_row_count)))
    rounds = [[median_seconds(graph.replay) for graph in graphs] for _ in range(ROUND_COUNT)]
    ours, *libraries = (1000 * statistics.median(column) for column in zip(*rounds, strict=True))
    return ours, min(libraries)


def _capture(run: Callable[[], None]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        run()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            run()
    return graph
