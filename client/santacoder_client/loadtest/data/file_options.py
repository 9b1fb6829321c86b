"""What the sources that read a folder have in common: their options, and the prompt of a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from santacoder_client.loadtest.data.corpus import LANGUAGES
from santacoder_client.loadtest.data.settings import Setting, integer, one_of, path
from santacoder_client.loadtest.data.source import Prompt
from santacoder_client.loadtest.data.splits import Split

MOST_CONTEXT_CHARS = 1024 * 1024
MOST_FILES = 100_000

Folder = Annotated[str, Setting(path, None, "DIR", "folder with source files")]
Language = Annotated[
    str, Setting(one_of(*LANGUAGES), "all", "NAME", f"files of: {', '.join(LANGUAGES)}")
]
MaxFiles = Annotated[int, Setting(integer(1, MOST_FILES), "500", "N", "most files to read")]
ContextChars = Annotated[
    int, Setting(integer(1, MOST_CONTEXT_CHARS), "2000", "N", "most characters around the gap")
]


def infill_prompt(cut: Split, family: str, new_tokens: int) -> Prompt:
    """The prompt of a split. Its tokens are not known here: the server keeps the nearest ones."""
    return Prompt(
        kind="infill",
        prefix=cut.prefix,
        suffix=cut.suffix,
        expected=cut.middle,
        family=family,
        max_new_tokens=new_tokens,
        options={"truncate": "keep_nearest"},
    )


def without_folder(options: Mapping[str, object]) -> dict[str, object]:
    """For the stamp: the same files elsewhere are the same data."""
    return {name: value for name, value in options.items() if name != "files"}
