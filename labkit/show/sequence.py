"""Who starts whom, as a sequence in time: a lifeline a program, an arrow an event; the text has a line for each arrow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest

from labkit.kernel.processes.events import Event, Record
from labkit.show import markup
from labkit.show.svg import GROUND, Canvas
from labkit.show.text import columns, count, cut, joined, wrap
from labkit.show.view import View

HEADER = ("ms", "who", "what")
NOTHING = "nothing was started"
GONE = "a program that had ended before it could be read"
MOST_STEPS = 150
"""Arrows before the rest is only counted."""
LONGEST = 64
"""Letters of a command line before its options are left out."""
_AT_ONCE = 0.02  # seconds: what waits longer, such as for the start of a container that was created, is seen as a process before
_ALIKE = 3  # starts of the same program by the same process, one after the other, before they are only counted
_VERBS = ("create", "start", "run", "exec", "kill", "delete", "state", "init")  # of runtimes, and of containerd's shims
_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_LETTERS = 11  # of a name on one line above its lifeline
_LANE, _ROW, _TOP, _CLOCK, _LEAST, _LETTER = 82, 30, 62, 64, 620, 6.2


@dataclass(frozen=True)
class Step:
    """One arrow.

    Attributes:
        at: seconds since the record began.
        source: the lifeline where it begins.
        target: the lifeline to which it leads; the same for what a process does to itself.
        pid: who does it.
        said: what is done.
        ends: whether the process ends with it.
        asks: whether it is a connection, not a birth.
        child: the process that it starts; 0 for none.
        whole: when that process had ended, where nothing else was seen of it; None where it did more.
    """

    at: float
    source: str
    target: str
    pid: int
    said: str
    ends: bool = False
    asks: bool = False
    child: int = 0
    whole: float | None = None


def steps(record: Record) -> tuple[Step, ...]:
    """Return the arrows: a fork that is followed by the exec of the new process at once is one with it."""
    names, made, found = dict(record.roots), _merged(record.events), []
    for event in record.events:
        before = names.get(event.pid, "?")
        if event.what == "fork":
            names[event.child] = _program(event, before)
            if event.child not in made:
                found.append(Step(event.at, before, names[event.child], event.pid, f"forks pid {event.child}", child=event.child))
        elif event.what == "exec":
            names[event.pid] = after = _program(event, "(gone)")
            parent = made.pop(event.pid, None)
            command = short(event.argv) if event.argv else GONE
            if parent is not None:
                found.append(Step(event.at, names.get(parent, "?"), after, parent, f"starts pid {event.pid}: {command}", child=event.pid))
            elif before == after and found and found[-1].child == event.pid:
                found[-1] = replace(found[-1], said=f"{found[-1].said}, which executes itself once more")
            else:
                found.append(Step(event.at, before, after, event.pid, f"becomes {command}"))
        elif event.what == "comm":
            names[event.pid] = _program(event, before)
            found.append(Step(event.at, before, names[event.pid], event.pid, f"calls itself {event.comm}"))
        elif event.what == "call":
            found.append(Step(event.at, before, names.get(event.child, "?"), event.pid, f"speaks to {_daemon(event, names)}", asks=True))
        else:
            how = f"signal {-event.status}" if event.status < 0 else f"status {event.status}"
            found.append(Step(event.at, before, before, event.pid, f"ends, {how}", ends=True))
    return tuple(_folded(_paired(found)))


def _paired(every: list[Step]) -> Iterator[Step]:
    """Make one step of a start and the end that follows at once."""
    waiting = iter(zip_longest(every, every[1:]))
    for step, after in waiting:
        if after is not None and after.ends and after.pid == step.child:
            yield replace(step, said=f"{step.said}; it {after.said}", whole=after.at)
            next(waiting)
        else:
            yield step


def _folded(every: Iterable[Step]) -> Iterator[Step]:
    """Count what one process starts again and again, such as iptables, after the first time."""
    for (whole, *_), group in groupby(every, lambda step: (step.whole is not None, step.source, step.target, step.pid)):
        alike = list(group)
        if not whole or len(alike) <= _ALIKE:
            yield from alike
            continue
        yield alike[0]
        last = (alike[-1].whole or 0) * 1000
        yield replace(alike[1], said=f"starts {alike[1].target} {len(alike) - 1} times more, the last of them ends at {last:.1f}")


def _daemon(event: Event, names: Mapping[int, str]) -> str:
    return f"{names.get(event.child, '?')} (pid {event.child}) at {event.address}"


def _merged(events: Iterable[Event]) -> dict[int, int]:
    """Return child to parent of the forks after which the child's first doing is an exec."""
    waiting: dict[int, Event] = {}
    made: dict[int, int] = {}
    for event in events:
        fork = waiting.pop(event.pid, None)
        if event.what == "exec" and fork is not None and event.at - fork.at < _AT_ONCE:
            made[event.pid] = fork.pid
        if event.what == "fork":
            waiting[event.child] = event
    return made


