"""The collector's process: it serves frames at a socket to all who look, and ends with the last of them.

It begins as a child of whoever looks first and detaches itself, so that it may outlive that one as long as others look on.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import selectors
import socket
import time
from contextlib import suppress
from pathlib import Path

from labkit.kernel.live.collector import Collector
from labkit.kernel.live.frame import Frame, changed, difference

ALIVE = 1.0
"""Seconds after which those who look are told that all is as it was."""

MOST_WAITING = 1 << 20
"""Bytes that may wait for one who does not read; after that it gets a whole frame instead of what it has missed."""

_LABS = re.compile(r"(?:^/lab|/lab-[^/]+)(?:/|$)")


class _Viewer:
    """One who looks."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.has = Frame()
        self._waiting = b""

    def send(self, frame: Frame, line: bytes | None) -> bool:
        """Send what is new, or a whole frame to one who has missed some; return whether it still looks."""
        if not self._flush():
            return False
        if self._waiting:
            return True  # it is slow: it gets the newest when it has read this
        self._waiting = line if line is not None else (difference(self.has, frame) + "\n").encode()
        self.has = frame
        return self._flush()

    def _flush(self) -> bool:
        try:
            while self._waiting:
                self._waiting = self._waiting[self.connection.send(self._waiting) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class Server:
    """Collects while somebody looks.

    Args:
        listening: the socket at which they come.
        path: of that socket.
    """

    def __init__(self, listening: socket.socket, path: Path) -> None:
        self._listening, self._path = listening, path
        self._selector = selectors.EpollSelector()
        self._selector.register(listening, selectors.EVENT_READ, "viewer")
        self._collector = Collector(self._selector)
        self._mounts = select.epoll()
        self._mounts.register(self._collector.overlays.mountinfo, select.EPOLLPRI | select.EPOLLERR)
        self._selector.register(self._mounts.fileno(), selectors.EVENT_READ, "mounts")
        self._viewers: dict[int, _Viewer] = {}
        self._sent_at = 0.0

    def run(self) -> None:
        """Serve until nobody looks any more."""
        self._accept()
        while self._viewers or not self._over():
            now = time.monotonic()
            for key, _ in self._selector.select(max(0.0, min(self._collector.due() - now, ALIVE))):
                self._take(key)
            now = time.monotonic()
            if self._viewers and self._collector.due() <= now:
                self._send(self._collector.frame, self._collector.refresh(now), now)
        self._collector.close()

    def _take(self, key: selectors.SelectorKey) -> None:
        if key.data == "viewer":
            self._accept()
        elif key.data == "mounts":
            self._mounts.poll(0)
            self._collector.mounted()
        elif isinstance(key.data, _Viewer):
            self._hear(key.data)
        else:
            self._collector.take(key.data, key.fd)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                connection, _ = self._listening.accept()
                connection.settimeout(0)
                viewer = _Viewer(connection)
                self._selector.register(connection, selectors.EVENT_READ, viewer)
                self._viewers[connection.fileno()] = viewer
                if self._collector.frame.number and not viewer.send(self._collector.frame, None):
                    self._drop(viewer)

    def _hear(self, viewer: _Viewer) -> None:
        """Those who look say nothing: what becomes readable is their end."""
        try:
            if viewer.connection.recv(1024):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(viewer)

    def _drop(self, viewer: _Viewer) -> None:
        self._viewers.pop(viewer.connection.fileno(), None)
        self._selector.unregister(viewer.connection)
        viewer.connection.close()

    def _send(self, before: Frame, frame: Frame, now: float) -> None:
        if before.number and not changed(before, frame) and now - self._sent_at < ALIVE:
            return
        self._sent_at = now
        line: bytes | None = None
        for viewer in tuple(self._viewers.values()):
            if viewer.has is self._last and line is None:
                line = (difference(self._last, frame) + "\n").encode()
            if not viewer.send(frame, line if viewer.has is self._last else None):
                self._drop(viewer)
        self._last = frame

    _last = Frame()

    def _over(self) -> bool:
        """Whether nobody comes any more: then the socket is taken away, while nobody can be starting another collector."""
        with open(f"{self._path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._accept()
            if self._viewers:
                return False
            self._path.unlink(missing_ok=True)
            self._listening.close()
            return True


def main(path: Path) -> int:
    """Listen at a socket, tell the caller by ending, and serve in a process of its own.

    Returns:
        The exit status of the process that the caller waits for.
    """
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o077)
    listening.bind(str(path))
    os.umask(mask)
    listening.listen(64)
    listening.settimeout(0)
    if os.fork():
        return 0
    _leave_the_labs()
    os.chdir("/")
    Server(listening, path).run()
    return 0


def _leave_the_labs() -> None:
    """Go to the root of each hierarchy in which whoever started this is in a cgroup of a lab: else a lab could not remove it."""
    from labkit.kernel.cgroups.hierarchy import hierarchies

    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines}
    for hierarchy in hierarchies().mounted:
        if _LABS.search(paths.get(hierarchy.name, "")):
            with suppress(OSError):
                (hierarchy.path / "cgroup.procs").write_text("0")

