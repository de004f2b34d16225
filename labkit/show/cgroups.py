"""The tree of cgroups, one for each hierarchy: who is in each, what is set, what is frozen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from labkit.kernel.snapshot.noise import CGROUP_DEFAULTS
from labkit.kernel.state import CgroupState, ProcessState
from labkit.show import markup
from labkit.show.people import Names
from labkit.show.text import WIDTH, clean, count, cut, joined, natural, pad, width, wrap
from labkit.show.view import View

EMPTY = "no cgroups here yet"
MOST_CHILDREN = 12
"""Cgroups below one parent before the rest is only counted."""
MOST_ROWS = 80
"""Cgroups in one view before the rest is only counted."""
_FREEZER = {"freezer.state": ("FROZEN", "FREEZING"), "cgroup.freeze": ("1",)}


@dataclass(frozen=True)
class _Row:
    """One line of the tree: a cgroup, or how many more there are."""

    guides: str
    below: str
    label: str
    cgroup: CgroupState | None
    above: bool = False
    """Whether a cgroup above it is frozen, and so it is, too."""


def cgroup_tree(cgroups: Iterable[CgroupState], processes: Iterable[ProcessState] = (), title: str = "") -> View:
    """Draw cgroups as trees, with the values that somebody has set.

    What a new cgroup has anyhow (`memory.max` of "max", ...) is left out.

    Args:
        cgroups: in any order; the tree is made from their paths.
        processes: those whose names are known; any other is shown by its pid.
        title: a line above.
    """
    names = Names(processes)
    trees = _hierarchies(cgroups)
    if not trees:
        return View(joined([*wrap(title), EMPTY] if title else [EMPTY]), markup.box(markup.heading(title), markup.note(EMPTY)))
    lines, html = wrap(title) if title else [], markup.heading(title)
    for head, rows in trees:
        lines += wrap(head)
        for row in rows:
            lines += _row_lines(row, names)
        html += markup.element("div", markup.code(head), "margin:4px 0 2px 0;font-weight:600;")
        html += markup.grid(_row_cells(row, names) for row in rows)
    return View(joined(lines), markup.box(html))


def _hierarchies(cgroups: Iterable[CgroupState]) -> list[tuple[str, list[_Row]]]:
    found: dict[str, dict[str, CgroupState]] = {}
    for one in cgroups:
        found.setdefault(one.hierarchy, {})[one.path] = one
    return [(_head(next(iter(found[name].values()))), _rows(found[name])) for name in sorted(found)]


def _head(one: CgroupState) -> str:
    root = one.directory.removesuffix(one.path.rstrip("/")) or "/"
    return f"{one.hierarchy or 'cgroup2'} (v{one.version})  {root}"


def _rows(cgroups: Mapping[str, CgroupState]) -> list[_Row]:
    children: dict[str, list[str]] = {}
    for path in sorted(cgroups, key=natural):
        children.setdefault(_parent(path, cgroups), []).append(path)
    every = list(_walk(_Row("", "", "", None), "", children, cgroups))
    shown = every[:MOST_ROWS]
    if len(every) > len(shown):
        listed = sum(row.cgroup is not None for row in shown)
        shown.append(_Row("", "", f"… {count(len(cgroups) - listed, 'more cgroup')} in all", None))
    return shown


def _parent(path: str, cgroups: Mapping[str, CgroupState]) -> str:
    """Return the nearest cgroup above that is shown, or ""."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        if path in cgroups:
            return path
    return ""


def _walk(above: _Row, guides: str, children: Mapping[str, list[str]], cgroups: Mapping[str, CgroupState]) -> Iterator[_Row]:
    parent = above.cgroup.path if above.cgroup else ""
    frozen = above.above or (above.cgroup is not None and _frozen(above.cgroup))
    below = children.get(parent, [])
    shown = _chosen(below, children, cgroups)
    hidden = sum(1 + _descendants(path, children) for path in below if path not in shown)
    for path in shown:
        last = path == shown[-1] and not hidden
        inner = guides + ("   " if last else "│  ")
        label = path[len(parent) :].strip("/") or "/"
        row = _Row(guides + ("└─ " if last else "├─ "), inner + ("│  " if children.get(path) else "   "), label, cgroups[path], frozen)
        yield row
        yield from _walk(row, inner, children, cgroups)
    if hidden:
        yield _Row(guides + "└─ ", "", f"… {count(hidden, 'more cgroup')}", None)