def _program(event: Event, otherwise: str) -> str:
    """Name a program as it is called; of what runtimes start of themselves in the container's place, with its verb."""
    if not event.argv:
        return event.comm or otherwise
    name = event.argv[0].rpartition("/")[2] or event.comm or otherwise
    return f"{name} init" if event.argv[1:2] == ("init",) else name.split(" ")[0]


def short(argv: tuple[str, ...]) -> str:
    """Write a command line; of a long one program, verb and last word."""
    words = [_ID.sub(r"\1…", word) for word in argv]
    whole = " ".join(words)
    if len(whole) <= LONGEST:
        return whole
    verb = next((word for word in words[1:] if word in _VERBS), "")
    last = words[-1] if words[-1] != verb else ""
    return cut(" … ".join(part for part in (words[0].rpartition("/")[2], verb, last) if part), LONGEST)


def sequence(record: Record) -> View:
    """Show who started whom."""
    every = steps(record)
    shown = every[:MOST_STEPS]
    remarks = _remarks(record, len(every) - len(shown))
    rows = [(f"{step.at * 1000:.1f}", f"{step.source} ({step.pid})", step.said) for step in shown]
    lines = [*(columns(rows, header=HEADER, prose=True) if rows else [NOTHING]), *(line for remark in remarks for line in wrap(remark))]
    text = joined(lines)
    notes = list(map(markup.note, remarks))
    if not shown:
        return View(text, markup.box(markup.note(NOTHING), *notes))
    svg, size = draw(shown)
    return View(text, markup.figure(markup.picture(svg, text, size), *notes))


def _remarks(record: Record, rest: int) -> list[str]:
    remarks = [f"… {count(rest, 'more step')}"] if rest else []
    if record.lost:
        remarks.append(f"the kernel had to drop {count(record.lost, 'event')} of this machine: some of these may be missing")
    if record.unread:
        remarks.append(f"{count(record.unread, 'program')} had ended before the command line could be read")
    return remarks


def draw(shown: tuple[Step, ...]) -> tuple[str, tuple[int, int]]:
    """Return the SVG and its size in pixels."""
    lanes = {name: _CLOCK + _LANE // 2 + _LANE * number for number, name in enumerate(_lifelines(shown))}
    wide = max(_CLOCK + _LANE * len(lanes) + 12, _LEAST)
    canvas = Canvas()
    for name, x in lanes.items():
        for number, line in enumerate(_broken(name)):
            canvas.label((x, 20 + 13 * number), line, _LANE - 4, size=11, bold=True, anchor="middle")
        used = [number for number, step in enumerate(shown) if name in (step.source, step.target)]
        canvas.line((x, _TOP + _ROW * used[0] + 8), (x, _TOP + _ROW * used[-1] + 26))
    canvas.label((_CLOCK - 14, 20), "ms", 30, size=10, quiet=True, anchor="end")
    for number, step in enumerate(shown):
        y = _TOP + _ROW * number + 20
        canvas.label((_CLOCK - 14, y + 4), f"{step.at * 1000:.1f}", _CLOCK - 14, size=10, quiet=True, anchor="end")
        _draw(canvas, step, lanes, y)
        said = f"{step.pid} {step.said}"
        left = max(min(lanes[step.source] + 6, lanes[step.target] + 6, wide - 10 - len(said) * _LETTER), _CLOCK)
        canvas.label((left, y - 7), said, wide - 8 - left, size=10, halo=GROUND)
    size = (wide, _TOP + _ROW * len(shown) + 12)
    return canvas.document(size, "who starts whom: " + ", ".join(lanes)), size


def _lifelines(shown: Iterable[Step]) -> list[str]:
    """Return the programs in the order in which they come in."""
    return list(dict.fromkeys(name for step in shown for name in (step.source, step.target)))


def _broken(name: str) -> list[str]:
    """Break a long name after hyphens and spaces."""
    lines = [""]
    for part in re.findall(r"[^- ]+[- ]?", name):
        if len(lines[-1] + part.rstrip()) > _LETTERS and lines[-1]:
            lines.append("")
        lines[-1] += part
    return lines


def _draw(canvas: Canvas, step: Step, lanes: Mapping[str, int], y: float) -> None:
    start, end = lanes[step.source], lanes[step.target]
    if step.ends:
        canvas.cross((start - 4, y - 4), (8, 8))
    elif start == end:
        canvas.lamp((start, y), "up")
    else:
        canvas.line((start, y), (end, y), accent=True, dashed=step.asks)
        canvas.head((end, y), right=end > start)
