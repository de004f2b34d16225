"""A plain table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labkit.show import markup
from labkit.show.text import clean, columns, count, joined, wrap
from labkit.show.view import View

MOST_ROWS = 60
"""Rows before the rest is only counted."""


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, title: str = "", note: str = "", limit: int = MOST_ROWS) -> View:
    """Show rows under a header.

    Args:
        header: names of the columns.
        rows: cells, as many as the header has; anything with a str.
        title: a line above.
        note: a line below.
        limit: rows shown; those after are counted.
    """
    every = [[clean(cell) for cell in row] for row in rows]
    shown, rest = every[:limit], max(len(every) - limit, 0)
    remarks = [f"… {count(rest, 'more row')}"] if rest else []
    if not every:
        remarks.append("no rows")
    remarks += [note] if note else []
    lines = [line for part in [title] if part for line in wrap(part)]
    lines += columns(shown, header=[clean(name) for name in header], prose=True)
    lines += [line for remark in remarks for line in wrap(remark)]
    cells = [[markup.code(cell) if _is_code(cell) else markup.breakable(cell) for cell in row] for row in shown]
    return View(
        joined(lines),
        markup.box(markup.heading(title), markup.grid(cells, [clean(name) for name in header]), *map(markup.note, remarks)),
    )


def _is_code(cell: str) -> bool:
    """Tell a name or several, such as `cpu.cfs_quota_us cpu.cfs_period_us`, from a sentence."""
    words = cell.split()
    return len(words) == 1 or all(any(sign in word[:-1] for sign in "._/$") for word in words)
