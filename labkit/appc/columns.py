"""Tables as rkt prints them: columns held apart by tabs, ages in words, times in full."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

_STOP = 8
_AGES = (("week", 7 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_MONTH, _YEAR = 30 * 86400, 360 * 86400


def tabbed(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines: each column but the last is filled up with tabs, to the tab stop after its longest cell."""
    columns = len(rows[0]) - 1 if rows else 0
    widths = [(max(len(row[column]) for row in rows) // _STOP + 1) * _STOP for column in range(columns)]
    return "\n".join("".join(_filled(cell, width) for cell, width in zip(row, widths, strict=False)) + row[-1] for row in rows)


def _filled(cell: str, width: int) -> str:
    return cell + "\t" * -((len(cell) - width) // _STOP)


def ago(when: float | None, now: float | None = None) -> str:
    """Return an age in words: `now`, `2 seconds ago`, `1 minute ago`; a time that nobody knows is `a long while ago`.

    Args:
        when: seconds since 1970, or None.
        now: seconds since 1970; the clock's if not given.
    """
    if when is None:
        return "a long while ago"
    age = max(0.0, (time.time() if now is None else now) - when)
    if age >= _MONTH:
        unit, length = ("year", _YEAR) if age >= _YEAR else ("month", _MONTH)
    else:
        unit, length = next(((unit, length) for unit, length in _AGES if age >= length), ("", 0))
    if not unit:
        return "now"
    count = int(age // length)
    return f"{count} {unit}{'s' if count > 1 else ''} ago"


def in_full(when: float | None) -> str:
    """Return a time of this machine's zone to the millisecond, such as `2016-07-07 19:33:55.32 +0200 CEST`; nothing for None."""
    if when is None:
        return ""
    local = datetime.fromtimestamp(when).astimezone()
    thousandths = f"{local.microsecond // 1000:03}".rstrip("0")
    return f"{local:%Y-%m-%d %H:%M:%S}{'.' if thousandths else ''}{thousandths} {local:%z %Z}"
