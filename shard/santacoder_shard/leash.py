"""Runs a module as `python -m` would, and ends it when standard input ends. Knows not what it runs.

For a child that does not watch for its starter's death itself: the starter holds the other end.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading

EXIT_FAILED = 1


def main() -> None:
    """`python -m santacoder_shard.leash MODULE ARGUMENTS...`"""
    del sys.argv[0]
    threading.Thread(target=_leave_with_stdin, args=(sys.stdin.fileno(),), daemon=True).start()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _leave_with_stdin(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    # Nobody is left who could wait for an orderly end.
    os._exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
