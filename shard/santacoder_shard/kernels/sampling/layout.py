"""Where a slot's options and a row's intermediate results lie, for the kernels and for the host."""

from __future__ import annotations

from typing import Final

# A slot's options, one line of int64 a slot: the bits of float64 numbers, integers, ids with a bias
# in ascending order, -1 where fewer, and the bits of their biases. Two of the names are not in
# SamplingParameters: output begins at token `prompt_length`, and ending ids are banned until a
# sequence has `minimum_length` tokens.
REAL_COLUMNS: Final = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
INTEGER_COLUMNS: Final = ("top_k", "seed", "sample_index", "prompt_length", "minimum_length")
NAMED_COLUMNS: Final = REAL_COLUMNS + INTEGER_COLUMNS
BIAS_COUNT: Final = 256
OPTION_COLUMN_COUNT: Final = len(NAMED_COLUMNS) + 2 * BIAS_COUNT
# What a slot's history says of an id: how often it is in the output, and this bit if it is in the
# text at all.
SEEN: Final = 1 << 30
# A row's state, int64: see `kept/triton_kernel.py`.
STATE_COLUMN_COUNT: Final = 16
# In so many bins a row's weights are added up before a filter looks for where it cuts.
BIN_COUNT: Final = 2048