def _chosen(paths: Sequence[str], children: Mapping[str, list[str]], cgroups: Mapping[str, CgroupState]) -> list[str]:
    """Return which cgroups of one parent are shown: a lab's own before the machine's, in their order."""
    if len(paths) <= MOST_CHILDREN:
        return list(paths)
    first = sorted(paths, key=lambda path: "/lab" not in path and not (_frozen(cgroups[path]) or children.get(path)))
    kept = set(first[:MOST_CHILDREN])
    return [path for path in paths if path in kept]


def _descendants(path: str, children: Mapping[str, list[str]]) -> int:
    return sum(1 + _descendants(child, children) for child in children.get(path, []))


def _frozen(cgroup: CgroupState) -> bool:
    return any(cgroup.values.get(file) in values for file, values in _FREEZER.items())


def _state(cgroup: CgroupState, above: bool) -> str:
    """Return a sign and a word where freezing tells something; "" for a cgroup without processes that is not frozen."""
    if _frozen(cgroup):
        return "■ frozen"
    if above:
        return "■ frozen above"
    return "▶ running" if cgroup.pids and any(file in cgroup.values for file in _FREEZER) and cgroup.path != "/" else ""


def _settings(cgroup: CgroupState) -> list[tuple[str, str]]:
    values = ((file, size(file, value)) for file, value in sorted(cgroup.values.items()) if value != CGROUP_DEFAULTS.get(file, ""))
    return list(values)


def size(file: str, value: str) -> str:
    """Write bytes of the memory files as a person would: whole MiB and GiB by their letter, anything else as it is."""
    if not (file.startswith(("memory.", "hugetlb.")) and value.isdecimal()):
        return value
    number = int(value)
    if number >= 1 << 62:
        return f"{value} (no limit)"
    for letter, unit in (("G", 1 << 30), ("M", 1 << 20)):
        if number and number % unit == 0:
            return f"{number // unit}{letter}"
    return value


def _row_lines(row: _Row, names: Names) -> list[str]:
    if row.cgroup is None:
        return [row.guides + row.label]
    guides, below = _narrow(row.guides), _narrow(row.below)
    head = guides + cut(row.label, max(44 - width(guides), 14))
    told = [part for part in (_state(row.cgroup, row.above), names.several(row.cgroup.pids)) if part]
    line = "  ".join([pad(head, 28), *told]).rstrip() if told else head
    lines = [line] if width(line) <= WIDTH else [head, *(below + "  " + part for part in wrap("  ".join(told), WIDTH - width(below) - 2))]
    for file, value in _settings(row.cgroup):
        room = WIDTH - width(below) - 2
        lines += [below + part for part in wrap(f"{clean(file)} = {clean(value)}", room, hanging="  ")]
    return lines


def _narrow(guides: str) -> str:
    """Shorten the guides of a very deep cgroup."""
    return guides if len(guides) <= 42 else "…" + guides[-41:]


def _row_cells(row: _Row, names: Names) -> list[str]:
    if row.cgroup is None:
        return [_tree(row), "", "", ""]
    state = _state(row.cgroup, row.above)
    frozen = state.startswith("■")
    settings = "<br>".join(markup.code(f"{file} = {value}") for file, value in _settings(row.cgroup))
    return [
        _tree(row),
        markup.chip(state, markup.BLUE, hollow=not frozen) if state else "",
        markup.code(names.several(row.cgroup.pids)) if row.cgroup.pids else "",
        settings,
    ]


def _tree(row: _Row) -> str:
    guides = markup.element("span", _narrow(row.guides).replace(" ", "&nbsp;"), markup.MONO + "opacity:0.5;white-space:pre;")
    return markup.element("span", guides + markup.code(row.label, 60), "white-space:nowrap;")
