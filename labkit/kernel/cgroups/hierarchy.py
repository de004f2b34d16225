"""Which cgroup hierarchies this machine has mounted, v1 or v2, with which controllers. See: cgroups(7).

Nothing is assumed about /sys/fs/cgroup: mountinfo says what is mounted where. The lab may add a hierarchy of its own
below its state directory (`mount_own`): a v1 freezer on a pure v2 machine, a cgroup2 on a pure v1 machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError, UnsupportedError
from labkit.kernel import syscalls

ALIASES = {"io": "blkio", "blkio": "io"}
"""The one controller that has another name in v1."""

_V1_ONLY = ("net_cls", "net_prio", "devices", "cpuacct", "debug")
_CORE = ("freezer",)
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted hierarchy.

    Attributes:
        controllers: of v1, those mounted together, or `name=...`; empty for v2.
        path: its mount point.
        root: the cgroup that the mount shows as its root; "/" but in a container.
        own: whether the lab mounted it, below its state directory.
    """

    controllers: tuple[str, ...]
    path: Path
    root: str = "/"
    own: bool = False

    @property
    def version(self) -> int:
        """2 or 1."""
        return 1 if self.controllers else 2

    @property
    def name(self) -> str:
        """What /proc/PID/cgroup calls it: "" for v2, "freezer", "cpu,cpuacct"."""
        return ",".join(self.controllers)


@dataclass(frozen=True)
class Hierarchies:
    """Every mounted hierarchy, and what is where.

    Attributes:
        mounted: in the order of mountinfo, each hierarchy once.
        known: the controllers that the kernel has, mounted or not.
    """

    mounted: tuple[Hierarchy, ...]
    known: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """"v1", "v2", "hybrid", or "none": what the machine has mounted; what the lab added does not count."""
        versions = {hierarchy.version for hierarchy in self.mounted if not hierarchy.own and not hierarchy.name.startswith("name=")}
        return {(): "none", (1,): "v1", (2,): "v2", (1, 2): "hybrid"}[tuple(sorted(versions))]

    @property
    def unified(self) -> Path | None:
        """Mount point of the v2 hierarchy; the machine's, or else our own."""
        paths = sorted((hierarchy.own, hierarchy.path) for hierarchy in self.mounted if hierarchy.version == 2)
        return paths[0][1] if paths else None

    @property
    def v1(self) -> dict[str, Path]:
        """Controller to mount point, of what the machine itself has mounted as v1."""
        return {controller: h.path for h in self.mounted if not h.own for controller in h.controllers}

    @cached_property
    def v2_controllers(self) -> tuple[str, ...]:
        """What the root of the v2 hierarchy offers."""
        try:
            return tuple((self.unified / "cgroup.controllers").read_text().split()) if self.unified else ()
        except OSError:
            return ()

    def version_of(self, controller: str) -> int | None:
        """Return 1 or 2: where this machine has `controller`; None where it has it nowhere.

        "freezer" is a controller in v1 and part of the core of v2. Where both are there, v1 is the answer, as for
        every controller: one that v1 holds is not to be had in v2.
        """
        if self.directory(controller, 1):
            return 1
        return 2 if self.directory(controller, 2) else None

    def directory(self, controller: str, version: int) -> Path | None:
        """Return the mount point that gives `controller` ("" for the bare v2 hierarchy) in this version, or None."""
        if version == 1:
            return next((self.v1[name] for name in (controller, ALIASES.get(controller, "")) if name in self.v1), None)
        name = controller if controller in self.v2_controllers else ALIASES.get(controller, controller)
        return self.unified if controller in ("", *_CORE) or name in self.v2_controllers else None

    def of(self, path: Path) -> Hierarchy | None:
        """Return the hierarchy that a directory lies in."""
        inside = [hierarchy for hierarchy in self.mounted if path == hierarchy.path or hierarchy.path in path.parents]
        return max(inside, key=lambda hierarchy: len(hierarchy.path.parts), default=None)

    def describe(self) -> str:
        """Say in a few words what is there, for an error."""
        first = ", ".join(sorted(self.v1)) or "none"
        return f"v1: {first}; v2: {', '.join((*_CORE, *self.v2_controllers)) if self.unified else 'not mounted'}"


