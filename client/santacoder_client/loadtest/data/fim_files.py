"""Fill-in-the-middle prompts cut from source files on the user's own disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from santacoder_client.loadtest.data.bodies_python import Gap
from santacoder_client.loadtest.data.corpus import Corpus, SourceFile, told
from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.file_options import (
    MOST_CONTEXT_CHARS,
    ContextChars,
    Folder,
    Language,
    MaxFiles,
    infill_prompt,
    without_folder,
)
from santacoder_client.loadtest.data.lengths import NewTokens
from santacoder_client.loadtest.data.settings import (
    Seed,
    Setting,
    described,
    integer,
    json_of,
    shown,
)
from santacoder_client.loadtest.data.source import DataError, Prompt
from santacoder_client.loadtest.data.splits import SPLITS, places, split_at
from santacoder_client.loadtest.data.stamp import stamp_of


@dataclass(frozen=True, slots=True)
class SplitNames:
    """One or several kinds of split, each as likely as the others."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.names)


def parse_splits(what: str, text: str) -> SplitNames:
    """Reads `line` or `span,line,body`."""
    names = text.split(",")
    allowed = f"{', '.join(SPLITS)}, each once, with commas between"
    if len(set(names)) < len(names) or not set(names) <= set(SPLITS):
        raise DataError(f"{what}: unknown or twice; got {shown(text)}; allowed {allowed}")
    return SplitNames(tuple(names))


HowSplit = Annotated[
    SplitNames,
    Setting(parse_splits, "span", "HOW", f"what is taken out: {', '.join(SPLITS)}; or several"),
]
GapChars = Annotated[
    int, Setting(integer(1, MOST_CONTEXT_CHARS), "1000", "N", "most characters in the gap")
]


@dataclass(frozen=True, slots=True)
class FimOptions:
    """What `--data fim` may be told."""

    files: Folder
    language: Language
    max_files: MaxFiles
    split: HowSplit
    context_chars: ContextChars
    gap_chars: GapChars
    new_tokens: NewTokens
    seed: Seed


@dataclass(frozen=True, slots=True)
class _Place:
    file: SourceFile
    gaps: tuple[Gap, ...]


class FimSource:
    """Every prompt is a file with a gap; files take turns, and then come again with other gaps."""

    name = "fim"
    schedule = None

    def __init__(self, options: FimOptions, corpus: Corpus) -> None:
        self._options = options
        without: Counter[str] = Counter()
        self._places: Mapping[str, tuple[_Place, ...]] = {
            split: tuple(_places(corpus, split, options.gap_chars, without))
            for split in options.split.names
        }
        for split, found in self._places.items():
            if not found:
                raise DataError(
                    f"--split {split}: no file has one; got {len(corpus.files)} files, "
                    f"{told(corpus.skipped)}; "
                    f"allowed at least one, of at most {options.gap_chars} characters"
                )
        self.options: Mapping[str, object] = {
            **described(options),
            "files_used": len(corpus.files),
            "files_left_out": {**corpus.skipped, **without},
        }
        contents = ((file.path, file.text.encode()) for file in corpus.files)
        self.sha256 = stamp_of(self.name, without_folder(json_of(options)), contents)

    def prompt(self, index: int) -> Prompt:
        """Prompt number `index`."""
        options = self._options
        draws = Draws(self.name, options.seed, index)
        split = options.split.names[draws.below(len(options.split.names))]
        found = self._places[split]
        place = found[index % len(found)]
        gap = place.gaps[draws.below(len(place.gaps))]
        cut = split_at(place.file.text, gap, split, options.gap_chars, draws)
        return infill_prompt(
            cut.trimmed(options.context_chars),
            family=f"fim-{split}",
            new_tokens=options.new_tokens.draw(draws),
        )


def _places(corpus: Corpus, split: str, most_chars: int, without: Counter[str]) -> Iterator[_Place]:
    for file in corpus.files:
        gaps = places(file.text, file.language, split, most_chars)
        # A gap that is the whole file leaves nothing to ask with.
        gaps = tuple(gap for gap in gaps if split == "span" or gap != (0, len(file.text)))
        if gaps and len(file.text) > 1:
            yield _Place(file, gaps)
        else:
            without[f"without a {split}"] += 1
