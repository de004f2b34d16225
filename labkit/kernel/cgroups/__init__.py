"""Control groups of both versions behind one `Cgroup`. See: cgroups(7).

v2 is the language, also where the machine has v1: `cg["memory.max"] = "64M"` writes memory.limit_in_bytes there, and
the trace shows what was really written. A `Cgroup` keeps only its name and its directories; the kernel answers the rest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from labkit import trace
from labkit.errors import LabError, SyscallError, UnsupportedError
from labkit.kernel.cgroups import causes as cgroup_causes
from labkit.kernel.cgroups import controllers as cgroup_controllers
from labkit.kernel.cgroups import files as cgroup_files
from labkit.kernel.cgroups import members
from labkit.kernel.cgroups.delegation import check_name, guest, home, home_in, make_directory, subtree, tracker, trackers
from labkit.kernel.cgroups.hierarchy import Hierarchies, Hierarchy, hierarchies, require_all
from labkit.kernel.cgroups.interface import Value, size, text_of
from labkit.kernel.cgroups.reading import states
from labkit.kernel.cgroups.versions import TABLE, Row

__all__ = ["TABLE", "Cgroup", "Hierarchies", "Hierarchy", "Row", "hierarchies", "home", "size", "states", "subtree", "tracker", "trackers"]


class HasPid(Protocol):
    """What `attach` takes besides a number: a started process."""

    @property
    def pid(self) -> int:
        """Its number."""


class Cgroup:
    """One cgroup of the lab, in one hierarchy or, with v1, in several at once.

    Args:
        name: below the lab's part of the hierarchy; a child's has a slash in it.
        where: controller to directory; "" stands for the v2 hierarchy.
    """

    def __init__(self, name: str, where: dict[str, Path]) -> None:
        self.name = name
        self._where = dict(where)

    @classmethod
    def create(cls, name: str, controllers: str | Iterable[str] = ("freezer",), version: int | None = None) -> Cgroup:
        """Make a cgroup, or return the one of this name that the lab has.

        Shell: mkdir -p /sys/fs/cgroup/freezer/lab-2.1/mycgroup

        Args:
            name: one name, not a path.
            controllers: what it shall control; in v2 they are enabled from the root down.
            version: 1 or 2 where the machine has both; else the one that has the controller.

        Raises:
            LabError: the name cannot stand, or the place is taken by something that is not the lab's.
            UnsupportedError: the machine does not have a controller (in that version).
        """
        check_name(name)
        if version not in (None, 1, 2):
            raise LabError(f"there is no cgroup v{version}", remedy="version=1, version=2, or leave it out")
        places = require_all([controllers] if isinstance(controllers, str) else controllers, version)
        where = {controller if found == 1 else "": home_in(root) / name for controller, (root, found) in places.items()}
        group = cls(name, where)
        group._make()
        if inherited := [controller for controller, (_, found) in places.items() if found == 2 and controller not in ("", "freezer")]:
            base = where[""].parent
            cgroup_controllers.enable_for_lab(base.parent, base, inherited)
        return group

    @classmethod
    def find(cls, name: str, version: int | None = None) -> Cgroup:
        """Return the lab's cgroup of this name, in every hierarchy (of this version) that has it.

        Raises:
            LabError: there is none.
        """
        where: dict[str, Path] = {}
        for part in name.split("/"):
            check_name(part)
        for hierarchy in hierarchies().mounted:
            path = hierarchy.path / subtree() / name
            if version in (None, hierarchy.version) and path.is_dir():
                where.update(dict.fromkeys(hierarchy.controllers or ("",), path))
        if not where:
            raise LabError(f"the lab has no cgroup {name}", remedy=f'lab.cgroup("{name}") makes it')
        return cls(name, where)

    def _make(self) -> None:
        for path in self.directories:
            if not path.is_dir():
                written = make_directory(path)
                trace.record(f"mkdir -p {path}", calls=[f'mkdir("{path}", 0777)'])
                for file, value in written:
                    trace.record(f"echo {value} > {file}", writes=[(str(file), value)])

    def __repr__(self) -> str:
        return f"Cgroup({self.name!r}: {', '.join(map(str, self.directories))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cgroup) and self.directories == other.directories

    def __hash__(self) -> int:
        return hash(self.directories)

    @property
    def directories(self) -> tuple[Path, ...]:
        """Where it lies: one directory a hierarchy."""
        return tuple(dict.fromkeys(self._where.values()))

    @property
    def path(self) -> Path:
        """The directory; the first one where there are several."""
        return self.directories[0]

    @property
    def version(self) -> int:
        """2 where it lies in the v2 hierarchy alone, else 1."""
        return 2 if set(self._where) == {""} else 1

    @property
    def controllers(self) -> tuple[str, ...]:
        """What controls its processes, as the kernel says now."""
        inherited = cgroup_controllers.words(self._where[""], "cgroup.controllers") if "" in self._where else ()
        return (*(name for name in self._where if name), *inherited)

    def directory(self, controller: str = "") -> Path:
        """Return the directory in which `controller` has its interface files ("" for the v2 one).

        Raises:
            LabError: this cgroup does not have the controller.
        """
        return cgroup_files.directory_of(self.name, self._where, controller)

    def attach(self, process: int | HasPid) -> None:
        """Move a process with all its threads into the cgroup, in every hierarchy that it lies in.

        Shell: echo $clock > /sys/fs/cgroup/freezer/lab-2.1/mycgroup/cgroup.procs

        Raises:
            SyscallError: EBUSY (v2: children have controllers), ENOSPC (v1 cpuset without CPUs), ESRCH (no such process).
        """
        pid = process if isinstance(process, int) else process.pid
        name = getattr(process, "name", "")
        if pid <= 0:
            raise LabError(f"{pid} is no process", remedy="attach a process that lab.spawn returned, or its number")
        for directory in self.directories:
            path = directory / "cgroup.procs"
            with guest(pid, directory):
                try:
                    members.write(path, str(pid))
                except SyscallError as error:
                    raise cgroup_causes.explained(error, cgroup_causes.of_attach(directory, pid, error.errno or 0)) from None
            trace.record(f"echo {f'${name}' if name else pid} > {path}", writes=[(str(path), str(pid))])

    def procs(self) -> tuple[int, ...]:
        """Return the processes in it, ascending; not those of its children."""
        return tuple(sorted({pid for directory in self.directories for pid in members.pids(directory)}))

    def threads(self) -> tuple[int, ...]:
        """Return the threads in it, ascending."""
        file = "cgroup.threads" if self.path == self._where.get("") else "tasks"
        return tuple(sorted({int(word) for word in members.read(self.path / file).split()}))

    def children(self) -> tuple[Cgroup, ...]:
        """Return the cgroups directly below it."""
        names = {entry.name for directory in self.directories if directory.is_dir() for entry in directory.iterdir() if entry.is_dir()}
        return tuple(self._below(name) for name in sorted(names))

    def child(self, name: str) -> Cgroup:
        """Make a cgroup below this one, in the same hierarchies, or return the one that is there."""
        child = self._below(check_name(name))
        child._make()
        return child

    def _below(self, name: str) -> Cgroup:
        return Cgroup(f"{self.name}/{name}", {controller: directory / name for controller, directory in self._where.items()})

    @property
    def parent(self) -> Cgroup | None:
        """The cgroup above it; None where that is the lab's part of the hierarchy."""
        above, _, _ = self.name.rpartition("/")
        return Cgroup(above, {controller: directory.parent for controller, directory in self._where.items()}) if above else None

    def _freezer(self) -> Path:
        return cgroup_files.directory_of(self.name, self._where, "freezer")

    @property
    def frozen(self) -> bool:
        """Whether the kernel says that every process in it and below it is frozen."""
        return members.is_frozen(self._freezer())

    def freeze(self, timeout: float = 5.0) -> None:
        """Stop every process in it and below it, and wait until the kernel says that they are.

        Shell: echo FROZEN > freezer.state (v1); echo 1 > cgroup.freeze (v2)

        Args:
            timeout: seconds.

        Raises:
            LabError: this very process is in it; or the time ran out, with the processes that do not stop.
        """
        self._refuse_own("freeze")
        self._set_frozen(True, timeout)  # noqa: FBT003

    def thaw(self, timeout: float = 5.0) -> None:
        """Let its processes go on, and wait until the kernel says that they do.

        Shell: echo THAWED > freezer.state (v1); echo 0 > cgroup.freeze (v2)
        """
        self._set_frozen(False, timeout)  # noqa: FBT003

    def _set_frozen(self, frozen: bool, timeout: float) -> None:
        directory = self._freezer()
        file, value = members.freezer_file(directory, frozen)
        members.write(file, value)
        trace.record(f"echo {value} > {file}", writes=[(str(file), value)])
        members.wait_frozen(directory, frozen, timeout)

    def _refuse_own(self, verb: str) -> None:
        if any(os.getpid() in members.pids(directory, deep=True) for directory in self.directories):
            outside = " ".join(f"{hierarchy.path}/cgroup.procs" for d in self.directories if (hierarchy := hierarchies().of(d)))
            remedy = f"move it out first: echo {os.getpid()} | tee {outside}"
            raise LabError(f"to {verb} {self.name} would {verb} this notebook's own process, pid {os.getpid()}", remedy=remedy)

    def kill(self, timeout: float = 5.0) -> None:
        """End every process in it and below it with SIGKILL, also a frozen one, and wait until they are gone.

        It waits, at most as long, until they no longer count in pids.current either.

        Shell: echo 1 > cgroup.kill (v2); kill -KILL $(cat cgroup.procs) (v1)
        """
        deadline = time.monotonic() + timeout
        self._refuse_own("kill")
        for line in cgroup_files.kill_lines(self.directories):
            trace.record(line, calls=["pidfd_send_signal(pidfd, SIGKILL, NULL, 0)"] if "cgroup.kill" not in line else [])
        members.kill(self.directories, timeout)
        members.wait_uncounted(self.directories, deadline - time.monotonic())

    def enable(self, *controllers: str) -> None:
        """Give its children these controllers. In v1 there is nothing to enable, and it says so.

        Shell: echo +memory > cgroup.subtree_control

        Raises:
            SyscallError: EBUSY where processes are in the cgroup itself; they are named.
            UnsupportedError: v1, or the cgroup does not have the controller itself.
        """
        cgroup_controllers.enable(self._v2_of(controllers), controllers)

    def disable(self, *controllers: str) -> None:
        """Take these controllers from its children.

        Shell: echo -memory > cgroup.subtree_control
        """
        cgroup_controllers.disable(self._v2_of(controllers), controllers)

    def _v2_of(self, controllers: Iterable[str]) -> Path:
        held = [name for name in controllers if hierarchies().version_of(name) == 1]
        if held or "" not in self._where:
            found = f"{held[0] if held else self.name} in v1, where a cgroup has the controllers that its hierarchy is mounted with"
            raise UnsupportedError("cgroup v2 for cgroup.subtree_control", found)
        return self._where[""]

    def remove(self, *, kill: bool = True, timeout: float = 5.0) -> None:
        """Remove the cgroup with all below it; what runs in it is killed, or with kill=False is in the way.

        Shell: rmdir /sys/fs/cgroup/freezer/lab-2.1/mycgroup

        Raises:
            SyscallError: EBUSY with the processes that are in it (kill=False).
        """
        if kill:
            self.kill(timeout)
        for directory in self.directories:
            if directory.is_dir():
                parts = [str(part) for part in members.below(directory)]
                members.remove(directory, timeout)
                trace.record(f"rmdir {' '.join(parts)}", calls=[f'rmdir("{part}")' for part in parts])

    def __getitem__(self, key: str) -> Value:
        return cgroup_files.value(self.name, self._where, key)

    def __setitem__(self, key: str, value: object) -> None:
        for file, text in cgroup_files.writes(self.name, self._where, key, text_of(key, value)):
            try:
                members.write(file, text)
            except SyscallError as error:
                raise cgroup_causes.explained(error, cgroup_causes.of_write(file.parent, file.name, text, error.errno or 0)) from None
            trace.record(f"echo {cgroup_files.quoted(text)} > {file}", writes=[(str(file), text)])

    def keys(self) -> tuple[str, ...]:
        """Return the interface files that can be read or written here, by their names in v2 where they have one."""
        return cgroup_files.keys(self._where)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()
