"""Every process with its namespaces: its end is told by its pidfd, its beginning by the process connector where there is one.

What a process does to its namespaces (unshare(2), setns(2)) nobody tells: a young one is read again and again, the others in turn.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

from labkit.errors import LabError
from labkit.kernel.live.frame import Member
from labkit.kernel.namespaces import KINDS
from labkit.kernel.processes import connector
from labkit.kernel.xray.records import PF_KTHREAD

YOUNG = 2.0
"""Seconds in which a process is read at each refresh: a runtime changes the namespaces of its child meanwhile."""

IN_TURN = 40
"""Refreshes in which each process is read once."""

SWEEP = 2.0
"""Seconds between two looks at all of /proc where the process connector tells of what is new: it may have dropped an event."""

_FILES = tuple((kind.name, f"/ns/{kind.file}") for kind in KINDS.values())


@dataclass
class _Known:
    """A process that lives."""

    row: Member
    start: int
    cgroups: tuple[str, ...]
    pidfd: int
    since: float


class Processes:
    """The processes of a machine.

    Args:
        watch: called with a descriptor that becomes readable when there is something to take.
        unwatch: called before it is closed.
        proc: where procfs is mounted.
        most_open: processes of which a pidfd may be held.
    """

    def __init__(
        self, watch: Callable[[int, str], None], unwatch: Callable[[int], None], proc: str = "/proc", most_open: int = 4096
    ) -> None:
        self._watch, self._unwatch, self._proc, self._most_open = watch, unwatch, proc, most_open
        self._known: dict[int, _Known] = {}
        self._pidfds: dict[int, int] = {}
        self._others: set[int] = set()  # kernel threads, and those that ended and are still listed
        self._fresh: set[int] = set()
        self._turn: deque[int] = deque()
        self._swept = -SWEEP
        self._lost = True
        self.touched: set[str] = set()
        self.rows: MappingProxyType[str, Member] = MappingProxyType({})
        self._first = dict(self._namespaces("1")) or dict(self._namespaces("self"))  # those of process 1 may be out of reach
        self._stack = ExitStack()
        self.connector: socket.socket | None = None
        with suppress(LabError):
            self.connector = self._stack.enter_context(connector.opened())
            self.connector.settimeout(0)  # read at each refresh: to wake up for each of its events would cost more than they tell

    def _take_events(self, told: socket.socket) -> bool:
        """Take what the process connector tells; return whether a known process ended."""
        ended = False
        while True:
            try:
                data = told.recv(4096)
            except BlockingIOError:
                return ended
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return ended
                self._lost = True
                continue
            ended = self._take(connector.message(data)) or ended

    def _take(self, message: connector.Message) -> bool:
        if len(message.body) < 16 or message.what == connector.NONE:
            return False
        one, group, child, child_group = struct.unpack_from("=IIII", message.body)
        if message.what == connector.FORK:
            if child == child_group:
                self._fresh.add(child)
            return False
        if one != group:
            return False
        if message.what == connector.EXIT:
            self._fresh.discard(one)
            return self._end(one)
        self._fresh.add(one)
        return False

    def ended(self, pidfd: int) -> bool:
        """Take the end of the process that a pidfd is of."""
        return self._end(self._pidfds.get(pidfd, 0))

    def _end(self, pid: int) -> bool:
        known = self._known.pop(pid, None)
        if known is None:
            return False
        if known.pidfd >= 0:
            self._unwatch(known.pidfd)
            os.close(known.pidfd)
            del self._pidfds[known.pidfd]
        self._others.add(pid)  # it may wait for its parent
        self.touched.update(known.cgroups)
        return True

    def refresh(self, now: float) -> bool:
        """Read what is new and those whose turn it is; return whether anything that is shown changed."""
        changed = self.connector is not None and self._take_events(self.connector)
        changed = changed or len(self._known) != len(self.rows)
        if self.connector is None or self._lost or now - self._swept > SWEEP:
            changed = self._sweep(now) or changed
        for pid in self._due(now):
            changed = self._look(pid, now) or changed
        for pid in self._in_turn():
            changed = self._look_again(pid, now) or changed
        if changed:
            self.rows = MappingProxyType({str(pid): known.row for pid, known in sorted(self._known.items())})
        return changed

    def _sweep(self, now: float) -> bool:
        self._swept, self._lost = now, False
        there = {int(name) for name in os.listdir(self._proc) if name.isdigit()}
        self._others &= there
        self._fresh |= there - self._known.keys() - self._others
        gone = self._known.keys() - there
        for pid in tuple(gone):
            self._end(pid)
        return bool(gone)

    def _due(self, now: float) -> Iterable[int]:
        fresh, self._fresh = self._fresh, set()
        return sorted(fresh.union(pid for pid, known in self._known.items() if now - known.since < YOUNG))

    def _in_turn(self) -> Iterable[int]:
        if not self._turn:
            self._turn.extend(self._known)
        share = len(self._known) // IN_TURN + 1
        return [pid for _ in range(min(share, len(self._turn))) if (pid := self._turn.popleft()) in self._known]

    def _look_again(self, pid: int, now: float) -> bool:
        """Read the namespaces of one that is known; its name, too, where nobody tells of a change of it."""
        known = self._known[pid]
        if self.connector is None or known.pidfd < 0:
            return self._look(pid, now)
        found, own = self._membership(pid)
        self._see_cgroups(known, pid)
        if found == known.row.namespaces or not found:
            return False
        known.row = replace(known.row, namespaces=found, own=own)
        return True

    def _look(self, pid: int, now: float) -> bool:
        try:
            row, start, flags, state = self._read(pid)
        except (OSError, ValueError):
            return self._end(pid)
        if flags & PF_KTHREAD or state in "ZX":
            self._others.add(pid)
            return self._end(pid)
        known = self._known.get(pid)
        if known is not None and known.start == start:
            self._see_cgroups(known, pid)
            if known.row == row:
                return False
            known.row = row
            return True
        self._end(pid)
        self._others.discard(pid)
        known = self._known[pid] = _Known(row, start, (), self._hold(pid), now)
        self._see_cgroups(known, pid)
        return True

    def _see_cgroups(self, known: _Known, pid: int) -> None:
        paths = tuple(self._cgroups(pid))
        if paths != known.cgroups:
            self.touched.update((*known.cgroups, *paths))
            known.cgroups = paths

    def _hold(self, pid: int) -> int:
        if len(self._pidfds) >= self._most_open:
            return -1
        with suppress(OSError):
            pidfd = os.pidfd_open(pid)
            self._pidfds[pidfd] = pid
            self._watch(pidfd, "pidfd")
            return pidfd
        return -1

    def _read(self, pid: int) -> tuple[Member, int, int, str]:
        with open(f"{self._proc}/{pid}/stat", "rb") as file:
            stat = file.read()
        end = stat.rindex(b")")
        words = stat[end + 2 :].split(None, 21)
        comm = stat[stat.index(b"(") + 1 : end].decode(errors="replace")
        flags, state = int(words[6]), words[0].decode()
        found, own = ((), ()) if flags & PF_KTHREAD else self._membership(pid)
        return Member(pid, int(words[1]), comm, found, own), int(words[19]), flags, state

    def _membership(self, pid: int) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
        found = tuple(self._namespaces(str(pid)))
        return found, tuple(kind for kind, inode in found if self._first.get(kind, inode) != inode)

    def _namespaces(self, pid: str) -> Iterator[tuple[str, int]]:
        base, readlink = f"{self._proc}/{pid}", os.readlink
        for kind, file in _FILES:
            with suppress(OSError):
                link = readlink(base + file)
                yield kind, int(link[link.index("[") + 1 : -1])

    def _cgroups(self, pid: int) -> Iterator[str]:
        with suppress(OSError), open(f"{self._proc}/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            seen = set()
            for line in file:
                path = line.rstrip("\n").split(":", 2)[2]
                if path not in seen:
                    seen.add(path)
                    yield path

    def cgroups(self, pid: int) -> tuple[str, ...]:
        """Return the cgroups of a process, each path once."""
        known = self._known.get(pid)
        return known.cgroups if known else ()

    def close(self) -> None:
        """Close every file."""
        for pid in tuple(self._known):
            self._end(pid)
        self._stack.close()
