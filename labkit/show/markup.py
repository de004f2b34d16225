"""Pieces of HTML that an untrusted notebook keeps and that read in a light and in a dark theme.

Text takes the colour of the theme; what is coloured has its own ground (white letters on a dark chip), so that it reads on
both, and says the same by a sign or a word. Only inline styles, as the sanitizer of JupyterLab drops the rest.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence

from labkit.show.text import clean, cut

LONGEST = 200
"""Letters of a name in HTML before it is cut in the middle."""

VERBATIM = "mathjax_ignore tex2jax_ignore"
"""Classes that keep JupyterLab and nbconvert from taking what stands between two `$` of a shell line for a formula."""

GREEN, AMBER, RED, BLUE, GREY = "#1a7f37", "#8a5c00", "#b42332", "#0b5cad", "#59636e"
"""Grounds of chips: white on each has a contrast of at least 5, each on white and on #111111 at least 3."""

LINE = "1px solid rgba(128,128,128,0.35)"
MONO = "font-family:monospace;font-size:12px;"
QUIET = "opacity:0.72;"
_BOX = f"margin:4px 0;padding:6px 12px;border:{LINE};border-left:3px solid rgba(128,128,128,0.55);border-radius:4px;"
_CELL = "text-align:left;vertical-align:top;padding:2px 14px 2px 0;border:none;background:transparent;"
_CHIP = "display:inline-block;padding:0 6px;border-radius:3px;font-size:11px;line-height:16px;white-space:nowrap;"
_LONG_NAME = re.compile(r"[\w.-]{24,}")
_TABLE = "border-collapse:collapse;border:none;margin:0;table-layout:auto;width:auto;font-size:13px;line-height:1.5;"


def escape(text: object, limit: int = LONGEST) -> str:
    """Make a value from outside safe as HTML text and as an attribute: printable, cut at `limit`, escaped."""
    return html.escape(cut(text, limit), quote=True)


def escape_block(text: str) -> str:
    """Escape text of several lines, keeping them and their length."""
    return "\n".join(html.escape(clean(line), quote=True) for line in text.split("\n"))


def element(name: str, inner: str = "", style: str = "", **attributes: str) -> str:
    """Write one element; `inner` is HTML already, attribute values are escaped here."""
    written = "".join(f' {key.rstrip("_")}="{escape_block(value)}"' for key, value in attributes.items())
    return f"<{name}{written}" + (f' style="{style}"' if style else "") + f">{inner}</{name}>"


def chip(text: str, ground: str = GREY, *, hollow: bool = False) -> str:
    """Write a short word on its own ground; a hollow one has a frame instead, in the colour of the text around it."""
    look = "border:1px solid;background:transparent;" if hollow else f"border:1px solid {ground};background:{ground};color:#ffffff;"
    return element("span", escape(text), look + _CHIP)


def code(text: object, limit: int = LONGEST) -> str:
    """Write a name as the kernel or the shell has it."""
    return element("span", breakable(text, limit), MONO + "overflow-wrap:anywhere;")


def breakable(text: object, limit: int = LONGEST) -> str:
    """Write text in which a line may be broken after each slash, and at the dots of a long name, also where a notebook is not trusted."""
    return _LONG_NAME.sub(lambda name: name[0].replace(".", ".<wbr>"), escape(text, limit).replace("/", "/<wbr>"))


def code_block(text: str) -> str:
    """Write lines as they are typed; the rest of one that is too long is set in, so that each is seen to begin."""
    lines = [element("div", line, "padding-left:2em;text-indent:-2em;") for line in escape_block(text).split("\n")]
    return element("div", "".join(lines), MONO + "line-height:1.5;white-space:pre-wrap;overflow-wrap:break-word;")


def quiet(text: object) -> str:
    """Write what is said in passing."""
    return element("span", escape(text), QUIET)


def box(*parts: str) -> str:
    """Frame HTML parts as one view."""
    return element("div", "".join(parts), _BOX + "font-size:13px;line-height:1.5;max-width:900px;", class_=VERBATIM)


def figure(*parts: str) -> str:
    """Make one view of a picture, which has its own frame, and what stands below it."""
    return element("div", "".join(parts), "margin:4px 0;", class_=VERBATIM)


def heading(title: str) -> str:
    """Write the title of a view; nothing where there is none."""
    return element("div", escape(title), "font-weight:600;margin:0 0 4px 0;") if title else ""


def note(text: str) -> str:
    """Write a line under a view that explains its signs."""
    return element("div", escape(text, 1000), QUIET + "font-size:12px;margin:4px 0 0 0;")


def grid(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Write a table; the cells are HTML already, the header is text."""
    head = ""
    if header:
        cells = (element("th", escape(name), _CELL + f"{QUIET}font-weight:600;border-bottom:{LINE};") for name in header)
        head = element("thead", element("tr", "".join(cells), "background:transparent;"))
    body = "".join(element("tr", "".join(element("td", cell, _CELL) for cell in row), "background:transparent;") for row in rows)
    return element("table", head + element("tbody", body), _TABLE)


def labelled(rows: Iterable[tuple[str, str]]) -> str:
    """Write parts below each other, each with a word at its left.

    The width is that of the page and not of what is inside: in an untrusted notebook `overflow-wrap:anywhere` is dropped, and
    a long typed line would make a table wider than the page.
    """
    style = _CELL + "width:60px;"
    lines = (element("td", quiet(word), style) + element("td", inner, _CELL) for word, inner in rows)
    body = "".join(element("tr", line, "background:transparent;") for line in lines)
    return element("table", element("tbody", body), _TABLE.replace("table-layout:auto;width:auto;", "table-layout:fixed;width:100%;"))


def fold(summary: str, inner: str) -> str:
    """Hide HTML behind a line of text that opens it."""
    return element("details", element("summary", escape(summary), "cursor:pointer;" + QUIET) + inner, "margin:0;")


def picture(svg: str, text: str, size: tuple[int, int]) -> str:
    """Show an SVG as an image whose alternative text is the text form.

    Inline SVG would be dropped from an untrusted notebook; an image with a data URI stays.

    Args:
        svg: the document.
        text: the text form of the same view.
        size: width and height in pixels.
    """
    address = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    look = 'style="max-width:100%;height:auto;display:block;"'
    return f'<img alt="{escape_block(text)}" src="{address}" width="{size[0]}" height="{size[1]}" {look}>'
