"""A short message with its kind said by a sign and a word: checks, hints, predictions, the doctor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from labkit.show import markup
from labkit.show.changes import shell_lines
from labkit.show.text import WIDTH, cut, indent, joined, pad, width, wrap
from labkit.show.view import View

if TYPE_CHECKING:
    from labkit.host.findings import Finding

KINDS: dict[str, tuple[str, str, str]] = {
    "passed": ("✔", "passed", markup.GREEN),
    "not yet": ("○", "not yet", markup.AMBER),
    "failed": ("✘", "failed", markup.RED),
    "green": ("✔", "green", markup.GREEN),
    "amber": ("▲", "amber", markup.AMBER),
    "red": ("✘", "red", markup.RED),
    "expected": ("✔", "as meant", markup.GREEN),
    "error": ("✘", "error", markup.RED),
    "warning": ("▲", "warning", markup.AMBER),
    "prediction": ("?", "prediction", markup.BLUE),
    "measured": ("=", "measured", markup.BLUE),
    "hint": ("*", "hint", markup.BLUE),
    "solution": ("$", "solution", markup.BLUE),
    "task": ("□", "task", markup.BLUE),
    "note": ("·", "note", markup.GREY),
}
"""Kind to sign, word and colour; a kind that is not here is shown with its own name, in grey."""

_LABEL = re.compile(r"(?:measured|cause|remedy|predicted|hint \d+ of \d+):(?= )")

_TASK = re.compile(r"\[([\w-]+)\] ")


def notice(kind: str, title: str, lines: Iterable[str] = ()) -> View:
    """Show a message.

    Args:
        kind: one of `KINDS`; "card" for the head of a lab; or any other word.
        title: what is said, one sentence.
        lines: what follows, each a paragraph; a line that begins with two spaces is kept as it is typed.
    """
    if kind == "card":
        return _card(title, lines)
    sign, word, colour = KINDS.get(kind, ("·", kind, markup.GREY))
    details = [line for text in lines for line in text.split("\n")]
    label = pad(f"{sign} {cut(word, 24)}", 10) + "  "
    margin = " " * width(label)
    room = WIDTH - width(label)
    below = shell_lines("\n".join(details), room) if kind == "solution" else [part for line in details for part in _wrapped(line, room)]
    written = [*_wrapped(title, room), *(below if details else [])]
    text = joined([(label + written[0]).rstrip(), *indent(written[1:], margin)])
    body = markup.code_block("\n".join(details)) if kind == "solution" else "".join(map(_paragraph, details))
    head = markup.chip(f"{sign} {word}", colour) + " " + markup.element("span", markup.escape(title, 1000), "font-weight:600;")
    return View(text, markup.box(markup.element("div", head), body))


def finding(found: Finding, written: Callable[[str], str] = str) -> View:
    """Show what one check of the doctor measured.

    Args:
        found: the finding.
        written: how its cause and its remedy are written, such as with $LAB in place of a path.
    """
    lines = [f"{word}: {written(said)}" for word, said in (("cause", found.cause), ("remedy", found.remedy)) if said]
    return notice(found.colour, f"{found.id}: {found.measured}", lines)


def _wrapped(line: str, limit: int) -> list[str]:
    if not line.startswith("  "):
        return wrap(line, limit, hanging="  " if line.startswith("- ") else "")
    return ["  " + part for part in wrap(line[2:], limit - 2, hanging="  ")]


def _paragraph(line: str) -> str:
    """Write a line of HTML: shell as typed, a point of a list with its dot, `cause: ...` with the word set apart."""
    if line.startswith("  "):
        return markup.code_block(line)
    if line.startswith("- "):
        return markup.element("div", "• " + markup.escape(line[2:], 1000), "padding-left:14px;text-indent:-10px;")
    task = _TASK.match(line)
    if task:
        return markup.element("div", markup.chip(task[1], hollow=True) + " " + markup.escape(line[task.end() :], 1000), "margin:2px 0;")
    label = _LABEL.match(line)
    if label:
        return markup.element("div", markup.quiet(label[0]) + " " + markup.escape(line[label.end() :], 1000))
    return markup.element("div", markup.escape(line, 1000) or "&nbsp;")


def _card(title: str, lines: Iterable[str]) -> View:
    details = [line for text in lines for line in text.split("\n")]
    written = [part for line in details for part in _wrapped(line, WIDTH - 2)]
    head = wrap(title)
    text = joined([*head, "─" * max(map(width, head)), *indent(written)])
    name = markup.element("div", markup.escape(title), "font-size:16px;font-weight:600;margin:0 0 6px 0;")
    return View(text, markup.box(name, *map(_paragraph, details)))
