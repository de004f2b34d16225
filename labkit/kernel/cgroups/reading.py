"""Every cgroup of every hierarchy with what is set in it, read fast: the cgroup part of a snapshot.

The interface files stay open from one reading to the next, since opening costs several times what reading does. A
cgroup that was made anew under an old name has another inode, and so gets files of its own.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from types import MappingProxyType

from labkit.kernel.cgroups.hierarchy import Hierarchies, Hierarchy, hierarchies
from labkit.kernel.state import CgroupState

SETTABLE = {
    "memory": ("memory.max", "memory.high", "memory.low", "memory.min", "memory.swap.max", "memory.oom.group"),
    "cpu": ("cpu.max", "cpu.weight", "cpu.idle"),
    "pids": ("pids.max",),
    "io": ("io.max", "io.weight"),
    "cpuset": ("cpuset.cpus", "cpuset.mems", "cpuset.cpus.partition"),
    "hugetlb": ("hugetlb.2MB.max", "hugetlb.1GB.max"),
}
"""What can be set in v2, by controller."""

SETTABLE_V1 = {
    "freezer": ("freezer.state",),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"),
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "pids": ("pids.max",),
    "blkio": tuple(f"blkio.throttle.{kind}_device" for kind in ("read_bps", "write_bps", "read_iops", "write_iops")),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
}
"""What can be set in v1, by controller."""

_CORE = ("cgroup.freeze", "cgroup.subtree_control", "cgroup.type", "cgroup.max.depth", "cgroup.max.descendants")
_MOST_OPEN = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
_PAGE = 1 << 12


class _Group:
    """One cgroup from one reading to the next: its directory and its files, open, and what they said last."""

    def __init__(self, hierarchy: Hierarchy, directory: str, inode: int, given: tuple[str, ...]) -> None:
        self.hierarchy, self.directory, self.inode, self.given = hierarchy, directory, inode, given
        table, core = (SETTABLE, _CORE) if hierarchy.version == 2 else (SETTABLE_V1, ())
        wanted = [*core, *(name for controller in given for name in table.get(controller, ()))]
        self.names = [name for name in wanted if os.path.exists(f"{directory}/{name}")]
        self.descriptor = -1
        self.open: list[int] = []
        self.last: list[bytes] = []
        self.state: CgroupState | None = None

    def keep_open(self) -> None:
        """Open the files for good, as far as there may be more open ones."""
        global _count
        if self.hierarchy.own or _count + len(self.names) + 1 > _MOST_OPEN:
            return  # a file that is open keeps a mount of the lab's own from being unmounted
        self.descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in self.names:
            self.open.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor))
        _count += len(self.open) + 1

    def close(self) -> None:
        """Close what is open."""
        global _count
        if self.descriptor >= 0:
            for descriptor in (self.descriptor, *self.open):
                os.close(descriptor)
            _count -= len(self.open) + 1
        self.descriptor, self.open = -1, []

    def settings(self) -> list[bytes]:
        """Return what each file says."""
        if self.descriptor < 0:
            return [_whole(f"{self.directory}/{name}") for name in self.names]
        return [os.pread(descriptor, _PAGE, 0) for descriptor in self.open]

    def procs(self) -> bytes:
        """Return who is in it. The file is opened anew: v1 answers from what it found when that was done, up to a second ago."""
        try:
            return _whole("cgroup.procs", self.descriptor) if self.descriptor >= 0 else _whole(f"{self.directory}/cgroup.procs")
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return b""  # a threaded cgroup has none of its own

    def children(self) -> list[tuple[str, int]]:
        """Return path and inode of the cgroups directly below it, the last by name first."""
        status = os.stat(self.descriptor if self.descriptor >= 0 else self.directory)
        if status.st_nlink <= 2:
            return []
        with os.scandir(self.directory) as entries:
            return sorted(((entry.path, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False)), reverse=True)

    def current(self, *, procs: bool) -> CgroupState:
        """Return the state now; the same object as long as nothing changed."""
        said = [*self.settings(), self.procs() if procs else b""]
        if self.state is None or said != self.last:
            self.last = said
            values = {name: text.decode() for name, raw in zip(self.names, said, strict=False) if (text := raw.rstrip())}
            path = self.directory[len(str(self.hierarchy.path)) :] or "/"
            pids = tuple(sorted(map(int, said[-1].split())))
            self.state = CgroupState(self.hierarchy.name, path, self.directory, MappingProxyType(values), pids)
        return self.state


_groups: dict[str, _Group] = {}
_met: dict[Hierarchy, Hierarchy] = {}  # each kept once, so that a cgroup knows its own by identity
_count = 0
_lock = threading.Lock()


def states(here: Hierarchies | None = None, below: str | None = None, *, procs: bool = True) -> tuple[CgroupState, ...]:
    """Return every cgroup of every mounted hierarchy, with its processes and what is set in it; counters are left out.

    Args:
        here: the hierarchies to read; those of this machine if left out.
        below: only this cgroup of each hierarchy and what is below it, such as "lab-2.1".
        procs: whether to read who is in each; that takes as long as the rest, and /proc/PID/cgroup says it too.
    """
    here = here or hierarchies()
    with _lock:
        before = dict(_groups)
        found = [state for each in here.mounted for state in _read(_met.setdefault(each, each), below, before, procs)]
        for directory in before:
            if below is None or not os.path.isdir(directory):
                _groups.pop(directory).close()
    return tuple(found)


def _read(hierarchy: Hierarchy, below: str | None, before: dict[str, _Group], procs: bool) -> Iterator[CgroupState]:
    top = f"{hierarchy.path}/{below.strip('/')}" if below else str(hierarchy.path)
    given = _given(top, hierarchy) if below else hierarchy.controllers
    try:
        stack = [(top, os.stat(top).st_ino, given)]
    except OSError:
        return
    while stack:
        directory, inode, given = stack.pop()
        try:
            group = _group(hierarchy, directory, inode, given)
            state, children = group.current(procs=procs), group.children()
        except OSError:
            continue  # it went while we looked
        before.pop(directory, None)
        control = tuple(state.values.get("cgroup.subtree_control", "").split()) if hierarchy.version == 2 else given
        for path, number in children:
            stack.append((path, number, control))
        yield state


def _group(hierarchy: Hierarchy, directory: str, inode: int, given: tuple[str, ...]) -> _Group:
    group = _groups.get(directory)
    if group is None or group.inode != inode or group.given != given or group.hierarchy is not hierarchy:
        if group:
            group.close()
        group = _groups[directory] = _Group(hierarchy, directory, inode, given)
        group.keep_open()
    return group


def _given(directory: str, hierarchy: Hierarchy) -> tuple[str, ...]:
    if hierarchy.version == 1:
        return hierarchy.controllers
    try:
        with open(f"{os.path.dirname(directory)}/cgroup.subtree_control", encoding="ascii") as file:
            return tuple(file.read().split())
    except OSError:
        return ()


def _whole(path: str, directory: int | None = None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        text = os.read(descriptor, 1 << 16)
        while len(text) >= 1 << 12 and (part := os.read(descriptor, 1 << 16)):
            text += part
        return text
    finally:
        os.close(descriptor)
