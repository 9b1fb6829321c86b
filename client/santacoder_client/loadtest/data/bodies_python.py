"""Where the bodies of Python functions lie: by the parser, else by indentation."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

Gap = tuple[int, int]
"""Begin and end of a stretch of text, in characters."""

_LINE_END = re.compile(r"\r\n|\r|\n")
_DEF = re.compile(r"([ \t]*)(?:async[ \t]+)?def[ \t]+\w+[ \t]*[(\[]")
MOST_HEADER_LINES = 100
"""A bound, so that a file of headers alone is not read once for each of them."""
_HEADER_END = re.compile(r":[ \t]*(?:#[^\r\n]*)?$")


def python_bodies(text: str) -> list[Gap]:
    """The body of every function; from the beginning of its first line, docstring left outside."""
    if text.startswith("\ufeff"):  # a mark of bytes, which the parser knows only in bytes
        return [(begin + 1, end + 1) for begin, end in python_bodies(text[1:])]
    tree = _parse(text)
    return list(_by_indentation(text) if tree is None else _by_tree(text, tree))


def line_starts(text: str) -> list[int]:
    """Where each line begins, by what Python and editors take for an end of line."""
    return [0, *(match.end() for match in _LINE_END.finditer(text))]


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in somebody's file
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _by_tree(text: str, tree: ast.Module) -> Iterator[Gap]:
    starts = line_starts(text)

    def position(line: int, column_bytes: int) -> int:
        begin = starts[line - 1]
        line_text = text[begin : starts[line] if line < len(starts) else len(text)]
        if line_text.isascii():
            return begin + column_bytes
        return begin + len(line_text.encode()[:column_bytes].decode())

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, last = _first_statement(node), node.body[-1]
            begin = position(*_begin_of(first))
            line_begin = starts[_begin_of(first)[0] - 1]
            if not text[line_begin:begin].strip():
                begin = line_begin
            end = position(last.end_lineno or last.lineno, last.end_col_offset or 0)
            yield begin, end


def _first_statement(node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.stmt:
    """The first statement that is not the docstring, if there is another."""
    skips_docstring = len(node.body) > 1 and ast.get_docstring(node, clean=False) is not None
    return node.body[1 if skips_docstring else 0]


def _begin_of(statement: ast.stmt) -> tuple[int, int]:
    """A decorated statement begins with its first decorator's @."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        if statement.decorator_list:
            first = statement.decorator_list[0]
            return first.lineno, statement.col_offset
    return statement.lineno, statement.col_offset


def _by_indentation(text: str) -> Iterator[Gap]:
    """For text that does not parse: what is indented further than its `def`."""
    starts = line_starts(text)
    ends = [*starts[1:], len(text)]
    lines = [text[begin:end].rstrip("\r\n") for begin, end in zip(starts, ends, strict=True)]
    for number, line in enumerate(lines):
        header = _DEF.match(line)
        if header is None:
            continue
        ahead = range(number, min(number + MOST_HEADER_LINES, len(lines)))
        first = next((at + 1 for at in ahead if _HEADER_END.search(lines[at])), len(lines))
        last = first
        for at in range(first, len(lines)):
            if lines[at].strip():
                if _indentation(lines[at]) <= len(header[1]):
                    break
                last = at + 1
        if last > first:
            yield starts[first], starts[last - 1] + len(lines[last - 1])


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
