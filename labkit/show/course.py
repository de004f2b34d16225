"""The map of the course: its chapters and labs, how far each is, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labkit.show import markup
from labkit.show.notices import KINDS
from labkit.show.text import WIDTH, clean, cut, indent, joined, pad, width, wrap
from labkit.show.view import View

_ROOM = 18
"""Columns of what is said about how far a lab is."""


@dataclass(frozen=True)
class LabOnMap:
    """One lab as the map shows it.

    Attributes:
        id: such as "2.1".
        title: what it is about.
        address: its notebook, relative to that of the map; None where it is not written yet.
        passed: how many of its checkpoints have passed.
        checkpoints: how many it has.
        begun: whether it was ever opened.
    """

    id: str
    title: str
    address: str | None
    passed: int = 0
    checkpoints: int = 0
    begun: bool = False

    @property
    def done(self) -> bool:
        """Whether each checkpoint has passed."""
        return self.address is not None and self.passed == self.checkpoints

    @property
    def state(self) -> tuple[str, str, str]:
        """Return a sign, words and the colour for how far it is."""
        if self.address is None:
            return "·", "not there yet", markup.GREY
        if self.done:
            return "✔", f"{self.passed} of {self.checkpoints}", markup.GREEN
        sign = "▸" if self.passed or self.begun else "○"
        return sign, f"{self.passed} of {self.checkpoints}", markup.BLUE if sign == "▸" else markup.GREY


@dataclass(frozen=True)
class Chapter:
    """One chapter of the map: its number, its title and its labs in their order."""

    number: str
    title: str
    labs: Sequence[LabOnMap]


def course_map(chapters: Iterable[Chapter]) -> View:
    """Draw the course: a table a chapter, each lab with a link to its notebook and its checkpoints that passed."""
    shown = [chapter for chapter in chapters if chapter.labs]
    explained = "checkpoints passed: ✔ all of them, ▸ begun, ○ not yet opened"
    lines = [line for chapter in shown for line in ("", f"{chapter.number} {clean(chapter.title)}", *map(_line, chapter.labs))]
    boxes = [markup.box(markup.heading(f"{one.number} {one.title}"), markup.grid(map(_row, one.labs), _HEADER)) for one in shown]
    return View(joined([*lines[1:], "", explained]), markup.figure(*boxes, markup.note(explained)))


def next_lab(lab: LabOnMap | None, task: str) -> View:
    """Say which lab comes next, and which of its tasks.

    Args:
        lab: the first one that is not done; None when all are.
        task: its first checkpoint that has not passed.
    """
    sign, _, colour = KINDS["task"]
    label = pad(f"{sign} next", 12)
    if lab is None:
        said = "every checkpoint of every lab has passed"
        return View(label + said, markup.box(markup.chip(f"{sign} next", colour), " ", markup.escape(said)))
    verb, below = "go on with" if lab.begun else "open", f"its next task: {task}" if lab.begun else f"its first task: {task}"
    written = [*wrap(f"{verb} lab {lab.id}: {lab.title}", WIDTH - 12), *wrap(below, WIDTH - 12)]
    head = f"{markup.chip(f'{sign} next', colour)} {verb} lab {lab.id}: {_link(lab)}"
    page = markup.box(markup.element("div", head, "font-weight:600;"), markup.element("div", markup.escape(below, 1000)))
    return View(joined([label + written[0], *indent(written[1:], " " * 12)]), page)


_HEADER = ("lab", "about", "checkpoints")


def _line(lab: LabOnMap) -> str:
    sign, said, _ = lab.state
    begin = f"  {pad(lab.id, 4)} "
    return begin + pad(cut(lab.title, WIDTH - _ROOM - width(begin)), WIDTH - _ROOM - width(begin)) + f"  {sign} {said}"


def _row(lab: LabOnMap) -> tuple[str, str, str]:
    sign, said, colour = lab.state
    return markup.escape(lab.id), _link(lab), markup.chip(f"{sign} {said}", colour)


def _link(lab: LabOnMap) -> str:
    return markup.element("a", markup.escape(lab.title), href=lab.address) if lab.address else markup.escape(lab.title)
