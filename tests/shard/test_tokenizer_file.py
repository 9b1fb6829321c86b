"""The ids a shard must know come from tokenizer.json, whatever its family or age."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TokenizerFamily, tokenizer_json
from tokenizers import Tokenizer

from santacoder_shard.errors import CheckpointError
from santacoder_shard.tokenizer_file import TokenizerFile, read_tokenizer


def read(folder: Path, data: bytes, vocabulary_size: int = 400) -> TokenizerFile:
    path = folder / "tokenizer.json"
    path.write_bytes(data)
    return read_tokenizer(path, vocabulary_size)


def edited(family: TokenizerFamily, **changes: Any) -> bytes:
    return json.dumps(json.loads(tokenizer_json(family)) | changes).encode()


def test_santacoder_ids_follow_the_base_vocabulary(tmp_path: Path) -> None:
    found = read(tmp_path, tokenizer_json("santacoder"))
    assert found.end_of_text_id == 384
    assert found.sentinel_ids == (385, 387, 386, 388)
    assert found.token_count == 389
    assert not found.has_underscore_sentinels
    assert found.json_bytes == tokenizer_json("santacoder")


def test_starcoder_ids_come_first_and_have_underscores(tmp_path: Path) -> None:
    found = read(tmp_path, tokenizer_json("starcoder"))
    assert found.end_of_text_id == 0
    assert found.sentinel_ids == (1, 3, 2, 4)
    assert found.token_count == 384
    assert found.has_underscore_sentinels


def test_an_old_revision_gets_the_five_specials_at_the_same_ids(tmp_path: Path) -> None:
    old, new = (read(tmp_path, tokenizer_json(family)) for family in ("old", "santacoder"))
    assert (old.end_of_text_id, old.sentinel_ids) == (new.end_of_text_id, new.sentinel_ids)
    assert old.token_count == new.token_count
    mended = Tokenizer.from_str(old.json_bytes.decode())
    assert mended.get_vocab() == Tokenizer.from_str(new.json_bytes.decode()).get_vocab()
    assert mended.encode("<fim-middle>").ids == [386]
    assert mended.decode([386], skip_special_tokens=True) == ""


def test_a_tokenizer_without_sentinels_has_none(tmp_path: Path) -> None:
    content = json.loads(tokenizer_json("santacoder"))
    content["added_tokens"] = content["added_tokens"][:1]
    found = read(tmp_path, json.dumps(content).encode())
    assert found.sentinel_ids == ()
    assert found.token_count == 385


def test_stored_cutting_and_padding_are_dropped(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json("santacoder").decode())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    found = Tokenizer.from_str(read(tmp_path, tokenizer.to_str().encode()).json_bytes.decode())
    text = "def fibonacci(count):\n"
    plain = Tokenizer.from_str(tokenizer_json("santacoder").decode())
    assert found.encode(text).ids == plain.encode(text).ids
    assert found.encode("x").ids == plain.encode("x").ids


@pytest.mark.fault("D16")
@pytest.mark.parametrize("family", ["santacoder", "old"])
def test_ids_outside_the_embedding_are_refused(tmp_path: Path, family: TokenizerFamily) -> None:
    read(tmp_path, tokenizer_json(family), vocabulary_size=389)
    message = "tokenizer.json: has ids outside the embedding; got 388; allowed 0 to 387"
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, tokenizer_json(family), vocabulary_size=388)


@pytest.mark.fault("D16")
def test_a_vocabulary_that_would_drop_bytes_is_refused(tmp_path: Path) -> None:
    content = json.loads(tokenizer_json("santacoder"))
    vocabulary = content["model"]["vocab"]
    vocabulary["replaced"] = vocabulary.pop("é")
    with pytest.raises(CheckpointError, match="lacks 1 of 243 byte symbols"):
        read(tmp_path, json.dumps(content).encode())


def test_bytes_that_never_occur_in_utf8_may_be_missing(tmp_path: Path) -> None:
    content = json.loads(tokenizer_json("santacoder"))
    vocabulary = content["model"]["vocab"]
    for byte in (0xC0, 0xC1, *range(0xF5, 0x100)):
        vocabulary[f"replaced-{byte}"] = vocabulary.pop(chr(byte))
    assert read(tmp_path, json.dumps(content).encode()).token_count == 389


@pytest.mark.fault("D16")
@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"not json", b"\xff\xff", edited("santacoder", model={"type": "Nothing"})],
    ids=["empty", "no fields", "no json", "no utf-8", "unknown model"],
)
def test_a_damaged_tokenizer_is_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer.json: is not a tokenizer") as caught:
        read(tmp_path, data)
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_library_is_one_line_too(tmp_path: Path) -> None:
    content = json.loads(tokenizer_json("santacoder"))
    content["model"]["continuing_subword_prefix"] = "longer than any token"
    with pytest.raises(CheckpointError, match=r"tokenizer.json: is not a tokenizer") as caught:
        read(tmp_path, json.dumps(content).encode())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("token_id", [1 << 31, 500, 390])
def test_an_added_token_whose_id_the_library_changes_is_refused(
    tmp_path: Path, token_id: int
) -> None:
    content = json.loads(tokenizer_json("santacoder"))
    content["added_tokens"][-1]["id"] = token_id
    with pytest.raises(CheckpointError, match=f"'<fim-pad>': its id is taken.*; got {token_id}; "):
        read(tmp_path, json.dumps(content).encode(), vocabulary_size=600)


@pytest.mark.fault("D16")
def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer.json: cannot be read"):
        read_tokenizer(tmp_path / "tokenizer.json", 400)
