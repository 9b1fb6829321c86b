"""Gaps in source files: byte-exact, of the kinds asked for, from every file that can be used."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_data import SAME_EXAMPLES, prepared, prompts, source

from santacoder_client.loadtest.data.corpus import MOST_FILE_BYTES, read_corpus
from santacoder_client.loadtest.data.draws import Draws
from santacoder_client.loadtest.data.source import DataError, Prompt
from santacoder_client.loadtest.data.splits import SPLITS, Split, places, split_at

PYTHON = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    c = a - b\n    return c\n"
JAVA = "class A {\r\n  int one() {\r\n    return 1;\r\n  }\r\n}\r\n"
SCRIPT = "const f = (x) => {\n  return `${x}`;\n};\n"
FILES = {"add.py": PYTHON, "deep/down/A.java": JAVA, "f.mjs": SCRIPT}
WHOLE = ("--context-chars", 1_000_000, "--gap-chars", 1_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path, name, text)
    return tmp_path


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fim(folder: Path, *argv: object) -> list[Prompt]:
    return prompts(source("--data", "fim", "--files", folder, *argv), range(60))


def whole_text(prompt: Prompt) -> str:
    assert prompt.expected is not None
    return prompt.prefix + prompt.expected + prompt.suffix


@pytest.mark.parametrize("split", SPLITS)
def test_the_three_parts_are_the_file_byte_for_byte(folder: Path, split: str) -> None:
    made = fim(folder, "--split", split, *WHOLE)
    assert {whole_text(prompt) for prompt in made} == set(FILES.values())
    assert all(prompt.kind == "infill" and prompt.family == f"fim-{split}" for prompt in made)
    assert all(prompt.expected and prompt.prefix + prompt.suffix for prompt in made)


LANGUAGES = st.sampled_from(["python", "java", "javascript"])
CODE = st.text(st.sampled_from("def f():{}\r\n\t =>'\"x1é\u2028🎄`"), min_size=2, max_size=120)


@SAME_EXAMPLES
@given(CODE, LANGUAGES, st.sampled_from(SPLITS), st.integers(1, 200), st.integers())
def test_parts_joined_are_the_text_and_gaps_are_of_the_size_allowed(
    text: str, language: str, split: str, most_chars: int, seed: int
) -> None:
    for place in places(text, language, split, most_chars):
        cut = split_at(text, place, split, most_chars, Draws("test", seed))
        assert cut.prefix + cut.middle + cut.suffix == text
        assert 1 <= len(cut.middle) <= most_chars
        if split == "span":
            assert cut.prefix + cut.suffix, "nothing to ask with"
        if split != "span":
            assert cut.middle.strip()
        if split in ("line", "rest"):
            assert not {"\n", "\r"} & set(cut.middle)
            assert cut.suffix[:1] in ("", "\n", "\r")


@SAME_EXAMPLES
@given(st.text(max_size=50), st.text(max_size=50), st.integers(1, 120))
def test_the_context_kept_is_the_nearest_and_as_much_as_allowed(
    prefix: str, suffix: str, most_chars: int
) -> None:
    cut = Split(prefix, "middle", suffix).trimmed(most_chars)
    assert prefix.endswith(cut.prefix) and suffix.startswith(cut.suffix)
    kept_count = len(cut.prefix) + len(cut.suffix)
    assert kept_count == min(most_chars, len(prefix) + len(suffix))
    if len(prefix) > most_chars < len(suffix):
        assert len(cut.prefix) == most_chars - most_chars // 4


def test_the_middle_is_whole_however_little_context_is_kept(folder: Path) -> None:
    for prompt in fim(folder, "--split", "body", "--context-chars", 4):
        assert len(prompt.prefix + prompt.suffix) == 4
        assert prompt.expected and len(prompt.expected) > 10


def test_lines_are_whole_lines_and_rests_begin_within_one(folder: Path) -> None:
    lines = {line for text in FILES.values() for line in text.splitlines() if line.strip()}
    assert {prompt.expected for prompt in fim(folder, "--split", "line")} <= lines
    for prompt in fim(folder, "--split", "rest", *WHOLE):
        line = whole_text(prompt)[len(prompt.prefix) :].splitlines()[0]
        assert prompt.expected == line and line.lstrip()
        assert not prompt.expected[:1].isspace() or prompt.prefix.splitlines()[-1].strip()


def test_bodies_are_those_of_the_functions(folder: Path) -> None:
    assert {prompt.expected for prompt in fim(folder, "--split", "body")} == {
        "    return a + b",
        "    c = a - b\n    return c",
        "\r\n    return 1;\r\n  ",
        "\n  return `${x}`;\n",
    }


def test_several_splits_are_drawn_alike(folder: Path) -> None:
    counts = Counter(prompt.family for prompt in fim(folder, "--split", "line,body"))
    assert set(counts) == {"fim-line", "fim-body"}
    assert min(counts.values()) > 15


def test_one_language_is_read_if_one_is_named(folder: Path) -> None:
    texts = {whole_text(each) for each in fim(folder, "--language", "java", *WHOLE)}
    assert texts == {JAVA}


def test_answers_have_the_length_asked_for_and_long_prompts_are_cut_by_the_server(
    folder: Path,
) -> None:
    made = fim(folder, "--new-tokens", "uniform:3:5")
    assert {prompt.max_new_tokens for prompt in made} == {3, 4, 5}
    assert {prompt.options["truncate"] for prompt in made} == {"keep_nearest"}


def test_files_that_cannot_be_used_are_counted_by_reason(folder: Path) -> None:
    write(folder, "nul.py", b"x = 1\0")
    write(folder, "latin.py", "é = 1".encode("latin-1"))
    write(folder, "empty.py", " \n")
    write(folder, "large.py", "#" * (MOST_FILE_BYTES + 1))
    write(folder, "notes.txt", "no source")
    write(folder, ".git/hook.py", "x = 1")
    write(folder, "node_modules/m.js", "x()")
    (folder / "link.py").symlink_to(folder / "add.py")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "dangling.py").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.py")
    corpus = read_corpus("--files", str(folder), "all", 100)
    assert {file.path for file in corpus.files} == set(FILES)
    assert corpus.skipped == {
        "binary": 1,
        "empty": 1,
        "not UTF-8": 1,
        "not a file": 1,
        "symlink": 2,
        "too large": 1,
    }
    note = prepared("--data", "fim", "--files", folder).note()
    assert note.startswith("3 files from") and "7 left out (1 binary, " in note


def test_unreadable_files_and_folders_are_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "closed/x.py", "x = 1")
    scan = os.scandir

    def refuse(path: str) -> Any:  # not by permissions: tests may run as root, who has them all
        if path.endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with socket.socket(socket.AF_UNIX) as endpoint:
        monkeypatch.chdir(folder)  # a socket's path is short
        endpoint.bind("socket.py")  # cannot be opened, whoever asks
        corpus = read_corpus("--files", str(folder), "all", 100)
    assert corpus.skipped == {"unreadable": 1, "unreadable folder": 1}


def test_names_that_are_no_text_are_read_too(folder: Path) -> None:
    name = os.fsdecode(b"\xff/\xff.py")
    write(folder, name, "x = 1\ny = 2\n")
    made = source("--data", "fim", "--files", folder / os.fsdecode(b"\xff"), *WHOLE)
    assert str(made.options["files"]).encode().endswith(b"\\udcff")
    assert "x = 1\ny = 2\n" in {whole_text(prompt) for prompt in prompts(made)}
    assert made.sha256


def test_the_same_folder_gives_the_same_prompts_wherever_it_lies(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(folder, copy)
    first = source("--data", "fim", "--files", folder)
    second = source("--data", "fim", "--files", copy)
    assert prompts(first) == prompts(second)
    assert first.sha256 == second.sha256


def test_a_file_more_leaves_the_order_of_the_others(folder: Path) -> None:
    for number in range(20):
        write(folder, f"{number}.py", PYTHON)
    before = [file.path for file in read_corpus("", str(folder), "all", 100).files]
    write(folder, "more.py", PYTHON)
    after = [file.path for file in read_corpus("", str(folder), "all", 100).files]
    assert [path for path in after if path != "more.py"] == before
    assert before != sorted(before)


def test_files_over_the_limit_are_counted_and_the_first_ones_stay(folder: Path) -> None:
    corpus = read_corpus("", str(folder), "all", 2)
    assert corpus.files == read_corpus("", str(folder), "all", 3).files[:2]
    assert corpus.skipped == {"over the limit": 1}


def test_files_take_turns(folder: Path) -> None:
    texts = [whole_text(prompt) for prompt in fim(folder, *WHOLE)]
    assert all(len(set(texts[at : at + 3])) == 3 for at in range(0, 60, 3))


def test_a_folder_without_use_is_refused_with_what_was_found(tmp_path: Path) -> None:
    write(tmp_path, "nul.py", b"\0")
    with pytest.raises(DataError, match=r"^--files: no file to use; got .+1 binary.+; allowed .+"):
        prepared("--data", "fim", "--files", tmp_path)
    with pytest.raises(DataError, match=r"allowed UTF-8 text files, \.java, of"):
        prepared("--data", "fim", "--files", tmp_path, "--language", "java")


def test_a_folder_that_is_none_is_refused(folder: Path) -> None:
    for path in (folder / "nowhere", folder / "add.py"):
        with pytest.raises(DataError, match=r"^--files: .*folder; got .+; allowed a folder"):
            prepared("--data", "fim", "--files", path)


def test_a_split_that_no_file_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "x = 1\n")
    with pytest.raises(DataError, match=r"^--split body: no file has one; got 1 files.+allowed"):
        source("--data", "fim", "--files", tmp_path, "--split", "line,body")


def test_files_without_the_split_are_told_in_the_options(folder: Path) -> None:
    write(folder, "plain.py", "x = 1\n")
    made = source("--data", "fim", "--files", folder, "--split", "body")
    assert made.options["files_left_out"] == {"without a body": 1}
    assert made.options["files_used"] == 4
