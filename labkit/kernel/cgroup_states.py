"""Every cgroup of every hierarchy with what is set in it, read fast: the cgroup part of a snapshot.

The interface files stay open from one reading to the next, since opening costs several times what reading does. A
cgroup that was made anew under an old name has another inode, and so gets files of its own.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from types import MappingProxyType

from labkit.kernel.cgroup_hierarchies import Hierarchies, Hierarchy, hierarchies
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
    """One cgroup from one reading to the next: its inode, and its files, open."""

    def __init__(self, directory: str, inode: int, given: tuple[str, ...], version: int) -> None:
        self.key = inode, given
        table, core = (SETTABLE, _CORE) if version == 2 else (SETTABLE_V1, ())
        names = [*core, *(name for controller in given for name in table.get(controller, ()))]
        self.names = [name for name in names if os.path.exists(f"{directory}/{name}")]
        self.files = {name: f"{directory}/{name}" for name in self.names}
        self.open: dict[str, int] = {}

    def values(self, keep: bool) -> dict[str, str]:
        """Return what the files say now, without those that say nothing; they stay open with `keep`."""
        values = {}
        for name in self.names:
            descriptor = self.open.get(name)
            text = os.pread(descriptor, _PAGE, 0) if descriptor is not None else self._first(name, keep)
            if text := text.rstrip():
                values[name] = text.decode()
        return values

    def _first(self, name: str, keep: bool) -> bytes:
        global _count
        descriptor = os.open(self.files[name], os.O_RDONLY | os.O_CLOEXEC)
        if keep and _count < _MOST_OPEN:
            self.open[name] = descriptor
            _count += 1
            return os.pread(descriptor, _PAGE, 0)
        try:
            return os.pread(descriptor, _PAGE, 0)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close what is open."""
        global _count
        for descriptor in self.open.values():
            os.close(descriptor)
        _count -= len(self.open)
        self.open.clear()


_groups: dict[str, _Group] = {}
_count = 0
_lock = threading.Lock()


def states(here: Hierarchies | None = None, below: str | None = None) -> tuple[CgroupState, ...]:
    """Return every cgroup of every mounted hierarchy, with its processes and what is set in it; counters are left out.

    Args:
        here: the hierarchies to read; those of this machine if left out.
        below: only this cgroup of each hierarchy and what is below it, such as "lab-2.1".
    """
    found: list[CgroupState] = []
    here = here or hierarchies()
    with _lock:
        before = dict(_groups)
        for hierarchy in here.mounted:
            for state in _read(hierarchy, below):
                before.pop(state.directory, None)
                found.append(state)
        for directory in before:
            if below is None or not os.path.isdir(directory):
                _groups.pop(directory).close()
    return tuple(found)


def _read(hierarchy: Hierarchy, below: str | None) -> Iterator[CgroupState]:
    top, version = str(hierarchy.path), hierarchy.version
    stack = [(f"{top}/{below.strip('/')}", _given(f"{top}/{below.strip('/')}", hierarchy))] if below else [(top, hierarchy.controllers)]
    while stack:
        directory, given = stack.pop()
        try:
            status = os.stat(directory)
            group = _groups.get(directory)
            if group is None or group.key != (status.st_ino, given):
                if group:
                    group.close()
                group = _groups[directory] = _Group(directory, status.st_ino, given, version)
            values = group.values(not hierarchy.own)  # an open file would keep a mount of the lab's own from being unmounted
            children = _children(directory) if status.st_nlink > 2 else []
            state = CgroupState(hierarchy.name, directory[len(top) :] or "/", directory, MappingProxyType(values), _pids(directory))
        except OSError:
            continue  # it went while we looked
        control = tuple(values.get("cgroup.subtree_control", "").split()) if version == 2 else given
        stack += [(child, control) for child in children]
        yield state


def _given(directory: str, hierarchy: Hierarchy) -> tuple[str, ...]:
    if hierarchy.version == 1:
        return hierarchy.controllers
    try:
        with open(f"{os.path.dirname(directory)}/cgroup.subtree_control", encoding="ascii") as file:
            return tuple(file.read().split())
    except OSError:
        return ()


def _children(directory: str) -> list[str]:
    with os.scandir(directory) as entries:
        return sorted((entry.path for entry in entries if entry.is_dir(follow_symlinks=False)), reverse=True)


def _pids(directory: str) -> tuple[int, ...]:
    """Read anew each time: v1 answers from what it found when the file was opened, up to a second ago."""
    descriptor = os.open(f"{directory}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b""
        while part := os.read(descriptor, 1 << 16):
            text += part
    except OSError:
        return ()  # a threaded cgroup has none of its own
    finally:
        os.close(descriptor)
    return tuple(sorted(map(int, text.split()))) if text else ()
