"""End processes with all that they started, wherever those went: own sessions, other cgroups, a frozen freezer.

Standard library only: the launcher uses it too. A process is named by its pid and its start time together, so that
a number that the kernel gave to another process in the meantime is never killed. See: cgroups(7), pidfd_open(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

MARK = "LABKIT_PROCESS"
"""The variable in the environment by which a started process and its descendants are known, wherever they move."""


class Known(NamedTuple):
    """One process for ever: its pid and its start in clock ticks since boot."""

    pid: int
    start: int


class Tracker(NamedTuple):
    """One cgroup (v2) for ever: its directory, and the inode by which it is told from a later one of the same name."""

    path: str
    inode: int

    @property
    def there(self) -> bool:
        """Whether it still is."""
        try:
            return os.stat(self.path).st_ino == self.inode
        except OSError:
            return False


class _Stat(NamedTuple):
    state: str
    parent: int
    start: int


def end(trackers: Iterable[Tracker], mark: str = "", root: Known | None = None, *, seconds: float = 10.0) -> None:
    """Kill the processes of these cgroups and all that carry the mark, and wait until they are gone.

    Args:
        trackers: cgroups in which every process is to end; removed when empty.
        mark: the beginning of `LABKIT_PROCESS` in their environment; "" for none.
        root: a process that is to end with its descendants.
        seconds: after which it gives up.

    Raises:
        TimeoutError: some are still there.
    """
    deadline, trackers = time.monotonic() + seconds, list(trackers)
    doomed = {root} if root else set()
    while True:
        for tracker in trackers:
            _kill_cgroup(tracker)
        doomed |= _family(f"{MARK}={mark}".encode() if mark else b"", doomed)
        left = {known for known in doomed if _lives(known)}.union(*map(_members, trackers))
        if not left:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, f"processes {sorted(known.pid for known in left)} were killed and are still there")
        kill(left)
    for tracker in trackers:
        remove(tracker)


def kill(doomed: Iterable[Known]) -> None:
    """Send SIGKILL to each, take it out of a frozen v1 freezer, and wait a moment for the first to go."""
    freezer, watch, fds = _freezer(), select.poll(), []
    for known in doomed:
        try:
            fd = os.pidfd_open(known.pid)
        except OSError:
            continue
        fds.append(fd)
        if not _lives(known):
            continue
        try:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            watch.register(fd, select.POLLIN)
            if freezer:  # who is frozen by the v1 freezer dies only once thawed; joining a thawed cgroup thaws it alone
                _write(f"{freezer}/cgroup.procs", str(known.pid))
        except OSError:
            continue
    watch.poll(50)
    for fd in fds:
        os.close(fd)


def known(pid: int) -> Known | None:
    """Return the process that has this pid now, or None where there is none."""
    stat = _stat(pid)
    return Known(pid, stat.start) if stat else None


def remove(tracker: Tracker) -> None:
    """Remove an empty cgroup; one that is in use, or gone, stays as it is."""
    try:
        with alone(os.path.dirname(tracker.path)):
            if tracker.there:
                os.rmdir(tracker.path)
    except OSError:
        return


@contextmanager
def alone(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Keep every other process from making and removing trackers in a directory: an empty one may be about to be joined.

    Who has it already, in this thread, goes on: a start that finds its launcher dead removes what that one had.
    """
    place = os.path.realpath(directory)
    if place in _mine.places:
        yield
        return
    held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        _mine.places.add(place)
        yield
    finally:
        _mine.places.discard(place)
        os.close(held)


class _Mine(threading.local):
    def __init__(self) -> None:
        self.places: set[str] = set()


_mine = _Mine()
"""The directories that this thread has for itself."""


def _family(mark: bytes, roots: Iterable[Known]) -> set[Known]:
    """Return the processes whose environment has the mark, and the descendants of `roots`."""
    stats = {pid: stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(pid := int(name)))}
    family = {root.pid for root in roots if root.pid in stats and stats[root.pid].start == root.start}
    if mark:
        family |= {pid for pid in stats if any(word.startswith(mark) for word in _environ(pid))}
    grown = True
    while grown:
        below = {pid for pid, stat in stats.items() if stat.parent in family and pid not in family}
        family |= below
        grown = bool(below)
    return {Known(pid, stats[pid].start) for pid in family if pid != os.getpid()}


def _stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            words = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Stat(words[0].decode(), int(words[1]), int(words[19]))


def _lives(process: Known) -> bool:
    stat = _stat(process.pid)
    return stat is not None and stat.start == process.start and stat.state not in "ZX"


def _environ(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _members(tracker: Tracker) -> set[Known]:
    if not tracker.there:
        return set()
    try:
        with open(f"{tracker.path}/cgroup.procs") as file:
            return {process for line in file if (process := known(int(line)))}
    except OSError:
        return set()


def _kill_cgroup(tracker: Tracker) -> None:
    try:
        if tracker.there:
            _write(f"{tracker.path}/cgroup.kill", "1")
    except OSError:
        return  # removed already, or Linux before 5.14: its members are killed one by one


def _freezer() -> str | None:
    """Return where the v1 freezer is mounted, or None."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            if right.startswith("cgroup ") and "freezer" in right.split()[2].split(","):
                return left.split()[4]
    return None


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
