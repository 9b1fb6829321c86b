"""How a test asks with which line a checkpoint folder is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from santacoder_shard.checkpoint import open_checkpoint
from santacoder_shard.errors import CheckpointError


def refusal(folder: Path) -> str:
    """The one line with which the folder is refused."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message
