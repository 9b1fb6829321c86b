"""Generated cases are the same in every run, and none fails because a machine was slow.

What is tested here holds on the CPU, also where there is a GPU: `tests/gpu` has what needs one.
"""

from __future__ import annotations

import os

import pytest
from faults import report
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

# What gRPC would write here, exceptions and exit codes say as well. Read when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Read by torch in this process and in every service that a test starts.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")
    report.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    report.register(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --long"))
