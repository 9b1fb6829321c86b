"""Where the bodies of Java and JavaScript functions lie: by their braces.

A scanner, not a parser: it knows strings, comments, text blocks, templates and regular
expressions well enough not to count the braces in them, and what stands before a brace well
enough to tell a function's from others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from santacoder_client.loadtest.data.bodies_python import Gap

_TOKENS = {
    "java": re.compile(
        r"""(?P<skip>\s+|//[^\r\n]*|/\*.*?(?:\*/|\Z))
        |(?P<text>\"{3}(?:\\.|.)*?(?:\"{3}|\Z)|"(?:\\.|[^"\\\r\n])*"?|'(?:\\.|[^'\\\r\n])*'?)
        |(?P<word>[\w$]+)|(?P<mark>->|.)""",
        re.VERBOSE | re.DOTALL,
    ),
    "javascript": re.compile(
        r"""(?P<skip>\s+|//[^\r\n]*|/\*.*?(?:\*/|\Z))
        |(?P<text>"(?:\\.|[^"\\\r\n])*"?|'(?:\\.|[^'\\\r\n])*'?)
        |(?P<word>[\w$\#]+)|(?P<mark>=>|.)""",
        re.VERBOSE | re.DOTALL,
    ),
}
_TEMPLATE = re.compile(r"(?:\\.|\$(?!\{)|[^\\`$])*", re.DOTALL)
# Bounded, so that a line of a thousand slashes is not searched a thousand times to its end.
_REGEX = re.compile(
    r"/(?![*/])(?:\\[^\r\n]|\[(?:\\[^\r\n]|[^\]\\\r\n]){0,500}\]|[^/\\\[\r\n]){1,1000}/[a-z]*"
)
_VALUE_ENDS = (")", "]", "}", "text")
"""After one of these, or a name, a slash divides."""
_BEFORE_REGEX = {"return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "else"}
_NOT_CALLED = {
    *("if", "for", "while", "switch", "catch", "synchronized", "try", "with", "await"),
}
"""Words before parentheses that no function's name and parameters are."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`word`, `text`, or the mark itself."""
    text: str
    begin: int
    end: int


def brace_bodies(text: str, language: str) -> list[Gap]:
    """What stands between the braces of every function."""
    tokens = list(_scan(text, language))
    openings = _openings(tokens)
    gaps: list[Gap] = []
    for at, token in enumerate(tokens):
        if token.kind == "}" and at in openings:
            open_at = openings[at]
            if _is_function(tokens, open_at, openings):
                gaps.append((tokens[open_at].end, token.begin))
    return gaps


def _scan(text: str, language: str) -> Iterator[_Token]:
    """Everything that is neither blank nor comment."""
    pattern, at, last = _TOKENS[language], 0, _Token("", "", 0, 0)
    templates: list[int] = []
    """How many braces are open inside each `${` that is."""
    while at < len(text):
        begin = at
        kind, at = _next(pattern, text, at, last, templates)
        if kind != "skip":
            last = _Token(kind, text[begin:at], begin, at)
            yield last


def _next(
    pattern: re.Pattern[str], text: str, at: int, last: _Token, templates: list[int]
) -> tuple[str, int]:
    """The kind and end of what begins here."""
    javascript = pattern is _TOKENS["javascript"]
    if javascript and text[at] == "`":
        return _template(text, at + 1, templates)
    if javascript and text[at] == "/" and not _ends_a_value(last):
        regex = _REGEX.match(text, at)
        if regex:
            return "text", regex.end()
    if templates and text[at] == "}" and templates[-1] == 0:
        templates.pop()
        return _template(text, at + 1, templates)
    match = pattern.match(text, at)
    if match is None or match.lastgroup is None:  # DOTALL's last `.` takes any character
        return "skip", at + 1
    if templates and match.lastgroup == "mark":
        templates[-1] += {"{": 1, "}": -1}.get(match[0], 0)
    return (match[0] if match.lastgroup == "mark" else match.lastgroup), match.end()


def _template(text: str, at: int, templates: list[int]) -> tuple[str, int]:
    """Goes on in a template up to its end or its next `${`."""
    match = _TEMPLATE.match(text, at)
    at = match.end() if match else at
    if text.startswith("${", at):
        templates.append(0)
        return "text", at + 2
    return "text", min(at + 1, len(text))


def _ends_a_value(last: _Token) -> bool:
    return last.kind in _VALUE_ENDS or (last.kind == "word" and last.text not in _BEFORE_REGEX)


def _openings(tokens: list[_Token]) -> dict[int, int]:
    """Where each closing brace and parenthesis was opened."""
    opened: dict[str, list[int]] = {"}": [], ")": []}
    openings: dict[int, int] = {}
    for at, token in enumerate(tokens):
        if token.kind in "{(":
            opened["}" if token.kind == "{" else ")"].append(at)
        elif opened.get(token.kind):
            openings[at] = opened[token.kind].pop()
    return openings


def _is_function(tokens: list[_Token], open_at: int, openings: dict[int, int]) -> bool:
    """Whether this brace opens a function's body."""
    before = open_at - 1
    if before < 0:
        return False
    if tokens[before].kind in ("=>", "->"):
        return not _in_case_label(tokens, before)
    before = _before_throws(tokens, before)
    # `)` opened by nothing, and `(` with nothing before it, name no function.
    named_at = openings.get(before, 0) - 1 if tokens[before].kind == ")" else -1
    if named_at < 0 or tokens[named_at].kind not in ("word", "]", "*"):
        return False
    words = _words_before(tokens, named_at - 1)
    return tokens[named_at].text not in _NOT_CALLED and not {"new", "extends", "record"} & words


def _before_throws(tokens: list[_Token], at: int) -> int:
    """Skips back over `throws A, b.C` to what stands before it."""
    here = at
    while here > 0 and (tokens[here].kind == "word" or tokens[here].kind in (",", ".")):
        if tokens[here].text == "throws":
            return here - 1
        here -= 1
    return at


def _words_before(tokens: list[_Token], at: int) -> set[str]:
    """The words of the same name or call: `new a.B`, `class A extends B`."""
    words: set[str] = set()
    while at >= 0 and (tokens[at].kind == "word" or tokens[at].kind in (".", "<", ">", ",")):
        words.add(tokens[at].text)
        at -= 1
    return words


def _in_case_label(tokens: list[_Token], at: int) -> bool:
    """`case A -> {` is a switch's, not a function."""
    while at >= 0 and tokens[at].kind not in (";", "{", "}"):
        if tokens[at].text in ("case", "default") and tokens[at].kind == "word":
            return True
        at -= 1
    return False
