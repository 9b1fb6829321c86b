"""Files from outside: weights, config, tokenizer, index, manifest, tokens, and lines of JSONL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from checkpoints import make_checkpoint
from fuzz.mutations import Make, either, mutated, noise
from fuzz.target import Target
from small_tokenizer import tokenizer_json

from santacoder_client.loadtest.data.jsonl_lines import prompt_lines
from santacoder_client.loadtest.data.source import DataError
from santacoder_client.loadtest.data.strict_json import objects
from santacoder_router.reloading import UnusableFile
from santacoder_router.text.tokenizer import Tokenizer, TokenizerFileError
from santacoder_router.tokens import read_tokens
from santacoder_shard import model_config, pickled_tensors, safetensors_header, tokenizer_file
from santacoder_shard.errors import CheckpointError
from santacoder_shard.weight_files import find_weight_files

VOCABULARY_SIZE = 400
MOST_LINE = 600
Read = Callable[[Path], object]
REFUSALS = (CheckpointError, UnusableFile, TokenizerFileError, DataError)
LINES = (
    b'{"prompt": "a", "max_new_tokens": 4, "temperature": 0.5, "logit_bias": {"5": 1.0}}\n',
    b'{"prefix": "a", "suffix": "b", "stop": ["x"], "at": 0.25, "seed": 7}\n',
    b'{"token_ids": [1, 2, 3], "family": "f", "cache_salt": "s"}\n{"prompt": "b"}\n',
    b'{"timestamp": 5, "input_length": 600, "output_length": 4, "hash_ids": [1, 2]}\n',
)
TOKENS = (
    f"# comment\nalice {hashlib.sha256(b'a').hexdigest()} complete,info\n"
    f"bob {hashlib.sha256(b'b').hexdigest()} complete 2030-12-31T23:59:59Z\n"
).encode()


def file_targets(folder: Path) -> tuple[Target, ...]:
    """Each reader with sound files to begin from, which are made in `folder`."""
    plain = make_checkpoint(folder / "plain", vocabulary=VOCABULARY_SIZE)
    pickled = make_checkpoint(folder / "pickled", file_format="bin")
    index = {"weight_map": {"a": "model-1.safetensors"}, "metadata": {"total_size": 5}}
    (folder / "model-1.safetensors").write_bytes(b"")
    weights = (plain / "model.safetensors").read_bytes()
    return (
        _of_file(folder, "model.safetensors", safetensors_header.list_tensors, weights),
        _of_file(
            folder,
            "pytorch_model.bin",
            pickled_tensors.list_tensors,
            (pickled / "pytorch_model.bin").read_bytes(),
        ),
        _of_file(
            folder,
            "config.json",
            model_config.read_model_config,
            (plain / "config.json").read_bytes(),
            is_text=True,
        ),
        _of_file(folder, "tokenizer.json", _read_tokenizer, tokenizer_json(), is_text=True),
        _of_file(
            folder,
            "model.safetensors.index.json",
            lambda path: find_weight_files(path.parent),
            json.dumps(index).encode(),
            is_text=True,
        ),
        _of_file(folder, "tokens", read_tokens, TOKENS, is_text=True),
        Target("lines of JSONL", either(mutated(LINES, is_text=True), noise()), _take_lines),
    )


def _read_tokenizer(path: Path) -> None:
    """As a rank reads it for its ids, and then the router for its texts."""
    read = tokenizer_file.read_tokenizer(path, VOCABULARY_SIZE)
    tokenizer = Tokenizer(read.json_bytes)
    for text in ("def f(x):\n    return x", "é☃😀\0"):
        [ids] = tokenizer.encode(text)
        tokenizer.detokenize(ids)


def _of_file(folder: Path, name: str, read: Read, sound: bytes, is_text: bool = False) -> Target:
    own = folder / f"fuzz-{name}"
    own.mkdir()
    path = own / name
    path.touch(mode=0o600)
    (own / "model-1.safetensors").touch()

    def take(data: bytes) -> None:
        path.write_bytes(data)
        refused_in_one_line(lambda: read(path))

    return Target(name, _near_the_front(sound) if not is_text else mutated((sound,), True), take)


def _near_the_front(sound: bytes) -> Make:
    """What a reader judges by comes first in these files, and the values after it may be cut."""
    front = sound[: min(len(sound), 16_384)]
    whole, cut = mutated((sound,)), mutated((front,))
    return either(lambda source: cut(source) + sound[len(front) :], whole, noise(200))


def _take_lines(data: bytes) -> None:
    refused_in_one_line(lambda: list(prompt_lines(objects("data.jsonl", data))))


def refused_in_one_line(read: Callable[[], object]) -> None:
    """Whatever a reader raises must be its own error, and a line that a person can be shown."""
    try:
        read()
    except REFUSALS as error:
        if "\n" in str(error) or len(str(error)) > MOST_LINE:
            raise AssertionError(f"not one line: {str(error)[:200]!r}") from error
