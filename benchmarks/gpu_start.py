"""Time from the command to the ready line, weights in the page cache: with no kernel compiled yet,
and again with those that the first start left."""

from __future__ import annotations

import statistics
import tempfile

from gpu_parts import Settings
from gpu_serve import serve

WARM_COUNT = 3


def measure(settings: Settings) -> dict[str, float]:
    """The first start has empty caches: Triton's, ours, and the driver's."""
    with tempfile.TemporaryDirectory(prefix="santacoder-cache-") as folder:
        environment = {
            "TRITON_CACHE_DIR": f"{folder}/triton",
            "XDG_CACHE_HOME": f"{folder}/xdg",
            "CUDA_CACHE_PATH": f"{folder}/cuda",
        }
        seconds: list[float] = []
        for _ in range(1 + WARM_COUNT):
            with serve(settings, environment=environment) as service:
                seconds.append(service.ready_seconds)
            print(f"ready after {seconds[-1]:.2f} s", flush=True)
    return {"ready_cold_s": seconds[0], "ready_warm_s": statistics.median(seconds[1:])}
