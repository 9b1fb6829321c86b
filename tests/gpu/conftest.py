"""Tests that need a GPU; without one all are skipped and say so. `--long` adds those of minutes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from faults import report

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    # Above this folder's, the same option may stand already.
    with contextlib.suppress(ValueError):
        parser.addoption("--long", action="store_true", help="also run the tests that take minutes")
        report.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "two_gpus: needs two GPUs")
    report.register(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.gpu)
        reason = _obstacle(item, config)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


def _obstacle(item: pytest.Item, config: pytest.Config) -> str | None:
    if not torch.cuda.is_available():
        return f"no CUDA device here (torch {torch.__version__})"
    if item.get_closest_marker("two_gpus") and torch.cuda.device_count() < 2:
        return "two GPUs are needed; there is one"
    if item.get_closest_marker("long") and not config.getoption("--long", False):
        return "takes minutes; run with --long"
    return None
