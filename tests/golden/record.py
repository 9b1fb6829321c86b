"""Records what seeds give: `python tests/golden/record.py`, only when the rule of drawing changes.

Prompts and options are taken from seeds.json as they stand there; ids are written anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds.json"


def main() -> None:
    """Serve the small checkpoint of the system tests, ask it, write down what it says."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from checkpoints import make_checkpoint
    from running_service import serving

    from santacoder_client import Client

    entries = json.loads(SEEDS.read_text())
    with tempfile.TemporaryDirectory(prefix="st-") as folder:
        model = make_checkpoint(Path(folder) / "small", positions=2048)
        with serving(model, Path(folder)) as service, Client(service.target) as client:
            for entry in entries:
                done = client.complete(entry["prompt"], **entry["options"])
                entry["token_ids"] = done.token_ids
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    SEEDS.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
