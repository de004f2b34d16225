"""Processes against kinds of namespace: who shares what with whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labkit.kernel.state import ProcessState
from labkit.show import markup
from labkit.show.people import label
from labkit.show.text import WIDTH, columns, count, cut, joined, natural, wrap
from labkit.show.view import View

KINDS = ("mount", "uts", "ipc", "net", "pid", "user", "cgroup", "time")
EMPTY = "no processes here yet"
MOST_ROWS = 24
"""Processes before those without a name of the lab are only counted."""
UNKNOWN = "?"


def process_table(processes: Iterable[ProcessState], kinds: Sequence[str] = KINDS, reference: ProcessState | None = None) -> View:
    """Show processes as rows and kinds of namespace as columns; the same letter in a column is the same namespace.

    Args:
        processes: in any order.
        kinds: the columns.
        reference: whose namespaces are all called A; the first process if left out. It is the first row.
    """
    ordered = _ordered(processes, reference)
    if not ordered:
        return View(EMPTY, markup.box(markup.note(EMPTY)))
    letters = [_letters(ordered, kind) for kind in kinds]
    shown = _chosen(ordered, kinds)
    remarks = _remarks(shown, ordered, kinds, reference)
    room = WIDTH - sum(max(len(kind), 3) + 2 for kind in kinds)
    rows = [[cut(label(one), room), *(_mark(column[_key(one)]) for column in letters)] for one in shown]
    cells = [[_name(one), *(_chip(column[_key(one)]) for column in letters)] for one in shown]
    lines = columns(rows, header=["process", *kinds]) + [line for remark in remarks for line in wrap(remark)]
    return View(joined(lines), markup.box(markup.grid(cells, ["process", *kinds]), *map(markup.note, remarks)))


def letter(number: int) -> str:
    """Return A, B, ..., Z, AA, AB, ... for 0, 1, ..."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def _key(process: ProcessState) -> tuple[int, int]:
    return process.pid, process.start


def _ordered(processes: Iterable[ProcessState], reference: ProcessState | None) -> list[ProcessState]:
    every = {_key(one): one for one in processes}
    if reference is not None:
        every[_key(reference)] = reference
    first = _key(reference) if reference is not None else None
    return sorted(every.values(), key=lambda one: (_key(one) != first, not one.name, natural(one.name), one.pid, one.start))


def _letters(processes: Sequence[ProcessState], kind: str) -> dict[tuple[int, int], str]:
    given: dict[int, str] = {}
    found = {}
    for one in processes:
        inode = one.namespaces.get(kind)
        found[_key(one)] = UNKNOWN if inode is None else given.setdefault(inode, letter(len(given)))
    return found


def _chosen(ordered: Sequence[ProcessState], kinds: Sequence[str]) -> list[ProcessState]:
    """Return the rows: of many processes those that the lab named, and one for each set of namespaces."""
    if len(ordered) <= MOST_ROWS:
        return list(ordered)
    seen: set[tuple[int | None, ...]] = set()
    shown: list[ProcessState] = []
    for one in ordered:
        places = _places(one, kinds)
        if (one.name or places not in seen) and len(shown) < MOST_ROWS:
            shown.append(one)
            seen.add(places)
    return shown


def _places(process: ProcessState, kinds: Sequence[str]) -> tuple[int | None, ...]:
    return tuple(process.namespaces.get(kind) for kind in kinds)


def _remarks(
    shown: Sequence[ProcessState], ordered: Sequence[ProcessState], kinds: Sequence[str], reference: ProcessState | None
) -> list[str]:
    first = ordered[0]
    remarks = []
    hidden = len(ordered) - len(shown)
    if hidden:
        places = {_places(one, kinds) for one in shown}
        alike = all(_places(one, kinds) in places for one in ordered)
        where = ", each in the namespaces of one that is shown" if alike else ""
        remarks.append(f"… {count(hidden, 'more process', 'more processes')}{where}")
    if len(ordered) > 1:
        whose = cut(first.name or first.comm, 40) if reference is not None else "the first process"
        remarks.append(f"A: the namespace of {whose}; [B], [C]: another one; the same letter in a column: the same namespace")
    if any(one.namespaces.get(kind) is None for one in shown for kind in kinds):
        remarks.append("?: the kernel did not let us read it")
    return remarks


def _mark(sign: str) -> str:
    return sign if sign in ("A", UNKNOWN) else f"[{sign}]"


def _chip(sign: str) -> str:
    """Write a namespace: a frame for the reference's, a filled ground and brackets for another one."""
    return markup.chip(_mark(sign), markup.BLUE, hollow=sign in ("A", UNKNOWN))


def _name(process: ProcessState) -> str:
    name, _, numbers = label(process).rpartition(" (")
    return markup.code(name, 60) + " " + markup.quiet(f"({numbers}")
