"""`labkit top`: the live views in a terminal, by rich."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import click

from labkit.errors import LabError
from labkit.kernel.live import Feed, Frame
from labkit.show.frames import TITLES, Scope, sections, whole
from labkit.show.news import news
from labkit.show.text import WIDTH, cut

MINUTE = 60.0
"""Seconds that can be stepped back through."""

PACE = 0.1
"""Seconds between two pictures at least."""

RATES = 0.5
"""Seconds over which what is printed once has counted."""

HELP = "p pause  ← → step  ↑ ↓ scroll  0 all  1-5 one view  q quit"

_KEYS = {b"\x1b[D": "left", b"\x1bOD": "left", b"\x1b[C": "right", b"\x1bOC": "right", b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down",
         b"\x1bOB": "down", b"\x03": "q", b"\x04": "q"}  # fmt: skip


@dataclass
class Playback:
    """The last minute, and which frame of it is shown.

    Attributes:
        frames: the oldest first.
        at: time of the frame that is shown; None for the newest.
        views: which parts are shown.
        scroll: lines that are passed over.
        told: what happened last.
    """

    frames: deque[Frame] = field(default_factory=deque)
    at: float | None = None
    views: tuple[str, ...] = tuple(TITLES)
    scroll: int = 0
    told: str = ""

    def take(self, frame: Frame, scope: Scope) -> None:
        """Keep a frame, and forget what is older than a minute."""
        if self.frames:
            for sentence in news(self.frames[-1], frame, scope):
                self.told = sentence
        self.frames.append(frame)
        while frame.at - self.frames[0].at > MINUTE:
            self.frames.popleft()

    @property
    def shown(self) -> Frame:
        """The frame that is shown: the last one that is not later than `at`."""
        if self.at is None:
            return self.frames[-1]
        return next((frame for frame in reversed(self.frames) if frame.at <= self.at), self.frames[0])

    @property
    def state(self) -> str:
        """What is shown, in words."""
        if self.at is None:
            return f"live, {1 / max(self.frames[-1].interval, PACE):.0f} a second"
        return f"paused, {self.frames[-1].at - self.shown.at:.0f} s back"

    def key(self, key: str) -> None:
        """Do what a key asks for."""
        if key == "p":
            self.at = None if self.at is not None else self.frames[-1].at
        elif key in ("left", "right"):
            self._step(-1.0 if key == "left" else 1.0)
        elif key in ("up", "down"):
            self.scroll = max(0, self.scroll + (1 if key == "down" else -1))
        elif key.isdecimal() and int(key) <= len(TITLES):
            self.views, self.scroll = tuple(TITLES) if key == "0" else (tuple(TITLES)[int(key) - 1],), 0

    def _step(self, seconds: float) -> None:
        at = (self.shown.at if self.at is None else self.at) + seconds
        self.at = None if at >= self.frames[-1].at else max(at, self.frames[0].at)


def picture(playback: Playback, scope: Scope, height: int) -> str:
    """Return what is on the screen: as many lines as it has, none longer than 80 columns."""
    frame = playback.shown
    clock = time.strftime("%H:%M:%S", time.localtime(frame.at))
    lines = whole(sections(frame, scope, playback.views)).text.splitlines()
    room = max(height - 3, 1)
    playback.scroll = min(playback.scroll, max(len(lines) - room, 0))
    shown = lines[playback.scroll : playback.scroll + room]
    left = len(lines) - playback.scroll - len(shown)
    head = cut(f"labkit top  {clock}  {playback.state}{f'  (↓ {left} more lines)' if left > 0 else ''}", WIDTH)
    return "\n".join([head, *shown, *[""] * (room - len(shown)), cut(playback.told, WIDTH), HELP])


@click.command(name="top")
@click.argument("views", nargs=-1, metavar="[VIEWS]")
@click.option("--lab", default="", metavar="LAB", help="Of the cgroups only those of this lab.")
@click.option("--once", is_flag=True, help="Print one picture and end.")
def top(views: tuple[str, ...], lab: str, *, once: bool) -> None:
    """Show the kernel's state while it changes.

    VIEWS are any of cgroups, processes, networks, layers, containers; all of them by default.
    """
    for view in views:
        if view not in TITLES:
            raise LabError(f"there is no live view {view!r}", remedy=f"one of {', '.join(TITLES)}")
    scope = Scope(f"lab-{lab}" if lab else "")
    chosen = views or tuple(TITLES)
    if os.geteuid() != 0:
        raise LabError("top reads what only root may read", remedy="sudo labkit top")
    with Feed() as feed:
        if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
            first = next(feed.frames())
            second = next((frame for frame in feed.frames() if frame.at - first.at > RATES), first)
            click.echo(whole(sections(second, scope, chosen)).text)
            return
        _run(feed, scope, Playback(views=chosen))


def _run(feed: Feed, scope: Scope, playback: Playback) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    for name in ("COLUMNS", "LINES"):  # what the terminal had when its shell was started; rich would believe it for ever
        os.environ.pop(name, None)
    console = Console()
    playback.take(next(feed.frames()), scope)
    with _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as screen:
        drawn = 0.0
        while True:
            select.select([feed, sys.stdin], [], [], 1.0)
            for frame in feed.ready():
                playback.take(frame, scope)
            pressed = list(keys())
            for key in pressed:
                playback.key(key)
            if "q" in pressed or feed.ended:
                break
            if pressed or time.monotonic() - drawn > PACE:
                drawn = time.monotonic()
                text = Text(picture(playback, scope, console.height), no_wrap=True, overflow="crop")
                text.highlight_regex(r"(?m)^(?:Control groups|Processes by namespace|Network|Overlay layers|Containers)$", "bold")
                text.highlight_regex(r"■ frozen", "bold blue")
                screen.update(text, refresh=True)
    if feed.ended:
        raise LabError("the collector of the live view has ended", remedy="labkit top again")


@contextmanager
def _keys() -> Iterator[Callable[[], Iterator[str]]]:
    """Take keys one by one while the block runs; gives a function that returns those that were pressed."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def pressed() -> Iterator[str]:
        while select.select([descriptor], [], [], 0)[0]:
            data = os.read(descriptor, 64)
            if not data:
                yield "q"  # the terminal is gone
                return
            yield from _parsed(data)

    try:
        yield pressed
    finally:
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _parsed(data: bytes) -> Iterator[str]:
    while data:
        known = next((sequence for sequence in _KEYS if data.startswith(sequence)), data[:1])
        data = data[len(known) :]
        yield _KEYS.get(known, known.decode("ascii", "replace"))
