"""The numerics id is equal where bits are, and differs with what changes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_driver import small_geometry

from santacoder_shard.model import SantaCoder
from santacoder_shard.numerics import numerics_id


def named(size: int = 1, dtype: torch.dtype = torch.float32, **changes: Any) -> str:
    return numerics_id(SantaCoder(small_geometry(**changes), size, dtype))


def test_two_models_of_one_kind_have_one_id() -> None:
    assert named() == named()
    assert torch.__version__ in named() and "float32" in named()


@pytest.mark.parametrize("other", [{"size": 2}, {"dtype": torch.float16}])
def test_what_changes_bits_changes_the_id(other: dict[str, Any]) -> None:
    assert named(**other) != named()


def test_the_number_of_threads_changes_the_id() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = named()
        torch.set_num_threads(2)
        assert named() != one
    finally:
        torch.set_num_threads(threads)
