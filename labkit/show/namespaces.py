"""Every namespace of the machine: its kind, who is in it, what keeps it, who owns it."""

from __future__ import annotations

from collections.abc import Iterable

from labkit.kernel.state import NamespaceState, ProcessState
from labkit.show import markup
from labkit.show.people import Names
from labkit.show.processes import KINDS
from labkit.show.text import columns, count, joined, wrap
from labkit.show.view import View

EMPTY = "no namespaces to see"
MOST_ALIKE = 8
"""Namespaces of one kind before the rest is only counted."""
HEADER = ("namespace", "held by", "owner")
NOTE = "held by: the processes in it, or a file that keeps it; owner: the user namespace whose root may change it"
_PROC_NAMES = {"mount": "mnt"}


def namespace_table(namespaces: Iterable[NamespaceState], processes: Iterable[ProcessState] = ()) -> View:
    """Show namespaces, those of one kind together, the machine's own first.

    Args:
        namespaces: in any order.
        processes: those whose names are known; others are counted.
    """
    names = Names(processes)
    rows: list[list[str]] = []
    kinds: dict[str, list[NamespaceState]] = {}
    for one in namespaces:
        kinds.setdefault(one.kind, []).append(one)
    for kind in sorted(kinds, key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind)):
        alike = sorted(kinds[kind], key=lambda one: one.inode)  # the kernel numbers its first ones lowest
        shown = alike if len(alike) <= MOST_ALIKE + 1 else alike[:MOST_ALIKE]
        rows += [_row(one, names) for one in shown]
        if len(alike) > len(shown):
            rows.append([f"… {count(len(alike) - len(shown), f'more {kind} namespace')}", "", ""])
    if not rows:
        return View(EMPTY, markup.box(markup.note(EMPTY)))
    cells = [[markup.code(cell) for cell in row] for row in rows]
    return View(joined([*columns(rows, header=HEADER), *wrap(NOTE)]), markup.box(markup.grid(cells, HEADER), markup.note(NOTE)))


def name(kind: str, inode: int) -> str:
    """Write a namespace as /proc/PID/ns does: `mnt:[4026531841]`."""
    return f"{_PROC_NAMES.get(kind, kind)}:[{inode}]"


def _row(one: NamespaceState, names: Names) -> list[str]:
    owner = name("user", one.owner) if one.owner is not None else ""
    made = f"uid {one.uid}" if one.uid is not None else ""
    held = ", ".join(part for part in (names.several(one.pids), one.path) if part)
    return [name(one.kind, one.inode), held or "nothing in sight", ", ".join(part for part in (owner, made) if part)]
