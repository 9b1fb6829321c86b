"""Paged attention is softmax attention; how rows are arranged changes no bit of a row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from santacoder_shard.inputs import Chunk, StepInputs, build_inputs
from santacoder_shard.kernels.attention import paged_attention

BLOCK_COUNT = 80
SCRATCH = BLOCK_COUNT
HEAD_SIZE = 16
HEADS = [(4, 1), (1, 1), (4, 4), (16, 1), (6, 3)]


class Case:
    """Two sequences of 200 tokens in shuffled blocks, with queries for every position."""

    def __init__(self, head_count: int, kv_head_count: int) -> None:
        generator = torch.Generator().manual_seed(head_count * 10 + kv_head_count)
        self.keys = torch.randn(BLOCK_COUNT + 1, 16, kv_head_count, HEAD_SIZE, generator=generator)
        self.values = torch.randn(self.keys.shape, generator=generator)
        self.query = torch.randn(2, 200, head_count, HEAD_SIZE, generator=generator)
        blocks = torch.randperm(BLOCK_COUNT, generator=generator)
        self.tables = torch.full((2, 16), SCRATCH)
        self.tables[:, :13] = blocks[:26].view(2, 13)

    def attend(self, chunks: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        """Chunks of (sequence, first position, count); contexts in their order."""
        inputs = build_inputs(
            [Chunk(s, [0] * n, first, False) for s, first, n in chunks], self.tables
        )
        query = torch.stack([self.query[s, p] for s, p in self.row_places(inputs)])
        contexts = paged_attention(query, self.keys, self.values, inputs.tiles)
        by_place = dict(zip(self.row_places(inputs), contexts, strict=True))
        wanted = [(s, p) for s, first, n in chunks for p in range(first, first + n)]
        return torch.stack([by_place[place] for place in wanted])

    def row_places(self, inputs: StepInputs) -> list[tuple[int, int]]:
        """The (sequence, position) of each row, read back from where it writes."""
        owner = {int(block): s for s in range(2) for block in self.tables[s]}
        blocks = (inputs.places // 16).tolist()
        return [(owner[b], p) for b, p in zip(blocks, inputs.positions.tolist(), strict=True)]

    def exact(self, sequence: int, position: int) -> torch.Tensor:
        """Softmax attention in float64, without splits."""
        visible = slice(0, position + 1)
        head_count = self.query.shape[2]
        keys, values = (
            cache[self.tables[sequence]].flatten(0, 1)[visible].double()
            for cache in (self.keys, self.values)
        )
        group = head_count // keys.shape[1]
        keys, values = (part.repeat_interleave(group, dim=1) for part in (keys, values))
        query = self.query[sequence, position].double()
        scores = torch.einsum("hd,khd->hk", query, keys) / HEAD_SIZE**0.5
        return torch.einsum("hk,khd->hd", scores.softmax(-1), values).flatten()


@pytest.fixture(params=HEADS, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def test_contexts_agree_with_a_float64_softmax(case: Case) -> None:
    contexts = case.attend([(0, 0, 200), (1, 63, 1)])
    exact = torch.stack([case.exact(0, p) for p in range(200)] + [case.exact(1, 63)])
    assert torch.allclose(contexts.double(), exact, rtol=0, atol=1e-5)


def test_scores_far_apart_between_splits_do_not_overflow(case: Case) -> None:
    case.keys[case.tables[0, 8]] *= 200.0
    contexts = case.attend([(0, 199, 1)])
    assert torch.allclose(contexts[0].double(), case.exact(0, 199), rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 17, 64, 65, 130])
def test_a_prefill_row_has_the_bits_of_a_decode_row(case: Case, count: int) -> None:
    whole = case.attend([(0, 0, 200)])
    chunks = [(0, first, min(count, 200 - first)) for first in range(0, 200, count)]
    for chunk in chunks[:3] + chunks[-3:]:
        together = case.attend([chunk, (1, 150, 1)])
        assert torch.equal(together[:-1], whole[chunk[1] : chunk[1] + chunk[2]])


def test_a_longer_neighbour_changes_no_bit(case: Case) -> None:
    alone = case.attend([(0, 5, 1)])
    assert torch.equal(case.attend([(0, 5, 1), (1, 199, 1)])[0], alone[0])


def test_what_lies_past_a_row_changes_no_bit(case: Case) -> None:
    before = case.attend([(0, 70, 1)])
    places = case.tables[0, 4:].tolist()
    for cache in (case.keys, case.values):
        cache[places[0], 7:] = 1e4
        cache[places[1:]] = -1e4
    assert torch.equal(case.attend([(0, 70, 1)]), before)


def test_a_row_that_is_not_finite_leaves_the_others_alone(case: Case) -> None:
    before = case.attend([(0, 70, 1), (1, 80, 1)])
    case.query[1, 80] = torch.nan
    after = case.attend([(0, 70, 1), (1, 80, 1)])
    assert torch.equal(after[0], before[0])
    assert after[1].isnan().all()
