"""santacoder-shard: one rank of a model, from arguments to exit code. Knows nothing in between."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from santacoder_shard.config import parse_config


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Serve until told to stop, then leave at once with the exit code."""
    config = parse_config(sys.argv[1:] if arguments is None else arguments)
    # Read when torch loads. By default a thread that waits for its team spins for milliseconds, and
    # so keeps the core from the very thread it waits for if anything else runs there: steps took
    # ten times as long. At once asleep, waking cost a small model a third of its speed.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # After the arguments are known to be right: this import takes a second.
    from santacoder_shard.server import serve

    exit_code = serve(config)
    sys.stdout.flush()
    sys.stderr.flush()
    # The model's thread may be stuck in a collective with ranks that are gone; it cannot be joined.
    os._exit(exit_code)


if __name__ == "__main__":
    main()
