"""A process that the launcher started: whether it lives, what it wrote, how it ended."""

from __future__ import annotations

import contextlib
import marshal
import os
import re
import select
import signal as signals
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit import trace
from labkit.errors import LabError
from labkit.kernel import namespaces
from labkit.kernel.processes import ending
from labkit.kernel.processes.launcher import receive
from labkit.kernel.processes.launching import placing
from labkit.kernel.processes.plan import variable_of
from labkit.kernel.state import ProcessState

_LOOK = 0.02  # seconds between two looks at a log file
_LAST_WORD = 5.0  # seconds that the launcher may take to tell the status of a process that has ended


class Process:
    """One started process.

    Attributes:
        name: the lab's name for it, or "".
        pid: as this process's PID namespace numbers it.
        tracker: the cgroup (v2) in which it was started.
        master: descriptor of our side of its pseudo-terminal, or None.
        started: whether its program runs, or ran; until then a frozen cgroup holds it.
    """

    def __init__(
        self, name: str, tracker: ending.Tracker, mark: str, report: socket.socket, log: str | int | None, master: int | None
    ) -> None:
        self.name, self.tracker, self.master = name, tracker, master
        self.pid, self.started = 0, False
        self._mark, self._report, self._log = mark, report, log
        self._pidfd, self._status = -1, None  # type: int, int | None
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        status = self.status
        return f"<Process {self.name or 'without name'} pid {self.pid} {'running' if status is None else f'ended with {status}'}>"

    def __del__(self) -> None:
        log = getattr(self, "_log", None)
        for fd in (getattr(self, "_pidfd", -1), log if isinstance(log, int) else -1, getattr(self, "master", None) or -1):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet; one that is stopped or frozen lives."""
        return self.status is None

    @property
    def status(self) -> int | None:
        """The exit status, negative for the signal that ended it; None while it lives."""
        if self._status is None and self._ended(0):
            self._last_word()
        return self._status

    def fileno(self) -> int:
        """Return its pidfd: readable once it has ended, see pidfd_open(2)."""
        return self._pidfd

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended and return its status, negative for a signal.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            LabError: it still runs after `timeout`.
        """
        if self._status is None and not self._ended(timeout):
            raise LabError(f"{self._called()} still runs after {timeout:g} s")
        status = self.status
        if status is None:
            raise LabError(f"{self._called()} ended, and nobody told how")
        return status

    def signal(self, number: int) -> None:
        """Send a signal to it, and to it alone.

        Shell:
            kill -TERM $clock

        Raises:
            LabError: it has ended.

        See: pidfd_send_signal(2)
        """
        try:
            signals.pidfd_send_signal(self._pidfd, number)
        except OSError as error:
            raise LabError(f"{self._called()} has ended, a signal cannot reach it") from error
        self._record(signals.Signals(number).name)

    def kill(self, timeout: float = 10.0) -> int:
        """End it and everything it started, frozen or not, and wait until they are gone.

        Shell:
            kill -KILL $clock

        Args:
            timeout: seconds.

        Returns:
            Its status; that of an earlier end where it had ended already.

        Raises:
            LabError: some of the processes do not go.
        """
        known = ending.known(self.pid) if self.alive else None
        root = known if self.alive else None  # asked twice: the number may be another's since
        try:
            ending.end([self.tracker], self._mark, root, seconds=timeout)
        except TimeoutError as error:
            raise LabError(f"{self._called()}: {error.strerror}") from error
        if root is not None:
            self._record("SIGKILL")
        return self.wait(timeout)

    def output(self) -> str:
        """Return what it wrote so far, standard output and error; "" where that went to a descriptor or a terminal."""
        if self._log is None:
            return ""
        if isinstance(self._log, int):
            written = os.pread(self._log, os.fstat(self._log).st_size, 0)
        else:
            written = Path(self._log).read_bytes() if os.path.exists(self._log) else b""
        return written.decode("utf-8", "replace")

    def wait_output(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Wait until what it wrote matches a regular expression, ^ and $ at each line.

        Args:
            pattern: searched for in all that it wrote.
            timeout: seconds.

        Raises:
            LabError: it ended, or the time did, without a match; the last lines are shown.
        """
        deadline = time.monotonic() + timeout
        while True:
            over = not self.alive or time.monotonic() > deadline
            text = self.output()
            if match := re.search(pattern, text, re.MULTILINE):
                return match
            if over:
                why = f"still runs after {timeout:g} s" if self.alive else f"ended with status {self.status}"
                last = " | ".join(text.splitlines()[-3:])
                raise LabError(f"{self._called()} {why} and never wrote {pattern!r}", cause=f"its last lines: {last}" if last else None)
            self._ended(_LOOK)

    def wait_ready(self, ready: Callable[[], bool], called: str, otherwise: str = "does not answer", timeout: float = 60.0) -> None:
        """Wait until a daemon does what it was started for; one that does not in time is killed.

        Args:
            ready: asks for it.
            called: what an error calls it.
            otherwise: what it says of one that lives and is not ready.
            timeout: seconds.

        Raises:
            LabError: it ended instead, or is not ready in time, with the last line of its output.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            last = "".join(self.output().strip().splitlines()[-1:]) or None
            if not self.alive:
                raise LabError(f"{called} ended with status {self.status}", cause=last)
            if time.monotonic() > deadline:
                self.kill()
                raise LabError(f"{called} {otherwise} after {timeout:g} s", cause=last)
            time.sleep(_LOOK)

    def state(self) -> ProcessState:
        """Return what /proc says of it now; of one that has ended only its pid, its name and the state "X"."""
        if not self.alive:
            return ProcessState(pid=self.pid, ppid=0, comm="", state="X", name=self.name)
        return namespaces.process(self.pid, name=self.name)

    def namespaces(self) -> dict[str, int]:
        """Return its namespaces, kind to inode."""
        return namespaces.of(self.pid)

    def hear(self, timeout: float) -> dict[str, Any] | None:
        """Take the next message of the launcher in, and return it; None where none came in `timeout` seconds.

        Raises:
            LabError: the launcher died before the process ran.
        """
        with self._lock:
            if not _readable(self._report.fileno(), timeout):
                return None
            message, fds = receive(self._report, 65536)
            if not message:
                if not self.started:
                    raise LabError(f"the launcher of processes died while it started {self._called()}", remedy="start it again")
                self._status = -signals.SIGKILL  # the launcher died, and its children with it
                return {"ended": self._status}
            told: dict[str, Any] = marshal.loads(message)  # noqa: S302 - from our own child
            self.pid = told.get("pid", self.pid)
            self.started = self.started or "started" in told
            self._status = told.get("ended", self._status)
            if fds:
                self._pidfd = fds[0]
            return told

    def discard(self) -> None:
        """Forget a process that could not be started; what there is of it is ended."""
        ending.end([self.tracker], self._mark)
        self._report.close()

    def _ended(self, timeout: float | None) -> bool:
        """Wait at most `timeout` seconds for the end and say whether it came."""
        return self._status is not None or _readable(self._pidfd, timeout)

    def _last_word(self) -> None:
        """Hear the launcher to the end, then give back what is no longer needed."""
        with self._lock:
            deadline = time.monotonic() + _LAST_WORD
            while self._status is None and time.monotonic() < deadline:
                told = self.hear(deadline - time.monotonic())
                if told and "error" in told:
                    self._status = 127
            if self._status is not None and self._report.fileno() >= 0:
                self._report.close()
                with placing:
                    ending.remove(self.tracker)  # stays where a descendant still lives in it

    def _record(self, signal: str) -> None:
        word = f"${variable_of(self.name)}" if self.name else str(self.pid)
        trace.record(f"kill -{signal.removeprefix('SIG')} {word}", calls=[f"pidfd_send_signal(pidfd, {signal}, NULL, 0)"])

    def _called(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.name else f"process {self.pid}"


def _readable(fd: int, timeout: float | None) -> bool:
    watch = select.poll()
    watch.register(fd, select.POLLIN)
    return bool(watch.poll(None if timeout is None else max(0, timeout * 1000)))
