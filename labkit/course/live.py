"""`lab.live(...)`: the kernel's state in the notebook, while it changes.

What the cell prints is a settled picture. Where a page looks at it, the page is sent each frame, and the stored picture is
refreshed by and by, so that what is saved is the last one. Nobody looks under papermill and nbval: there it stays as it was printed.
"""

from __future__ import annotations

import atexit
import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit.course.behind import behind
from labkit.errors import LabError
from labkit.kernel.live import Feed, Frame
from labkit.show.frames import TITLES, Scope, sections, whole
from labkit.show.live import LivePage, in_place
from labkit.show.news import news
from labkit.show.view import View

if TYPE_CHECKING:
    from IPython.core.display_functions import DisplayHandle

STORED = 2.0
"""Seconds between two refreshes of the picture that is saved."""

PATIENCE = 15.0
"""Seconds without a word of the page after which nobody is taken to look, unless a cell runs: then the page is not heard."""

SHARE = 0.1
"""Of one core, that drawing may take: a picture that takes long is drawn less often."""

PROMPT = 0.02
"""Seconds between two frames at least, where one tells of a change of state."""

_IMAGE = re.compile(r"<img [^>]*>")

PACE = 10
"""Frames a second at most."""


class LiveView:
    """One live view of a notebook.

    Args:
        place: the class of its place in the page, another for each view.
        label: what it is called.
        views: which parts.
        scope: returns what is shown, asked for at each frame.
    """

    def __init__(self, place: str, label: str, views: Sequence[str], scope: Callable[[], Scope]) -> None:
        self._views, self._scope, self._place, self._label = tuple(views), scope, place, label
        self._handle: DisplayHandle | None = None
        self._page: LivePage | None = None
        self._feed: Feed | None = None
        self._thread: threading.Thread | None = None
        self._everything, self._begins, self._heard, self._busy = False, True, 0.0, False
        self._lock = threading.Lock()
        self._last: Frame | None = None

    def show(self, settled: View, shell: Any) -> None:
        """Print the settled picture, and let a page that sees it ask for more."""
        from IPython.display import display

        self._handle = display(in_place(settled, self._place), display_id=True)
        self._page = LivePage(self._place, self._hear, self._label)
        self._shell = shell
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)
        atexit.register(self.close)

    def _begin(self, _: object) -> None:
        self._busy = True

    def _end(self, _: object) -> None:
        self._busy, self._heard = False, time.monotonic()

    def _hear(self, content: Mapping[str, Any]) -> None:
        """Take what the page says."""
        self._heard = time.monotonic()
        word = content.get("say")
        if word in ("look", "alive"):
            self._begins = self._begins or word == "look"
            self._look()
        elif word == "away":
            self._away()
        elif word == "everything":
            self._everything = bool(content.get("all"))
        elif word == "behind" and self._page is not None:
            title, text = behind(str(content.get("ref", "")), self._last or Frame())
            self._page.tell(tell="behind", title=title, text=text)

    def _look(self) -> None:
        with self._lock:
            if self._thread is None and self._page is not None:
                self._feed = None
                self._thread = threading.Thread(target=self._run, name=f"live view {self._place}", daemon=True)
                self._thread.start()

    def _away(self) -> None:
        with self._lock:
            feed, self._feed = self._feed, None
            self._thread = None
        if feed is not None:
            feed.close()
            self._store()

    def _run(self) -> None:
        try:
            with Feed() as feed:
                self._feed = feed
                self._follow(feed)
        except LabError as error:
            self._tell(tell="over", why=str(error))
        finally:
            if self._thread is threading.current_thread():
                self._thread = None

    def _follow(self, feed: Feed) -> None:
        before, drawn, stored = Frame(), _Drawn(), time.monotonic()
        for frame in feed.frames():
            now = time.monotonic()
            if self._thread is not threading.current_thread() or (not self._busy and now - self._heard > PATIENCE):
                return
            if self._begins:  # another page, which has nothing yet
                self._begins, before, drawn = False, Frame(), _Drawn()
            scope = self._live_scope()
            told = news(before, frame, scope)
            urgent = bool(told) or before.processes.keys() != frame.processes.keys()
            if now < drawn.next(urgent=urgent):
                continue  # the next frame is about to come
            html, images = drawn.fresh(partial(sections, frame, scope, self._views))
            pace = round(1 / max(frame.interval, 1 / PACE), 1)
            self._tell(tell="frame", at=frame.at, html=html, images=images, news=told, pace=pace)
            before = self._last = frame
            if now - stored > STORED:
                self._store()
                stored = now

    def _live_scope(self) -> Scope:
        scope = replace(self._scope(), refs=True)
        return replace(scope, home="") if self._everything else scope

    def _tell(self, **content: Any) -> None:
        if self._page is not None:
            with suppress(OSError, RuntimeError):  # the kernel is about to end
                self._page.tell(**content)

    def _store(self) -> None:
        """Put the last frame into the output that is saved."""
        if self._handle is None or self._last is None:
            return
        at = time.strftime("%H:%M:%S", time.localtime(self._last.at))
        view = whole(sections(self._last, self._scope(), self._views), f"the last picture of a live view, of {at}")
        with suppress(OSError, RuntimeError):
            self._handle.update(in_place(view, self._place))

    def close(self) -> None:
        """Look no more; the last picture stays."""
        if self._page is None:
            return
        self._away()
        self._store()
        self._tell(tell="over", why="The lab is closed")
        atexit.unregister(self.close)
        for event, callback in (("pre_run_cell", self._begin), ("post_run_cell", self._end)):
            with suppress(ValueError):
                self._shell.events.unregister(event, callback)
        self._page = None


class _Drawn:
    """What a page has already: parts that are as they were are not sent again, nor are pictures. And what drawing them took."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}
        self._images: set[str] = set()
        self._at, self._cost = 0.0, 0.0

    def next(self, *, urgent: bool) -> float:
        """Return when the page may be told of another frame: of a change of state soon, of counters when their turn comes."""
        return self._at + (max(PROMPT, self._cost / SHARE / 3) if urgent else max(0.8 / PACE, self._cost / SHARE))

    def fresh(self, draw: Callable[[], Mapping[str, View]]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the HTML of the parts that are new, `{{KEY}}` in place of each picture, and the pictures that are new."""
        images: dict[str, str] = {}

        def named(found: re.Match[str]) -> str:
            key = hashlib.sha256(found[0].encode()).hexdigest()[:16]
            if key not in self._images:
                self._images.add(key)
                images[key] = found[0]
            return f"{{{{{key}}}}}"

        self._at, begin = time.monotonic(), time.thread_time()
        parts = {name: _IMAGE.sub(named, view.html) for name, view in draw().items()}
        changed = {name: html for name, html in parts.items() if self._parts.get(name) != html}
        self._parts, self._cost = parts, time.thread_time() - begin
        return changed, images


def checked(views: Sequence[str]) -> tuple[str, ...]:
    """Return the parts that were asked for, all of them by default.

    Raises:
        LabError: there is no part of a name.
    """
    for view in views:
        if view not in TITLES:
            raise LabError(f"there is no live view {view!r}", remedy=f"one of {', '.join(TITLES)}")
    return tuple(views) or tuple(TITLES)


def settled(frame: Frame, scope: Scope, views: Sequence[str]) -> View:
    """Return the picture that does not depend on chance: for a run without a page, and for a plain Python."""
    return whole(sections(frame, scope, views))
