"""The table of options: complete, documented, and strict about what no message can carry."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import get_type_hints

import pytest

from santacoder.inference.v1 import inference_pb2 as pb
from santacoder_client import CompletionOptions, FimOrder, InvalidRequest, Priority, TruncatePolicy
from santacoder_client._codec import encode_call
from santacoder_client._options import OPTIONS
from santacoder_client.types import Infill

FIXED_NAMES = """
    max_new_tokens min_new_tokens temperature top_k top_p min_p typical_p repetition_penalty
    presence_penalty frequency_penalty seed stop stop_token_ids ignore_eos logit_bias logprobs echo
    completion_count fim_order truncate priority cache_salt request_id time_budget timeout
""".split()


class Index:
    """An integer of some other library."""

    def __index__(self) -> int:
        return 5


def sent(**options: object) -> pb.CompletionRequest:
    return encode_call("x", options).completion


def test_the_names_are_the_fixed_ones_in_table_and_types() -> None:
    assert [option.name for option in OPTIONS] == FIXED_NAMES
    assert list(get_type_hints(CompletionOptions)) == FIXED_NAMES


README = Path(__file__).parents[2] / "client" / "README.md"


@pytest.mark.skipif(not README.exists(), reason="no README stands beside an installed package")
def test_the_readme_has_a_row_for_every_option() -> None:
    rows = README.read_text(encoding="utf-8")
    assert [name for name in FIXED_NAMES if f"| `{name}` |" not in rows] == []


@pytest.mark.parametrize(
    ("name", "field"),
    [(option.name, option.field) for option in OPTIONS if option.name != "timeout"],
)
def test_every_field_of_the_table_is_a_field_of_the_message(name: str, field: str) -> None:
    descriptor = pb.CompletionRequest.DESCRIPTOR
    *groups, last = field.split(".")
    for group in groups:
        inner = descriptor.fields_by_name[group].message_type
        assert inner is not None
        descriptor = inner
    assert last in descriptor.fields_by_name, name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": "5"}, "sampling.top_k: wrong type; got a value of type str; allowed an int"),
        ({"top_k": 5.0}, "sampling.top_k: wrong type; got a value of type float; allowed an int"),
        ({"top_k": True}, "sampling.top_k: wrong type; got a value of type bool; allowed an int"),
        (
            {"max_new_tokens": 2**31},
            "stopping.max_new_tokens: out of range; got 2147483648; allowed 1..2147483647",
        ),
        (
            {"seed": -(2**63) - 1},
            "sampling.seed: out of range; got -9223372036854775809; allowed 0..9223372036854775807",
        ),
        (
            {"seed": 10**5000},
            "sampling.seed: out of range; got a very large number; allowed 0..9223372036854775807",
        ),
        (
            {"temperature": "hot"},
            "sampling.temperature: wrong type; got a value of type str; allowed a number",
        ),
        (
            {"temperature": 10**400},
            "sampling.temperature: not a finite number; got inf; allowed 0 or 0.01..5",
        ),
        ({"echo": 1}, "output.echo: wrong type; got a value of type int; allowed True or False"),
        (
            {"stop": [b"x"]},
            "stopping.stop[0]: wrong type; got a value of type bytes; allowed a str",
        ),
        (
            {"stop": 3},
            "stopping.stop: wrong type; got a value of type int; allowed a str or a list of them",
        ),
        (
            {"stop_token_ids": "12"},
            "stopping.stop_token_ids: wrong type; got a value of type str;"
            " allowed a list of token ids",
        ),
        (
            {"stop_token_ids": [1, 2.5]},
            "stopping.stop_token_ids[1]: wrong type; got a value of type float; allowed an int",
        ),
        (
            {"logit_bias": [(1, 2)]},
            "sampling.logit_bias: wrong type; got a value of type list;"
            " allowed a mapping from token id to number",
        ),
        (
            {"logit_bias": {1: "2"}},
            "sampling.logit_bias[1]: wrong type; got a value of type str; allowed a number",
        ),
        ({"fim_order": "msp"}, "infill.order: unknown; got 'msp'; allowed psm, spm"),
        ({"fim_order": 1}, "infill.order: wrong type; got a value of type int; allowed psm, spm"),
        ({"truncate": "yes"}, "truncate: unknown; got 'yes'; allowed refuse, keep_nearest"),
        ({"priority": "urgent"}, "priority: unknown; got 'urgent'; allowed low, normal, high"),
        (
            {"cache_salt": 5},
            "cache_salt: wrong type; got a value of type int; allowed bytes or a str",
        ),
        ({"request_id": 5}, "request_id: wrong type; got a value of type int; allowed a str"),
        (
            {"time_budget": math.nan},
            "time_budget: not a finite number; got nan; allowed 0.01..600",
        ),
        (
            {"timeout": math.inf},
            "timeout: out of range; got inf; allowed a finite number of seconds",
        ),
        (
            {"stop": "a\ud800"},
            "stopping.stop: not Unicode text; got a lone surrogate at character 1;"
            " allowed whole characters",
        ),
    ],
)
def test_what_no_message_can_carry_is_refused_in_the_standard_form(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sent(**options)
    error = caught.value
    assert str(error) == message
    assert error.code.name == "INVALID_ARGUMENT"
    own = {"WRONG_TYPE", "OUT_OF_RANGE", "ENUM_UNKNOWN", "MALFORMED_REQUEST"}
    assert error.reason in own or str(error.reason).endswith("_RANGE")
    (violation,) = error.violations
    assert f"{violation.field}: {violation.description}" == message
    assert violation.reason == error.reason


@pytest.mark.parametrize("prompt", [None, 5, b"bytes", {"a": 1}, ["text"], [True], [2**63]])
def test_a_prompt_of_the_wrong_type_is_refused(prompt: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^(prompt|token_ids\.ids\[0\]): "):
        encode_call(prompt, {})  # type: ignore[arg-type]


def test_values_of_kindred_types_are_taken() -> None:
    options = sent(
        top_k=Index(), temperature=Fraction(1, 2), stop=("a", "b"), stop_token_ids=range(2)
    )
    assert options.sampling.top_k == 5
    assert options.sampling.temperature == 0.5
    assert list(options.stopping.stop) == ["a", "b"]
    assert list(options.stopping.stop_token_ids) == [0, 1]


def test_one_stop_string_needs_no_list() -> None:
    assert list(sent(stop="ab").stopping.stop) == ["ab"]


def test_a_salt_is_bytes_or_text() -> None:
    assert sent(cache_salt=b"\xff\x00").cache_salt == b"\xff\x00"
    assert sent(cache_salt="é").cache_salt == "é".encode()


def test_named_choices_are_enums_or_their_names_in_any_case() -> None:
    for order in (FimOrder.SPM, "spm", "SPM"):
        call = encode_call(Infill("a", "b"), {"fim_order": order})
        assert call.completion.infill.order == pb.FIM_ORDER_SPM
    assert sent(priority=Priority.LOW).priority == pb.PRIORITY_LOW
    assert sent(priority="HIGH").priority == pb.PRIORITY_HIGH
    assert sent(truncate=TruncatePolicy.REFUSE).truncate == pb.TRUNCATE_POLICY_REFUSE
