"""A seed means the same tokens from one version to the next: tests/golden/seeds.json holds them.

Only sampling needs a record; of greedy ids transformers is the judge. Recorded with AVX-512, the
ids are the same with AVX2, and with every weight off by a hundred thousandth of itself: a hundred
times what another processor's rounding does. By a ten thousandth, one of the four changes.
"""

from __future__ import annotations

import json
from pathlib import Path

from santacoder_client import Client

SEEDS = Path(__file__).parents[1] / "golden" / "seeds.json"


def test_seeds_give_the_recorded_ids(client: Client) -> None:
    entries = json.loads(SEEDS.read_text())
    given = [client.complete(entry["prompt"], **entry["options"]).token_ids for entry in entries]
    assert given == [entry["token_ids"] for entry in entries]
    assert {len(ids) for ids in given} == {40}
