"""The cgroups of every hierarchy as one tree of paths, with what their controllers count.

New and removed cgroups, processes that are moved, limits and states that are written come by inotify, `populated` and
`frozen` of v2 by its cgroup.events. Only counters are polled, from files that stay open, and those of a cgroup in which
nothing ran since the last time are not: time of a CPU is counted hierarchically, so one look tells of all that is below.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from labkit.kernel.cgroups.hierarchy import Hierarchy, hierarchies
from labkit.kernel.live.counters import FILES, Reading, parsed
from labkit.kernel.live.frame import Meter
from labkit.kernel.live.watches import COMES_AND_GOES, Watches
from labkit.kernel.syscalls import IN_ISDIR

REST = 5.0
"""Seconds after which a cgroup is read whole, also where nothing told of a change."""

BUSY = 1.0
"""The same for one in which something runs: pressure, which the kernel averages, is told by nobody."""


BETWEEN = 0.08
"""Seconds at least between two looks at the counters: what an event tells of is read at once, and alone."""


@dataclass
class _Group:
    """One path: its directories, its open files, and what they said last."""

    path: str
    directories: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    row: Meter | None = None
    reading: Reading = field(default_factory=Reading)
    whole_at: float = 0.0
    counter: str = ""  # the file that tells the time of a CPU that it used

    def close(self) -> None:
        for _, descriptor in self.files.values():
            if descriptor >= 0:
                os.close(descriptor)
        self.files = {}


class Cgroups:
    """The tree.

    Args:
        most_open: files that may be open at a time.
    """

    def __init__(self, most_open: int = 4096) -> None:
        self.watches = Watches()
        self._most_open, self._open = most_open, 0
        self._groups: dict[str, _Group] = {}
        self._roots: tuple[Hierarchy, ...] = ()
        self._by_directory: dict[str, str] = {}
        self._dirty: set[str] = set()
        self._ordered: list[_Group] = []
        self._counted_at, self._reordered = 0.0, False
        self.rows: MappingProxyType[str, Meter] = MappingProxyType({})
        self.find_hierarchies()

    def find_hierarchies(self) -> None:
        """Look which hierarchies are mounted, and at all cgroups in them: at the beginning, and when a mount changed."""
        roots = tuple(each for each in hierarchies().mounted if not each.name.startswith("name="))
        if roots == self._roots:
            return
        for group in self._groups.values():
            group.close()
        self._groups, self._by_directory, self._open, self._roots = {}, {}, 0, roots
        for hierarchy in roots:
            self._enter(hierarchy, str(hierarchy.path))
        self._order()

    def _enter(self, hierarchy: Hierarchy, directory: str) -> None:
        """Take a directory and all below it."""
        self.watches.add(directory)  # before it is read, so that nothing falls between
        path = directory[len(str(hierarchy.path)) :] or "/"
        group = self._groups.setdefault(path, _Group(path))
        if group.directories.get(hierarchy.name) != directory:
            group.directories[hierarchy.name] = directory
            self._open_files(group, hierarchy, directory)
        self._by_directory[directory] = path
        self._dirty.add(path)
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self._enter(hierarchy, entry.path)

    def _open_files(self, group: _Group, hierarchy: Hierarchy, directory: str) -> None:
        for name in FILES[hierarchy.version]:
            if name in group.files and hierarchy.version == 2:
                continue  # where v1 has a controller, v2 has nothing to tell of it
            path = f"{directory}/{name}"
            if hierarchy.own or self._open >= self._most_open:  # an open file keeps a mount of the lab's own from being unmounted
                if os.path.exists(path):
                    group.files[name] = (path, -1)
                continue
            with suppress(OSError):
                group.files[name] = (path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                self._open += 1

        group.counter = next((name for name in _COUNTERS if name in group.files), "")

    def _leave(self, directory: str) -> None:
        path = self._by_directory.pop(directory, None)
        group = self._groups.get(path or "")
        if group is None:
            return
        for name in [name for name, (file, _) in group.files.items() if os.path.dirname(file) == directory]:
            _, descriptor = group.files.pop(name)
            if descriptor >= 0:
                os.close(descriptor)
                self._open -= 1
        group.counter = next((name for name in _COUNTERS if name in group.files), "")
        group.directories = {name: where for name, where in group.directories.items() if where != directory}
        if not group.directories:
            del self._groups[group.path]
        else:
            self._dirty.add(group.path)

    def _order(self) -> None:
        self._reordered = False
        self._ordered = [self._groups[path] for path in sorted(self._groups)]

    def take_events(self) -> bool:
        """Take what inotify tells, and return whether it tells of anything that is shown."""
        told = False
        for directory, mask, name in self.watches.read():
            path = self._by_directory.get(directory)
            if not directory:
                self._roots = ()
                self.find_hierarchies()
                return True
            if mask & IN_ISDIR and mask & COMES_AND_GOES and path is not None:
                self._come_or_go(f"{directory}/{name}", directory)
                told = True
            elif path is not None and name not in _UNTOLD:
                told = True
                self._mark(path, below=name in ("freezer.state", "cgroup.freeze", "cgroup.events"))
        if self._reordered:
            self._order()
        return told

    def _come_or_go(self, directory: str, parent: str) -> None:
        self._reordered = True
        hierarchy = next((each for each in self._roots if f"{parent}/".startswith(f"{each.path}/")), None)
        if hierarchy is None:
            return
        if directory in self._by_directory:  # those below it went before it did
            self._leave(directory)  # also where it was made anew: then it is another one
        if os.path.isdir(directory):
            self._enter(hierarchy, directory)

    def _mark(self, path: str, *, below: bool) -> None:
        self._dirty.add(path)
        if below:
            self._dirty.update(other for other in self._groups if other.startswith(path.rstrip("/") + "/"))

    def mark(self, paths: Iterable[str]) -> None:
        """Say that processes came to these cgroups, or went."""
        self._dirty.update(path for path in paths if path in self._groups)

    def refresh(self, now: float) -> bool:
        """Read what something told of, and, a tenth of a second after the last time, the counters; return whether anything changed."""
        changed = len(self.rows) != len(self._ordered)
        if now - self._counted_at < BETWEEN:
            for group in [group for path in sorted(self._dirty) if (group := self._groups.get(path))]:
                changed = self._read(group, now, whole=True) or changed
        else:
            self._counted_at = now
            changed = self._refresh_all(now) or changed
        self._dirty = {path for path in self._dirty if (one := self._groups.get(path)) and one.row and one.row.state == "freezing"}
        if changed:
            self.rows = MappingProxyType({group.path: group.row for group in self._ordered if group.row})
        return changed

    def _refresh_all(self, now: float) -> bool:
        ran: set[str] = set()
        changed = False
        for group in self._ordered:
            whole = group.row is None or group.path in self._dirty or now - group.whole_at > REST
            look = whole or group.path == "/" or (group.path.rpartition("/")[0] or "/") in ran
            grown = look and self._counted(group, now)
            whole = whole or (grown and now - group.whole_at > BUSY)
            if grown or (look and not group.counter):
                ran.add(group.path)
            if whole or grown:
                changed = self._read(group, now, whole) or changed
            elif group.row is not None and group.row.cpu:
                group.row, changed = replace(group.row, cpu=0.0, io=0.0 if group.row.io else group.row.io), True
        return changed

    def _counted(self, group: _Group, now: float) -> bool:
        """Read the time of a CPU that was used, and return whether it has grown."""
        if not group.counter:
            return False
        return group.reading.count_cpu(group.counter, _said(*group.files[group.counter]), now)

    def _read(self, group: _Group, now: float, whole: bool) -> bool:
        said = {name: _said(*where) for name, where in group.files.items() if name in _MOVING or (whole and name not in _COUNTERS)}
        values = {**parsed(said, group.reading, now, whole=whole), "cpu": group.reading.cpu}
        if whole:
            group.whole_at = now if group.row else now - REST * (hash(group.path) % 16) / 16  # not all of them at the same time
            values["pids"] = _procs(group.directories.values())
            values["directories"] = tuple(sorted(group.directories.items()))
            values["state"] = _state(said, bool(values["pids"]))
        before = group.row or Meter(group.path)
        if group.row is not None and all(getattr(before, name) == value for name, value in values.items()):
            return False
        group.row = replace(before, **values)
        return True

    def close(self) -> None:
        """Close every file."""
        for group in self._groups.values():
            group.close()
        self.watches.close()


_UNTOLD = frozenset(("cgroup.subtree_control", "notify_on_release", "release_agent", "cgroup.event_control"))
_COUNTERS = ("cpuacct.usage", "cpu.stat")
_MOVING = frozenset(("memory.current", "memory.usage_in_bytes", "pids.current", "io.stat", "blkio.throttle.io_service_bytes"))


def _said(path: str, descriptor: int) -> bytes:
    try:
        if descriptor >= 0:
            return os.pread(descriptor, 4096, 0)
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _procs(directories: Iterable[str]) -> tuple[int, ...]:
    found: set[int] = set()
    for directory in directories:
        with suppress(OSError), open(f"{directory}/cgroup.procs", "rb") as file:
            found.update(map(int, file.read().split()))
    return tuple(sorted(found - {0}))


def _state(said: dict[str, bytes], inhabited: bool) -> str:
    words = {said.get("freezer.state", b"").strip(), b"frozen" if b"frozen 1" in said.get("cgroup.events", b"") else b""}
    if b"FREEZING" in words:
        return "freezing"
    if b"FROZEN" in words or b"frozen" in words:
        return "frozen"
    told = said.get("freezer.state") or b"frozen" in said.get("cgroup.events", b"")
    return "running" if told and inhabited else ""
