"""The notebook's end of the launcher: starts it once, replaces it when it died, sends it requests from any thread."""

from __future__ import annotations

import marshal
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.kernel import commands
from labkit.kernel.processes import ending, launcher

_lock = threading.RLock()
placing = threading.RLock()
"""Held while a tracker is empty and meant to stay: between making one and cloning into it, and while one is removed."""
_current: Launcher | None = None


class Launcher:
    """One launcher process and the socket to it.

    Attributes:
        pid: of the launcher.
        mark: what `LABKIT_PROCESS` begins with in the environment of all that it starts.
        trackers: the cgroups in which it started processes.
    """

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex[:16]
        self.trackers: set[ending.Tracker] = set()
        self.notebook = os.getpid()
        self._count = 0
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        notebook = os.pidfd_open(self.notebook)
        try:
            program = [sys.executable, "-I", "-S", "-E", str(Path(launcher.__file__).resolve())]
            keep = (theirs.fileno(), notebook)
            self._child: subprocess.Popen[bytes] = commands.child([*program, *map(str, keep), self.mark], keep=keep)
        finally:
            theirs.close()
            os.close(notebook)
        self.pid = self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs and is ours (a fork of the notebook must not use its parent's)."""
        return self.notebook == os.getpid() and self._child.poll() is None

    def next_mark(self) -> str:
        """Return the value of `LABKIT_PROCESS` for one more process."""
        self._count += 1
        return f"{self.mark}.{self._count}."

    def send(self, request: dict[str, Any], fds: Sequence[int]) -> socket.socket:
        """Send one request and return the socket on which its process is reported.

        A text longer than a message may be travels in a memory file, and the message is only longer than that one may be.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        text, passed, memory = marshal.dumps(request), [theirs.fileno(), *fds], -1
        try:
            if len(text) > launcher.LONGEST:
                memory = os.memfd_create("request")
                os.write(memory, text)
                text, passed = bytes(launcher.LONGEST + 1), [*passed, memory]
            self.trackers.add(ending.Tracker(*request["tracker"]))
            socket.send_fds(self._requests, [text], passed)
        except BaseException:
            ours.close()
            raise
        finally:
            if memory >= 0:
                os.close(memory)
            theirs.close()
        return ours

    def close(self) -> None:
        """End the launcher and all that it started; what is gone already is no error."""
        self._requests.close()
        if self.notebook != os.getpid():
            return
        self._child.wait()
        ending.end(self.trackers, self.mark)


def current() -> Launcher:
    """Return the running launcher; start it where there is none, and replace one that died, with what it left behind."""
    global _current
    with _lock:
        if _current is not None and not _current.alive:
            old, _current = _current, None
            old.close()
        if _current is None:
            _current = Launcher()
        return _current


def running() -> Launcher | None:
    """Return the launcher if there is one; none is started."""
    return _current if _current is not None and _current.alive else None


def close() -> None:
    """End the launcher with all that it started; the next start brings a new one."""
    global _current
    with _lock:
        if _current is not None:
            old, _current = _current, None
            old.close()


def ask(request: dict[str, Any], fds: Sequence[int]) -> tuple[socket.socket, str]:
    """Send a request to the launcher, to a new one if it died just now.

    Returns:
        The socket of the reports, and the mark that the process carries.

    Raises:
        LabError: the launcher cannot be reached.
    """
    with _lock:
        for _ in range(2):
            launcher_now = current()
            mark = launcher_now.next_mark()
            request["env"] = {**request["env"], ending.MARK: mark}
            try:
                return launcher_now.send(request, fds), mark
            except (BrokenPipeError, ConnectionResetError):
                launcher_now.close()
    raise LabError("the launcher of processes died twice in a row", remedy="restart the kernel of the notebook")
