"""Generated cases are the same in every run, and none fails because a machine was slow.

What is tested here holds on the CPU, also where there is a GPU: `tests/gpu` has what needs one.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

# Read by torch in this process and in every service that a test starts.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
