"""Rows of what is not offered: other methods, other fields, HTTP; and of ids to convert."""

from __future__ import annotations

from functools import partial

from bad_inputs.calls import DETOKENIZE, SERVICES, unary
from bad_inputs.fields import raw_ways
from bad_inputs.row import Row
from bad_inputs.transport_rows import FINE, stranger

from santacoder.inference.v1 import inference_pb2 as pb

ABSENT_ROWS = (
    *(
        Row(
            number,
            words,
            "UNIMPLEMENTED",
            {"gRPC": partial(unary, path=SERVICES + method, data=b"")},
            why="not offered",
        )
        for number, words, method in (
            (88, "cancel by request id", "CompletionService/Cancel"),
            (30, "another caller's request by its id", "CompletionService/Resume"),
            (94, "several prompts in one call", "CompletionService/BatchComplete"),
            (81, "a model by its name", "ModelService/LoadModel"),
        )
    ),
    *(
        Row(
            number,
            words,
            "OK",
            raw_ways(FINE.SerializeToString() + data),
            why="no such field: passed over, as every unknown one",
        )
        for number, words, data in (
            (48, "files as context", b"\xf2\x07\x0d../../etc/pwd"),
            (60, "best_of", b"\xf0\x07\x02"),
            (74, "a grammar", b"\xf2\x07\x05(a+)+"),
            (75, "a regular expression of 1 MiB", b"\xf2\x07\x80\x80\x40" + b"a" * (1 << 20)),
        )
    ),
    Row(
        93,
        "a million ids to detokenize",
        "INVALID_ARGUMENT ID_COUNT",
        {
            "Detokenize": partial(
                unary,
                path=DETOKENIZE,
                data=pb.DetokenizeRequest(token_ids=[1] * 1_000_000).SerializeToString(),
            ),
        },
    ),
    Row(
        93,
        "an id that stands for nothing, to detokenize",
        "INVALID_ARGUMENT TOKEN_ID_RANGE",
        {
            "Detokenize": partial(
                unary,
                path=DETOKENIZE,
                data=pb.DetokenizeRequest(token_ids=[400]).SerializeToString(),
            ),
        },
    ),
    *(
        Row(number, words, "closed", stranger(noise), why="no HTTP here: gRPC alone")
        for number, words, noise in (
            (
                95,
                "a body of JSON",
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            ),
            (
                100,
                "tools and images",
                b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n{"tools":[]}',
            ),
            (
                103,
                "an absolute target and a Host of slashes",
                b"GET http://a/v1//x HTTP/1.1\r\nHost: a/b:c\r\n\r\n",
            ),
            (
                96,
                "a body that never ends",
                b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n",
            ),
            (
                104,
                "metrics asked for at the public port",
                b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
        )
    ),
)
