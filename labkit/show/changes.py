"""What a cell did: what changed in the kernel, and how the same would be typed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from labkit.kernel.state import Change, Difference
from labkit.show import markup
from labkit.show.text import WIDTH, clean, count, cut, indent, joined, natural, pad, short_ids, width, wrap
from labkit.show.view import View
from labkit.trace import Operation, Trace

SIGNS = (("appeared", "+", "new", markup.GREEN), ("changed", "~", "changed", markup.AMBER), ("went", "-", "gone", markup.RED))
"""Field of a Difference, sign, word, colour."""

KINDS = ("cgroup", "process", "namespace", "netns", "link", "address", "route", "rule", "mount")
"""In this order the kinds of things are listed."""

MOST_ALIKE = 6
"""Changes of one kind and sign before the rest is only counted."""

NOTHING_CHANGED = "nothing changed in the kernel"
NOTHING_TYPED = "nothing to type: no operation on the kernel"
_CHANCE = re.compile(r"veth(?:\d+_\w{4}|[0-9A-Za-z]{6,8})")
"""What engines call the ends of their cables: another name each time."""
_POD = re.compile(r"\brkt-[0-9a-f-]{36}\b")
_KIND_WIDTH = max(map(len, KINDS))
_MARGIN = 8


def difference(change: Difference) -> View:
    """Show what appeared, changed and went."""
    lines = _difference_lines(change, WIDTH) or [NOTHING_CHANGED]
    return View(joined(lines), markup.box(_difference_html(change) or markup.note(NOTHING_CHANGED)))


def operations(trace: Trace) -> View:
    """Show the operations as lines to type, each with the files written and the calls made folded below it."""
    lines = _operation_lines(trace, WIDTH) or [NOTHING_TYPED]
    return View(joined(lines), markup.box(_operations_html(trace) or markup.note(NOTHING_TYPED)))


def cell_report(change: Difference, trace: Trace) -> View:
    """Show both together, as it stands under a cell; an empty view where the cell neither changed nor did anything."""
    rows = [
        ("kernel", _difference_lines(change, WIDTH - _MARGIN), _difference_html(change)),
        ("typed", _operation_lines(trace, WIDTH - _MARGIN), _operations_html(trace)),
    ]
    if not any(lines for _, lines, _ in rows):
        return View("", "")
    if not rows[0][1]:
        rows[0] = ("kernel", [NOTHING_CHANGED], markup.quiet(NOTHING_CHANGED))
    text, cells = [], []
    for label, lines, html in rows:
        if lines:
            text += [pad(label, _MARGIN) + lines[0], *indent(lines[1:], " " * _MARGIN)]
            cells.append((label, html))
    return View(joined(text), markup.box(markup.labelled(cells)))


def _groups(change: Difference) -> list[tuple[str, str, str, Sequence[Change], int]]:
    """Return (sign, word, colour, changes shown, how many more of this kind) in the order in which they are listed."""
    groups: list[tuple[str, str, str, Sequence[Change], int]] = []
    for field, sign, word, colour in SIGNS:
        found: dict[str, list[Change]] = {}
        for one in getattr(change, field):
            found.setdefault(one.kind, []).append(one)
        for kind in sorted(found, key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind)):
            alike = sorted(found[kind], key=lambda one: (_place(one), natural(one.attribute)))
            shown = alike if len(alike) <= MOST_ALIKE + 1 else alike[:MOST_ALIKE]
            groups.append((sign, word, colour, shown, len(alike) - len(shown)))
    return groups


def _place(change: Change) -> tuple[object, ...]:
    """Sort cgroups by their path before their hierarchy, for which controller has which differs from machine to machine.

    Links that an engine called by chance are sorted by what is said of them, and not by the UUID of a pod in it.
    """
    if change.kind == "link" and _CHANCE.fullmatch(change.name):
        return natural("veth"), natural(_POD.sub("rkt-", change.after or change.before or ""))
    hierarchy, colon, path = change.name.partition(":/")
    return (natural(path), natural(hierarchy)) if colon and change.kind == "cgroup" else (natural(change.name),)


def _difference_lines(change: Difference, limit: int) -> list[str]:
    lines = []
    for sign, _, _, shown, rest in _groups(change):
        for one in shown:
            lines += _change_lines(one, sign, limit)
        if rest:
            lines.append(f"{sign} … {_more(rest, shown[0].kind)}")
    return lines


def _more(number: int, kind: str) -> str:
    return count(number, f"more {kind}", f"more {kind}{'es' if kind.endswith('s') else 's'}")


def _change_lines(one: Change, sign: str, limit: int) -> list[str]:
    head = f"{sign} {pad(cut(one.kind, _KIND_WIDTH), _KIND_WIDTH)}  "
    tail = _value(one, sign)
    room = limit - width(head)
    name = cut(short_ids(one.name), room)
    if not tail:
        return [(head + name).rstrip()]
    if width(name) + 2 + width(tail) <= room:
        return [f"{head}{name}  {tail}"]
    return [head + name, *indent(wrap(tail, room - 2), " " * (width(head) + 2))]


def _value(one: Change, sign: str, arrow: str = "->") -> str:
    before, after = ("(none)" if value is None else clean(value) or '""' for value in (one.before, one.after))
    if sign == "~":
        return f"{clean(one.attribute)}: {before} {arrow} {after}" if one.attribute else f"{before} {arrow} {after}"
    value = one.after if sign == "+" else one.before
    return " ".join(part for part in (one.attribute and clean(one.attribute) + ":", short_ids(clean(value or ""))) if part)


def _difference_html(change: Difference) -> str:
    rows = []
    said = ""
    for sign, word, colour, shown, rest in _groups(change):
        kind = ""
        for one in shown:
            value = _after(_value(one, sign, "→"), quiet=sign != "~")
            mark = markup.quiet(sign) if sign == said else markup.chip(f"{sign} {word}", colour)
            rows.append([mark, "" if one.kind == kind else markup.quiet(one.kind), markup.code(short_ids(one.name)) + value])
            said, kind = sign, one.kind
        if rest:
            rows.append([markup.quiet(sign), "", markup.quiet(f"… {_more(rest, shown[0].kind)}")])
    return markup.grid(rows) if rows else ""


def _after(value: str, *, quiet: bool) -> str:
    if not value:
        return ""
    return "&ensp; " + (markup.quiet(value) if quiet else markup.code(value))


def _operation_lines(trace: Trace, limit: int) -> list[str]:
    lines = []
    for operation in trace.operations:
        lines += shell_lines(operation.shell.strip("\n"), limit) if operation.shell.strip() else []
        lines += [part for detail in _details(operation, told=True) for part in indent(wrap(detail, limit - 4, hanging="  "), "    ")]
    return lines


def _details(operation: Operation, *, told: bool) -> list[str]:
    """Say which files were written and which calls made.

    Args:
        operation: the operation.
        told: leave out a write whose file stands in the typed line already.
    """
    writes = [(path, _as_typed(operation.shell, path, value)) for path, value in operation.writes if not (told and path in operation.shell)]
    return [f"write  {path} = {value}" for path, value in writes] + [f"call   {call}" for call in operation.calls]


def _as_typed(shell: str, path: str, value: str) -> str:
    """Return the value as the line has it, `$clock` rather than a number that differs each time."""
    match = re.search(r"echo (\S+) >>? ?" + re.escape(path), shell)
    return match.group(1) if match and match.group(1).startswith("$") else value


def shell_lines(shell: str, limit: int = WIDTH) -> list[str]:
    """Break lines of shell so that they mean the same: at spaces outside of quotes, with a backslash.

    Where that cannot be, a line is broken hard and the next one begins with an arrow.
    """
    broken = []
    for line, whole in _with_quotes(shell):
        for part in _continued(line, limit) if whole else [line]:
            broken += [part] if width(part) <= limit else wrap(part, limit, hanging="↪ ")
    return broken


def _with_quotes(shell: str) -> list[tuple[str, bool]]:
    """Return each line and whether it is outside of quotes and of a here-document from its begin to its end."""
    lines, quote, here = [], "", "<<" in shell
    for line in shell.split("\n"):
        begin = quote
        for token in re.findall(r"""\\.|['"]""", line):
            if token in (quote, "'", '"'):
                quote = "" if token == quote else quote or token
        lines.append((clean(line), not (begin or quote or here)))
    return lines


def _continued(line: str, limit: int) -> list[str]:
    if width(line) <= limit:
        return [line]
    inset = line[: len(line) - len(line.lstrip(" "))]
    words = re.findall(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s])+""", line)
    if inset + " ".join(words) != line:
        return [line]
    lines, current = [], ""
    for word in [inset + words[0], *words[1:]]:
        if current.strip() and width(current) + 1 + width(word) > limit - 2:
            lines.append(current + " \\")
            current = inset + "    " + word
        else:
            current = f"{current} {word}" if current else word
    return [*lines, current]


def _operations_html(trace: Trace) -> str:
    lines = []
    for operation in trace.operations:
        if operation.shell.strip():
            lines.append(markup.code_block(operation.shell))
    folded = [detail for operation in trace.operations for detail in _details(operation, told=False)]
    if folded:
        writes = sum(len(operation.writes) for operation in trace.operations)
        told = [count(writes, "file written", "files written")] if writes else []
        told += [count(len(folded) - writes, "call")] if len(folded) > writes else []
        lines.append(markup.fold(", ".join(told), markup.code_block("\n".join(folded))))
    return "".join(lines)
