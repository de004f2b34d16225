"""Text of 80 columns: names made printable, cut in the middle, wrapped, set in columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len

WIDTH = 80
"""Columns of the text form, those of a terminal that nobody made wider."""

ELLIPSIS = "…"
_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_UUID = re.compile(r"\b([0-9a-f]{8})-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
_PLAIN = re.compile(r"[\x20-\x7e]*\Z")


def clean(text: object) -> str:
    r"""Return `text` with every character that would not print, or would turn the line, as its escape.

    A process may call itself anything: newlines, terminal codes and marks that reverse the writing become `\n`, `\x1b`, `\u202e`.
    """
    plain = str(text)
    if _PLAIN.match(plain):
        return plain
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in plain)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def width(text: str) -> int:
    """Count the columns that `text` takes in a terminal; Chinese letters take two."""
    return cell_len(text)


def short_ids(text: str) -> str:
    """Cut ids of 64 letters to the 12 by which the tools of containers show them, and UUIDs to the 8 by which rkt does."""
    return _UUID.sub(rf"\1{ELLIPSIS}", _ID.sub(rf"\1{ELLIPSIS}", text))


def cut(text: object, limit: int) -> str:
    """Shorten to `limit` columns with an ellipsis in the middle: both ends of a path or a name tell most."""
    whole = clean(text)
    if width(whole) <= limit:
        return whole
    if limit < 2:
        return ELLIPSIS[:limit]
    head = _leading(whole, limit // 2)
    tail = _leading(whole[::-1], limit - 1 - width(head))[::-1]
    return head + ELLIPSIS + tail


def _leading(text: str, limit: int) -> str:
    taken, used = [], 0
    for letter in text:
        used += width(letter)
        if used > limit:
            break
        taken.append(letter)
    return "".join(taken)


def pad(text: str, columns: int) -> str:
    """Fill with spaces at the right up to `columns`."""
    return text + " " * (columns - width(text))


def wrap(text: object, limit: int = WIDTH, *, hanging: str = "") -> list[str]:
    """Break one paragraph at spaces into lines of at most `limit` columns; a word that is too long is broken.

    Args:
        text: the paragraph.
        limit: columns.
        hanging: put before each line but the first.
    """
    lines, line = [], ""
    for word in clean(text).split(" "):
        candidate = f"{line} {word}" if line else word
        while width(candidate) > limit:
            if line and line != hanging:
                lines.append(line.rstrip())
                candidate = hanging + word
                line = ""
                continue
            head = _leading(candidate, limit) or candidate[0]
            lines.append(head)
            candidate = hanging + candidate[len(head) :]
        line = candidate
    return [*lines, line.rstrip()]


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts veth2 before veth10."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", text) if part)


def count(number: int, thing: str, things: str = "") -> str:
    """Say how many: "1 process", "2 processes"."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def columns(rows: Sequence[Sequence[object]], limit: int = WIDTH, *, header: Sequence[object] = (), gap: int = 2,
            prose: bool = False) -> list[str]:  # fmt: skip
    """Set rows in columns; where they are too wide for `limit`, the widest columns are cut in the middle.

    Args:
        rows: cells, each row with the same number.
        limit: columns of a line.
        header: names of the columns, with a rule below; none for no header.
        gap: spaces between two columns.
        prose: break cells of several words into lines instead of cutting them.
    """
    cells = [[clean(cell) for cell in row] for row in ([header, *rows] if header else rows)]
    if not cells:
        return []
    between, number = " " * gap, len(cells[0])
    widths = fitted([max(width(row[index]) for row in cells) for index in range(number)], limit - gap * (number - 1))
    lines = []
    for row in cells:
        parts = [wrap(cell, size) if prose and " " in cell else [cut(cell, size)] for cell, size in zip(row, widths, strict=True)]
        lines += [between.join(map(pad, line, widths)).rstrip() for line in zip_longest(*parts, fillvalue="")]
        if header and row is cells[0]:
            lines.append(between.join("─" * size for size in widths))
    return lines


def fitted(widths: Iterable[int], total: int) -> list[int]:
    """Make the widest smaller until the sum is at most `total`; each keeps one column at least."""
    sizes = list(widths)
    while sum(sizes) > total and max(sizes) > 1:
        widest = max(sizes)
        second = max((size for size in sizes if size < widest), default=1)
        wide = [index for index, size in enumerate(sizes) if size == widest]
        surplus = min(sum(sizes) - total, (widest - second) * len(wide)) or 1
        for nth, index in enumerate(wide):
            sizes[index] -= surplus // len(wide) + (nth < surplus % len(wide))
    return [max(size, 1) for size in sizes]


def joined(lines: Iterable[str]) -> str:
    """Make the text of a view from its lines, none with spaces at its end."""
    return "\n".join(line.rstrip() for line in lines)


def indent(lines: Iterable[str], by: str = "  ") -> list[str]:
    """Put `by` before each line."""
    return [(by + line).rstrip() for line in lines]