def hierarchies(proc: Path = Path("/proc"), root: Path = Path("/")) -> Hierarchies:
    """Read from mountinfo which hierarchies are mounted.

    Shell: grep cgroup /proc/self/mountinfo; cat /proc/cgroups

    Args:
        proc: where procfs is mounted.
        root: where the file tree begins that mountinfo speaks of; another one for a recorded machine.

    See: proc_pid_mountinfo(5)
    """
    known = _known(proc)
    found: dict[tuple[str, ...], Hierarchy] = {}
    with open(proc / "self" / "mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if " - cgroup" in line and (hierarchy := _parse(line, known, root)):
                before = found.get(hierarchy.controllers)
                if before is None or before.own:
                    found[hierarchy.controllers] = hierarchy
    return Hierarchies(tuple(found.values()), known)


def _parse(line: str, known: Iterable[str], root: Path) -> Hierarchy | None:
    mount, _, filesystem = line.partition(" - ")
    fields, (fstype, _, options) = mount.split(" "), filesystem.split(" ", 2)
    if fstype not in ("cgroup", "cgroup2"):
        return None
    point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
    words = [word for word in options.strip().split(",") if word in known or word.startswith("name=")] if fstype == "cgroup" else []
    if fstype == "cgroup" and not words:
        return None
    return Hierarchy(tuple(words), root / point.lstrip("/"), fields[3], own=point.startswith(f"{ledger.state()}/"))


def _known(proc: Path) -> tuple[str, ...]:
    try:
        lines = (proc / "cgroups").read_text().splitlines()
    except OSError:
        return ("cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "net_cls", "perf_event", "net_prio", "hugetlb", "pids")
    return tuple(line.split()[0] for line in lines if not line.startswith("#") and line.split()[3:] == ["1"])


def require(controller: str, version: int | None = None) -> tuple[Path, int]:
    """Return the mount point and the version in which `controller` is to be had; "" asks for the bare v2 hierarchy.

    A v2 hierarchy is mounted where there is none, and a v1 freezer where one is asked for and there is none.

    Raises:
        UnsupportedError: this machine does not have it (in that version).
    """
    here = hierarchies()
    wanted = version or (2 if controller == "" else here.version_of(controller))
    if wanted and (directory := here.directory(controller, wanted)):
        found = here.of(directory)
        return (mount_own("cgroup2", "cgroup2") if found and found.own else directory), wanted
    if controller == "freezer" and version == 1 and "freezer" in here.known:
        return mount_own("cgroup", "freezer"), 1
    if controller in ("", *_CORE) and wanted in (2, None):
        return mount_own("cgroup2", "cgroup2"), 2
    needs = f"the {controller} controller" + (f" of cgroup v{version}" if version else "")
    raise UnsupportedError(needs, here.describe(), remedy=_remedy(controller, version, here))


def require_all(controllers: Iterable[str], version: int | None = None) -> dict[str, tuple[Path, int]]:
    """Return mount point and version of each controller, all of them asked for before anything is made.

    cpuacct asks for nothing where there is none: in v2 the cpu controller counts the time used, too.
    """
    counted = version != 1 and hierarchies().version_of("cpuacct") is None
    wanted = [controller for controller in controllers if not (controller == "cpuacct" and counted)]
    return {controller: require(controller, version) for controller in wanted or [""]}


def _remedy(controller: str, version: int | None, here: Hierarchies) -> str | None:
    elsewhere = here.version_of(controller)
    if version and elsewhere:
        return f"this machine has it in v{elsewhere}: leave out version={version}"
    if controller in _V1_ONLY and here.mode == "v2":
        return f"{controller} exists in v1 only"
    return None


def mount_own(fstype: str, name: str) -> Path:
    """Mount a hierarchy of the lab's own at its state directory, and return where it is.

    Shell: mkdir -p /var/lib/labkit/freezer && mount -t cgroup -o freezer cgroup /var/lib/labkit/freezer

    Args:
        fstype: "cgroup" (v1) or "cgroup2".
        name: of the directory; for v1 it is the controller too.

    Raises:
        SyscallError: EBUSY where the controller is in use in another hierarchy.
    """
    target = ledger.state() / name
    options = name if fstype == "cgroup" else None
    if os.path.ismount(target):
        if not any(entry.kind == "cgroup-mount" and entry.key["path"] == str(target) for entry in ledger.live(ledger.owner())):
            with ledger.making("cgroup-mount", path=str(target)) as entry:  # another lab mounted it: who is last unmounts it
                entry.identity.update(device=os.stat(target).st_dev)
        return target
    with ledger.making("cgroup-mount", path=str(target)) as entry:
        target.mkdir(parents=True, exist_ok=True)
        syscalls.mount(fstype, target, fstype, 0, options)
        entry.identity.update(device=os.stat(target).st_dev)
    option = f"-o {options} " if options else ""
    call = f"mount({', '.join(syscalls.describe_mount(fstype, target, fstype, 0, options))})"
    trace.record(f"mkdir -p {target} && mount -t {fstype} {option}{fstype} {target}", calls=[call])
    return target


@ledger.undoes("cgroup-mount")
def _undo_mount(entry: ledger.Entry) -> None:
    target = Path(entry.key["path"])
    if any(other.kind == entry.kind and other.key == entry.key and other.owner != entry.owner for other in ledger.live()):
        return  # another lab is at work in it
    if os.path.ismount(target):
        if entry.identity and os.stat(target).st_dev != entry.identity["device"]:
            raise LabError(f"{target} is mounted over by something that the lab did not mount", remedy=f"umount {target}")
        syscalls.umount2(target)
    with suppress(OSError):
        target.rmdir()
