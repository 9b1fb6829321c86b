"""config.json becomes checked sizes, or one line that names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from santacoder_shard.errors import CheckpointError
from santacoder_shard.model_config import ModelConfig, read_model_config

FIELDS: dict[str, Any] = {
    "model_type": "gpt_bigcode",
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 64,
    "n_inner": 200,
    "n_positions": 128,
    "vocab_size": 400,
    "layer_norm_epsilon": 1e-6,
    "activation_function": "gelu",
}


def read(folder: Path, text: str | bytes) -> ModelConfig:
    path = folder / "config.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_model_config(path)


def read_with(folder: Path, **changes: object) -> ModelConfig:
    return read(folder, json.dumps(FIELDS | changes))


def read_without(folder: Path, name: str) -> ModelConfig:
    return read(folder, json.dumps({key: value for key, value in FIELDS.items() if key != name}))


def test_fields_are_read(tmp_path: Path) -> None:
    assert read_with(tmp_path) == ModelConfig(
        model_type="gpt_bigcode",
        layer_count=2,
        head_count=4,
        embedding_size=64,
        inner_size=200,
        context_token_count=128,
        vocabulary_size=400,
        layer_norm_epsilon=1e-6,
        activation="gelu_erf",
    )


def test_a_null_or_absent_inner_size_is_four_times_the_width(tmp_path: Path) -> None:
    assert read_with(tmp_path, n_inner=None).inner_size == 256
    assert read_without(tmp_path, "n_inner").inner_size == 256


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("gelu_fast", "gelu_tanh"),
        ("gelu_pytorch_tanh", "gelu_tanh"),
        ("gelu_new", "gelu_tanh"),
        ("gelu", "gelu_erf"),
    ],
)
def test_the_tanh_spellings_are_one_and_gelu_is_the_exact_one(
    tmp_path: Path, name: str, activation: str
) -> None:
    assert read_with(tmp_path, activation_function=name).activation == activation


def test_unknown_fields_remote_code_and_token_ids_are_ignored(tmp_path: Path) -> None:
    plain = read_with(tmp_path)
    assert plain == read_with(
        tmp_path,
        auto_map={"AutoConfig": "configuration_gpt2_mq.GPT2CustomConfig"},
        eos_token_id=50256,
        bos_token_id="nonsense",
        inference_runner=0,
        architectures=["SomethingElse"],
    )


def test_absent_settings_have_the_defaults_of_the_published_code(tmp_path: Path) -> None:
    assert read_without(tmp_path, "layer_norm_epsilon").layer_norm_epsilon == 1e-5
    assert read_without(tmp_path, "activation_function").activation == "gelu_tanh"


@pytest.mark.fault("D15")
@pytest.mark.parametrize("name", ["model_type", "n_layer", "n_head", "n_embd", "vocab_size"])
def test_a_missing_size_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {name}: is missing"):
        read_without(tmp_path, name)


@pytest.mark.fault("D15")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layer", "2"),
        ("n_layer", 0),
        ("n_layer", True),
        ("n_layer", 2.0),
        ("n_layer", 10**100),
        ("n_head", -4),
        ("n_head", 3),
        ("n_embd", None),
        ("n_inner", 0),
        ("n_positions", [128]),
        ("vocab_size", 1 << 40),
        ("layer_norm_epsilon", "1e-5"),
        ("layer_norm_epsilon", 0),
        ("layer_norm_epsilon", 10**400),
        ("model_type", "llama"),
        ("model_type", ["gpt2"]),
        ("activation_function", "relu"),
        ("activation_function", "x" * 10_000 + "\n"),
    ],
)
def test_a_wrong_value_is_one_line_with_field_and_value(
    tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_with(tmp_path, **{name: value})
    message = str(caught.value)
    assert message.startswith(f"config.json: {name}: ")
    assert "; got " in message
    assert "; allowed " in message
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.fault("D15")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
        ("add_cross_attention", True),
        ("tie_word_embeddings", False),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_a_setting_that_changes_the_function_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {name}: is not supported"):
        read_with(tmp_path, **{name: value})


@pytest.mark.fault("D15")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        (b"\xff\xfe{}\x00", "is not JSON"),
        ("[]", "must hold a JSON object; got list"),
        ('{"n_layer": 2, "n_layer": 3}', "the key 'n_layer' appears twice"),
        ("[" * 200_000, "is nested too deeply"),
        (" " * (1 << 20) + "{}", "too large"),
        ('{"n_layer": ' + "9" * 10_000 + "}", "is not JSON"),
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith("config.json: ")
    assert "\n" not in str(caught.value)


@pytest.mark.fault("D15")
def test_a_missing_config_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: cannot be read.*{tmp_path}"):
        read_model_config(tmp_path / "config.json")
