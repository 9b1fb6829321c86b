"""Where the bodies of functions lie in Python, Java and JavaScript."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from load_data import SAME_EXAMPLES

from santacoder_client.loadtest.data.bodies_braces import brace_bodies
from santacoder_client.loadtest.data.bodies_python import python_bodies


def in_python(text: str) -> list[str]:
    return [text[begin:end] for begin, end in sorted(python_bodies(text))]


def in_braces(language: str, text: str) -> list[str]:
    return [text[begin:end] for begin, end in sorted(brace_bodies(text, language))]


def test_a_python_body_begins_with_its_first_line_and_ends_with_its_last() -> None:
    text = "x = 1\ndef add(a, b):\n    # sums\n    c = a + b\n    return c\n\n\ny = 2\n"
    assert in_python(text) == ["    c = a + b\n    return c"]


def test_a_docstring_stays_outside_unless_it_is_all_there_is() -> None:
    assert in_python('def f():\n    """Says."""\n    return 1\n') == ["    return 1"]
    assert in_python('def f():\n    """Says."""\n') == ['    """Says."""']


def test_nested_async_and_method_bodies_are_found() -> None:
    text = "class A:\n  async def f(self):\n    def g():\n      pass\n    return g\n"
    assert in_python(text) == ["    def g():\n      pass\n    return g", "      pass"]


def test_a_body_on_the_line_of_its_def_is_what_stands_behind_the_colon() -> None:
    assert in_python("def f(x): return x; \n") == ["return x"]


def test_a_body_that_begins_with_a_decorator_has_it_whole() -> None:
    text = "def f():\n    @cached\n    def g():\n        return 1\n    return g\n"
    assert in_python(text)[0].startswith("    @cached\n")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_columns_are_right_behind_wide_characters_and_at_every_line_end(end: str) -> None:
    lines = [
        "s = 'é🎄'",
        "def f(é): x = 'ü🎄'; return x",
        "def g():",
        "  'ß'; y = 1",
        "  return y",
        "",
    ]
    assert in_python(end.join(lines)) == ["x = 'ü🎄'; return x", f"y = 1{end}  return y"]


def test_a_byte_order_mark_moves_nothing() -> None:
    assert in_python("\ufeffdef f():\n    return 1\n") == ["    return 1"]


def test_python_that_does_not_parse_is_read_by_its_indentation() -> None:
    text = (
        "def f(a,\n      b):  # two\n    print a\n\n    if a:\n        return b\n\n\n"
        "class A:\n\tasync def g(self):\n\t\tpass\n\tx = 1\n"
    )
    assert in_python(text) == ["    print a\n\n    if a:\n        return b", "\t\tpass"]


@pytest.mark.parametrize(
    "text", ["def f(", "def f():", "def f(x)\n  pass", "(" * 5000, "a\x00b", ""]
)
def test_broken_python_has_no_body_and_does_no_harm(text: str) -> None:
    assert in_python(text) == []


def test_java_methods_constructors_and_lambdas_have_bodies() -> None:
    text = """
    class A<T> extends B {
      static { init(); }
      int[] n = {1, 2};
      A(int x) throws IOException, a.b.C { this.x = x; }
      @Override public <U> Map<String, U> of(List<U> us) { return us.map(u -> { go(u); }); }
      void record(int record) { if (record > 0) { a(); } else { b(); } }
    }
    record P(int x) { }
    """
    assert in_braces("java", text) == [
        " this.x = x; ",
        " return us.map(u -> { go(u); }); ",
        " go(u); ",
        " if (record > 0) { a(); } else { b(); } ",
    ]


def test_java_blocks_that_are_no_functions_have_none() -> None:
    text = """
    for (int i = 0; ; ) { } while (x) { } switch (x) { case 1 -> { a(); } default -> { } }
    try (R r = open()) { } catch (E e) { } finally { } synchronized (this) { } do { } while (y);
    Object o = new Runnable(1) { };
    """
    assert in_braces("java", text) == []


def test_java_strings_comments_characters_and_text_blocks_hold_no_braces() -> None:
    body = ' s = "}\\"}"; c = \'}\'; // }\n /* } */ t = """\n } " \\""" }\n """; '
    assert in_braces("java", f"void f() {{{body}}} void g() {{}}") == [body, ""]


def test_javascript_functions_methods_and_arrows_have_bodies() -> None:
    text = """
    function a(x) { 1 }
    const b = async function* (x) { 2 }, c = (x) => { 3 }, d = x => ({ no: 1 });
    class E extends mix(F) { constructor() { 4 } get #g() { 5 } *h() { 6 } [Symbol.i]() { 7 } }
    """
    assert in_braces("javascript", text) == [f" {number} " for number in range(1, 8)]


def test_javascript_blocks_that_are_no_functions_have_none() -> None:
    text = """
    if (a) { } else if (b) { } for await (const x of y) { } while (z) { } switch (q) { case 1: { } }
    try { } catch (e) { } with (o) { } const o = { a: { } }; label: { } class A extends B(C) { }
    """
    assert in_braces("javascript", text) == []


def test_javascript_strings_comments_templates_and_patterns_hold_no_braces() -> None:
    body = (
        " s = '}' + \"}\"; // }\n /* } */ r = /[/}]\\/}/g.test(x) / 2; return /}/ || a / b / c;"
        " t = `} ${ {a: `}${'}'}`} } $ \\` }`; "
    )
    assert in_braces("javascript", f"function f() {{{body}}} function g() {{}}") == [body, ""]


def test_a_function_inside_a_template_is_one() -> None:
    assert in_braces("javascript", "`a${ (() => { return 1 })() }b`") == [" return 1 "]


@pytest.mark.parametrize("language", ["java", "javascript"])
@SAME_EXAMPLES
@given(st.text(st.sampled_from("{}()`$'\"/*\\[]=>-;:\n a1fifnewcase\u2028é"), max_size=200))
def test_any_text_is_scanned_and_gaps_lie_between_braces(language: str, text: str) -> None:
    for begin, end in brace_bodies(text, language):
        assert 0 < begin <= end < len(text)
        assert text[begin - 1] == "{" and text[end] == "}"


@SAME_EXAMPLES
@given(st.text(st.sampled_from("def f():\n\r\t\x0c  async,'\"#\\x1é@🎄"), max_size=200))
def test_any_python_is_read_and_gaps_lie_in_it(text: str) -> None:
    for begin, end in python_bodies(text):
        assert 0 < begin < end <= len(text)


@pytest.mark.parametrize(
    "unit", ["){", "(", "{", "/[", "`${", "a ", '"\\', "=>{", "/*", "//", '"""', "a,", "\\"]
)
@pytest.mark.parametrize("language", ["java", "javascript"])
def test_a_file_made_to_be_slow_is_not(language: str, unit: str) -> None:
    """A scanner that looks back or ahead without bound takes hours for these."""
    began = time.monotonic()
    brace_bodies(unit * (40_000 // len(unit)), language)
    assert time.monotonic() - began < 20


def test_python_made_to_be_slow_is_not() -> None:
    began = time.monotonic()
    python_bodies("def f(\n" * 20_000)
    python_bodies("def f():\n x(\n" * 5_000)
    assert time.monotonic() - began < 20
