"""HTML that cannot be broken out of: a string is escaped unless it is Html already."""

from __future__ import annotations

import html

VOID = frozenset({"meta", "link", "br", "path", "line", "rect", "polyline"})


class Html(str):
    """Markup that `element` made; everything in it is escaped where it had to be."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: str | None) -> Html:
    """One element. `class_` is class, `aria_label` is aria-label; None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in VOID and not children:
        return Html(f"<{tag}{written}/>")
    return Html(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: str) -> Html:
    return Html("".join(child if isinstance(child, Html) else escaped(child) for child in children))


def escaped(text: str) -> Html:
    """Text as markup. Control characters, which a terminal's bytes may hold, are made visible."""
    visible = "".join(
        character if character.isprintable() or character in " \n\t" else _shown(character)
        for character in text
    )
    return Html(html.escape(visible))


def _shown(character: str) -> str:
    # Spaces of other widths are our own and no danger; a lone surrogate could not be written.
    return (
        character if character.isspace() and ord(character) > 0x9F else "\N{REPLACEMENT CHARACTER}"
    )
