"""Who keeps a container: the commanding process above, the container's first process below, and what ties each to the next."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.kernel.xray.parts import Part
from labkit.show import markup
from labkit.show.text import WIDTH, cut, joined, pad, short_ids
from labkit.show.view import View

ALONE = "nothing keeps it: no process outside watches over it"
_MOST = 2
"""Addresses and directories shown before the rest is only counted."""
_LABEL = 12


def parts_view(name: str, parts: Sequence[Part]) -> View:
    """Show the processes that have to do with a container, each with where it listens and what it keeps.

    Args:
        name: how the container is called.
        parts: the highest first, the container's first process last.
    """
    lines, rows = [f"{name}, from the top"], []
    for part in parts:
        facts = _facts(part)
        lines += [_head(part), *(f"  {pad(word, _LABEL)}{cut(said, WIDTH - _LABEL - 2)}" for word, said in facts)]
        below = next((each.member.comm for each in parts if each.member.pid == part.to), "")
        lines += [f"    | {cut(tie, WIDTH - 6)}" for tie in [_tie(part, below)] if tie]
        cells = [f"{markup.quiet(word)} {markup.code(said)}" for word, said in facts]
        rows.append([markup.code(_head(part)), "<br>".join(cells), markup.breakable(_tie(part, below))])
    alone = [ALONE] if len(parts) == 1 else []
    table = markup.grid(rows, ["process", "what it has", "and the one below"])
    return View(joined([*lines, *alone]), markup.box(markup.heading(lines[0]), table, *map(markup.note, alone)))


def _head(part: Part) -> str:
    first = ", the first process" if part.to is None else ""
    return f"{part.member.comm} (pid {part.member.pid}){first}"


def _facts(part: Part) -> list[tuple[str, str]]:
    """Return what is known of a process: a word, and the paths that belong to it, one a line."""
    facts = []
    for word, paths in (("listens at", part.listens), ("works in", (part.directory,)), ("writes in", part.keeps)):
        written = [short_ids(path) for path in paths[:_MOST] if path]
        rest = len(paths) - _MOST
        written += [f"and {rest} more"] if rest > 0 else []
        facts += [(word if number == 0 else "", path) for number, path in enumerate(written)]
    return facts


def _tie(part: Part, below: str) -> str:
    if part.to is None:
        return ""
    return f"parent of {below}" if part.tie == "parent" else f"speaks to {below} at {short_ids(part.at)}"
