"""Prompts from a JSONL file, and timed traces; every line is checked before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.jsonl_lines import Line, TraceLine, prompt_lines
from santacoder_client.loadtest.data.lengths import NewTokens
from santacoder_client.loadtest.data.settings import (
    Seed,
    Setting,
    described,
    integer,
    json_of,
    path,
    real,
)
from santacoder_client.loadtest.data.source import DataError, ModelFacts, Prompt
from santacoder_client.loadtest.data.stamp import stamp_of
from santacoder_client.loadtest.data.strict_json import objects, read_file
from santacoder_client.loadtest.data.synthetic import EXACT
from santacoder_client.loadtest.data.token_blocks import TokenBlocks, check_room, facts_json

DataFile = Annotated[str, Setting(path, None, "FILE", "JSONL file of prompts, or a timed trace")]
BlockTokens = Annotated[
    int, Setting(integer(1, 65_536), "512", "N", "tokens that one of a trace's hash_ids stands for")
]
LengthScale = Annotated[
    float, Setting(real(1e-6, 1e3), "1", "X", "multiplies a trace's lengths, to fit the context")
]


@dataclass(frozen=True, slots=True)
class JsonlOptions:
    """What `--data jsonl` may be told."""

    data_file: DataFile
    block_tokens: BlockTokens
    length_scale: LengthScale
    new_tokens: NewTokens
    seed: Seed


@dataclass(frozen=True, slots=True)
class JsonlLines:
    """A file as read: its bytes for the stamp, and what each line asks for, in order of time."""

    content: bytes
    lines: tuple[Line, ...]
    is_timed: bool


def read_jsonl(options: JsonlOptions) -> JsonlLines:
    """Reads and checks the whole file; raises DataError at the first line that is wrong."""
    content = read_file("--data-file", options.data_file)
    lines = list(prompt_lines(objects(options.data_file, content)))
    if not lines:
        raise DataError(
            f"{options.data_file}: no prompt in it; got {len(content)} bytes; "
            "allowed one JSON object a line"
        )
    is_timed = lines[0].at_seconds is not None
    for line in lines:
        if (line.at_seconds is not None) != is_timed:
            got = "a line without" if is_timed else "a line with"
            raise DataError(
                f"{line.where}: times on some lines only; got {got}; allowed all or none"
            )
    # Stable: what is due at the same moment stays in the file's order.
    lines.sort(key=lambda line: line.at_seconds or 0.0)
    return JsonlLines(content, tuple(lines), is_timed)


class JsonlSource:
    """The file's prompts in order; after the last the first again, unless they have times."""

    name = "jsonl"

    def __init__(self, options: JsonlOptions, read: JsonlLines, model: ModelFacts) -> None:
        self._options = options
        self._lines = read.lines
        self._blocks = TokenBlocks(model)
        self.schedule: tuple[float, ...] | None = None
        if read.is_timed:
            self.schedule = tuple(line.at_seconds or 0.0 for line in read.lines)
        for line in read.lines:
            self._check(line, model)
        self.options: Mapping[str, object] = {**described(options), "lines_used": len(read.lines)}
        stamped = {key: value for key, value in json_of(options).items() if key != "data_file"}
        contents = [("data-file", read.content)]
        self.sha256 = stamp_of(self.name, {**stamped, **facts_json(model)}, contents)

    def prompt(self, index: int) -> Prompt:
        """Prompt number `index`; raises IndexError behind the end of a timed trace."""
        place = index if self.schedule is not None else index % len(self._lines)
        line = self._lines[place]
        if line.trace is not None:
            return self._of_trace(line.trace, line.at_seconds)
        if line.prompt.max_new_tokens is not None:
            return line.prompt
        draws = Draws(self.name, self._options.seed, index)
        return replace(line.prompt, max_new_tokens=self._options.new_tokens.draw(draws))

    def _of_trace(self, trace: TraceLine, at_seconds: float | None) -> Prompt:
        """As many tokens as the trace says; the same ids wherever it has the same hash."""
        block_count, prompt_count, new_count = self._scaled(trace)
        ids: list[int] = []
        for hash_id in trace.hash_ids:
            if len(ids) < prompt_count:
                label = (self.name, self._options.seed, "block", hash_id)
                ids.extend(self._blocks.draw(block_count, label))
        return Prompt(
            kind="token_ids",
            token_ids=tuple(ids[:prompt_count]),
            family="trace",
            max_new_tokens=new_count,
            scheduled_at=at_seconds,
            options=EXACT,
        )

    def _scaled(self, trace: TraceLine) -> tuple[int, int, int]:
        """Tokens of a block, of the prompt, of the answer."""
        scale = self._options.length_scale
        block_count = max(1, round(self._options.block_tokens * scale))
        # Rounding must not ask for more than the hashed blocks hold.
        most = block_count * len(trace.hash_ids)
        prompt_count = min(max(1, round(trace.input_length * scale)), most)
        return block_count, prompt_count, max(1, round(trace.output_length * scale))

    def _check(self, line: Line, model: ModelFacts) -> None:
        """What only the served model can refuse."""
        if line.trace is not None:
            blocks_needed = -(-line.trace.input_length // self._options.block_tokens)
            if len(line.trace.hash_ids) != blocks_needed:
                raise DataError(
                    f"{line.where}: hash_ids: not one for each {self._options.block_tokens} tokens "
                    f"of input_length; got {len(line.trace.hash_ids)}; allowed {blocks_needed} "
                    "(or other --block-tokens)"
                )
            _, prompt_count, new_count = self._scaled(line.trace)
            check_room(model, f"{line.where}: input_length", prompt_count, new_count)
        for place, token_id in enumerate(line.prompt.token_ids):
            if token_id >= model.token_count:
                raise DataError(
                    f"{line.where}: token_ids[{place}]: out of range; got {token_id}; "
                    f"allowed 0 to {model.token_count - 1}"
                )
        if line.prompt.token_ids:
            count = len(line.prompt.token_ids)
            check_room(model, f"{line.where}: token_ids", count, line.prompt.max_new_tokens or 1)
