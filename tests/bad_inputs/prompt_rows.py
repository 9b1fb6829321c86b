"""Rows 31 to 49: what is to be continued."""

from __future__ import annotations

from bad_inputs.fields import field_row, raw_ways
from bad_inputs.row import Row
from system.cases import TOKEN_COUNT

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client.types import Infill

ADDED_TOKEN_COUNT = 5
VOCABULARY_SIZE = 400
CONTEXT_TOKEN_COUNT = 2048
MIB = 1 << 20
SENTINELS = "<fim-prefix><fim-middle><fim-suffix><|endoftext|>"
MISSING = "INVALID_ARGUMENT PROMPT_MISSING"
MALFORMED = "INVALID_ARGUMENT MALFORMED_REQUEST"
LAST_ONE_WINS = pb.CompletionRequest(
    token_ids=pb.TokenIds(ids=[-1]), stopping=pb.Stopping(max_new_tokens=4)
).SerializeToString() + (pb.CompletionRequest(text="x = 1").SerializeToString())


def request(**fields: object) -> pb.CompletionRequest:
    return pb.CompletionRequest(stopping=pb.Stopping(max_new_tokens=4), **fields)  # type: ignore[arg-type]


PROMPT_ROWS = (
    Row(31, "no prompt", MISSING, raw_ways(pb.CompletionRequest())),
    Row(31, "no completion in the message at all", MISSING, raw_ways(b"")),
    field_row(32, "an empty text", "PROMPT_EMPTY", ""),
    field_row(33, "a text of 1 MiB and a byte", "PROMPT_TOO_LARGE", "x" * (MIB + 1)),
    field_row(33, "an infill of 1 MiB and a byte", "PROMPT_TOO_LARGE", Infill("x" * MIB, "y")),
    field_row(
        34,
        "prompt and new tokens above the context",
        "CONTEXT_LENGTH",
        [1] * 1500,
        needs_server=True,
        max_new_tokens=CONTEXT_TOKEN_COUNT - 1499,
    ),
    field_row(38, "zero bytes", "OK", "a\0b"),
    field_row(38, "a byte order mark and a right-to-left mark", "OK", "\ufeff\u202ex"),
    Row(
        38,
        "half a surrogate pair",
        MALFORMED,
        raw_ways(
            pb.CompletionRequest(text="abc").SerializeToString().replace(b"abc", b"\xed\xa0\x80")
        ),
    ),
    field_row(39, "text that spells sentinels", "OK", SENTINELS),
    field_row(40, "no ids", "PROMPT_EMPTY", []),
    field_row(41, "2,048 ids", "CONTEXT_LENGTH", [1] * CONTEXT_TOKEN_COUNT, needs_server=True),
    Row(
        41,
        "400,000 negative ids, which nobody looks at one by one",
        "INVALID_ARGUMENT CONTEXT_LENGTH",
        raw_ways(pb.CompletionRequest(token_ids=pb.TokenIds(ids=[-1] * 400_000))),
    ),
    field_row(42, "id -1", "TOKEN_ID_RANGE", [5, -1]),
    field_row(
        42,
        "the first id beyond the embedding",
        "TOKEN_ID_RANGE",
        [VOCABULARY_SIZE],
        needs_server=True,
    ),
    field_row(
        42, "id 2^32, which 32 bits would call 0", "TOKEN_ID_RANGE", [2**32], needs_server=True
    ),
    field_row(
        44,
        "an id of the padding",
        "TOKEN_ID_UNASSIGNED",
        [TOKEN_COUNT + ADDED_TOKEN_COUNT],
        needs_server=True,
    ),
    field_row(45, "special ids among the ids", "OK", [TOKEN_COUNT, 1, TOKEN_COUNT + 1]),
    Row(46, "ids and then text", "OK", raw_ways(LAST_ONE_WINS)),
    field_row(47, "an infill of nothing", "FIM_EMPTY", Infill("", "")),
    field_row(47, "an infill without a suffix", "OK", Infill("x = ", "")),
)
