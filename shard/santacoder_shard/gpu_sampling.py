"""How each slot samples, as the host knows it and as the device is told. Launches no kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from numpy.typing import NDArray
from torch import Tensor

from santacoder_shard.gpu_transfer import to_device
from santacoder_shard.kernels.sampling.launch import Sampling, SlotOptions
from santacoder_shard.kernels.sampling.layout import (
    BIAS_COUNT,
    INTEGER_COLUMNS,
    NAMED_COLUMNS,
    OPTION_COLUMN_COUNT,
    REAL_COLUMNS,
    SEEN,
)
from santacoder_shard.sampler import has_penalties
from santacoder_shard.slots import Slot
from santacoder_shard.step import Admit


def sampling_of(slot: Slot) -> Sampling:
    """What a row of this slot needs; while steps are in flight that may say more than it does."""
    sampling = _sampling_of(slot.admit)
    # Nothing but banned ending ids.
    if sampling is Sampling.LIKELIEST and slot.remaining_min_tokens > 0:
        return Sampling.DRAW
    return sampling


def _sampling_of(admit: Admit) -> Sampling:
    """What the options ask for all along."""
    parameters = admit.sampling
    if parameters.temperature == 0.0:
        is_greedy = not admit.logit_bias and not has_penalties(parameters)
        return Sampling.LIKELIEST if is_greedy else Sampling.DRAW
    if parameters.typical_p < 1.0:
        return Sampling.SURPRISE
    filters = parameters.top_k > 0 or parameters.top_p < 1.0 or parameters.min_p > 0.0
    return Sampling.FILTER if filters else Sampling.DRAW


def option_words(slot: Slot, token_count: int) -> NDArray[numpy.int64]:
    """A slot's line of options as `layout.py` has it; the sequence has just been admitted."""
    admit = slot.admit
    words = numpy.zeros(OPTION_COLUMN_COUNT, dtype=numpy.int64)
    reals = words.view(numpy.float64)
    reals[: len(REAL_COLUMNS)] = [getattr(admit.sampling, name) for name in REAL_COLUMNS]
    integers = {
        "top_k": admit.sampling.top_k,
        # 64 bits, whatever their sign.
        "seed": admit.sampling.seed - (admit.sampling.seed >> 63 << 64),
        "sample_index": admit.sampling.sample_index,
        "prompt_length": admit.prompt_length,
        "minimum_length": _minimum_length(slot, token_count),
    }
    words[len(REAL_COLUMNS) : len(NAMED_COLUMNS)] = [integers[name] for name in INTEGER_COLUMNS]
    # Biases of the same id keep their order, in which they are added.
    biases = sorted(admit.logit_bias, key=lambda bias: bias[0])
    first = len(NAMED_COLUMNS)
    words[first : first + BIAS_COUNT] = -1
    words[first : first + len(biases)] = [token_id for token_id, _ in biases]
    first += BIAS_COUNT
    reals[first : first + len(biases)] = [value for _, value in biases]
    return words


def history_words(admit: Admit) -> tuple[NDArray[numpy.int64], NDArray[numpy.int32]]:
    """The ids in a text and, for each, how often it is in the output, with SEEN."""
    ids, places = numpy.unique(
        numpy.asarray(admit.token_ids, dtype=numpy.int64), return_inverse=True
    )
    counts = numpy.bincount(places[admit.prompt_length :], minlength=len(ids))
    return ids, (counts + SEEN).astype(numpy.int32)


class SamplingUploads:
    """Queues the copies that admits need, a fixed number a plan. Nobody waits for them."""

    def __init__(self, options: SlotOptions, token_count: int) -> None:
        self._options = options
        self._token_count = token_count

    def admit(self, admitted: Sequence[tuple[int, Slot]]) -> None:
        """These slots begin anew."""
        if not admitted:
            return
        words = [option_words(slot, self._token_count) for _, slot in admitted]
        indices = [index for index, _ in admitted]
        _set(self._options.words, indices, numpy.stack(words))
        penalized = [pair for pair in admitted if has_penalties(pair[1].admit.sampling)]
        if penalized:
            self._begin_histories(penalized)

    def _begin_histories(self, admitted: Sequence[tuple[int, Slot]]) -> None:
        histories = self._options.histories
        width = histories.shape[1]
        histories.index_fill_(0, to_device([index for index, _ in admitted], histories), 0)
        places: list[int] = []
        counts: list[int] = []
        for index, slot in admitted:
            ids, its_counts = history_words(slot.admit)
            places += (ids + index * width).tolist()
            counts += its_counts.tolist()
        _set(histories.view(-1), places, numpy.array(counts, dtype=numpy.int32))


def _minimum_length(slot: Slot, token_count: int) -> int:
    """So many tokens a sequence has when its ending ids are no longer banned."""
    end_ids = slot.end_ids.union(slot.admit.stop_ids)
    # A ban on every id there is would leave nothing, and is none.
    if sum(token_id < token_count for token_id in end_ids) == token_count:
        return 0
    return len(slot.admit.token_ids) + slot.admit.remaining_min_tokens


def _set(target: Tensor, places: Sequence[int], values: NDArray[numpy.generic]) -> None:
    target.index_copy_(0, to_device(places, target), to_device(values, target))
