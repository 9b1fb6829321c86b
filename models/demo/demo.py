"""`make demo`: serves the demo checkpoint, streams a completion and an infill from it, stops.

Talks to the service as any user would: `santacoder-serve` in a process of its own, the SDK here.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from santacoder_client import Client, Piece

COMPLETION_PROMPT = """\
def main():
    parser = argparse.ArgumentParser("""
INFILL_PREFIX = """\
    def __enter__(self):
        return self

"""
INFILL_SUFFIX = """
        self.close()
"""
START_SECONDS = 60.0
STOP_SECONDS = 40.0


def start_service() -> tuple[subprocess.Popen[str], str]:
    """The service's process and its HOST:PORT, once it has said that it is ready."""
    program = Path(sysconfig.get_path("scripts")) / "santacoder-serve"
    # A quiet log: what the demo prints is what it is about.
    command = [str(program), "--port", "0", "--log-level", "warning"]
    begin = time.monotonic()
    service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    line = service.stdout.readline() if service.stdout else ""
    if not line.startswith("ready "):
        service.wait(STOP_SECONDS)
        sys.exit(f"error: the service did not start; exit code {service.returncode}")
    print(f"ready after {time.monotonic() - begin:.1f} s: {line.strip()}\n")
    fields = dict(field.split("=", 1) for field in line.split()[1:])
    return service, fields["grpc"]


def show(title: str, before: str, pieces: Iterator[Piece], after: str = "") -> None:
    """Print the text around the cursor and the pieces between as they come, then the speed."""
    print(f"--- {title} ---\n{before}", end="", flush=True)
    begin = time.monotonic()
    first_seconds, token_count = None, 0
    for piece in pieces:
        if first_seconds is None and piece.token_ids:
            first_seconds = time.monotonic() - begin
        token_count += len(piece.token_ids)
        print(f"\033[1m{piece.text}\033[0m" if sys.stdout.isatty() else piece.text, end="")
        sys.stdout.flush()
    seconds = time.monotonic() - begin
    if not token_count or first_seconds is None:
        sys.exit(f"error: the {title} came back empty")
    print(after)
    print(
        f"[first token after {1000 * first_seconds:.0f} ms, {token_count} tokens, "
        f"{token_count / seconds:.0f} tokens/s]\n"
    )


def main() -> None:
    service, target = start_service()
    try:
        with Client(target) as client:
            model = client.model()
            print(f"serving {model.name}: {model.layer_count} layers of {model.embedding_size}\n")
            pieces = client.stream(COMPLETION_PROMPT, max_new_tokens=48)
            show("completion", COMPLETION_PROMPT, pieces)
            pieces = client.stream_infill(INFILL_PREFIX, INFILL_SUFFIX, max_new_tokens=32)
            show("infill", INFILL_PREFIX, pieces, INFILL_SUFFIX)
    finally:
        service.send_signal(signal.SIGTERM)
        code = service.wait(STOP_SECONDS)
    if code != 0:
        sys.exit(f"error: the service ended with exit code {code}")
    print("stopped cleanly")


if __name__ == "__main__":
    main()
