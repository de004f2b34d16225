"""The lab's own part of each hierarchy, `lab-<owner>`: made when first needed, in the ledger, and removed as a whole.

Everything that a lab makes in cgroupfs lies below it, also what a student makes by hand, so one entry of the ledger
a hierarchy is enough: its undo ends what runs there and removes the directories bottom up.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel.cgroups import controllers, members
from labkit.kernel.cgroups.hierarchy import hierarchies, require

TRACKERS = "processes"
"""The cgroup below the lab's part of v2 in which started processes are kept together."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:+-]{0,200}")
_RESERVED = ("tasks", "notify_on_release", "release_agent", TRACKERS)
_PREFIXES = ("cgroup", "memory", "cpu", "cpuset", "cpuacct", "io", "blkio", "pids", "hugetlb", "freezer", "devices", "rdma", "misc", "dmem",
             "perf_event", "net_cls", "net_prio", "debug", "irq")  # fmt: skip
_TIMEOUT = 10.0

_homes: dict[tuple[Path, Path], tuple[int, int]] = {}
_v2_homes: dict[tuple[Path, str], Path] = {}


def subtree() -> str:
    """Return the name of the lab's part of each hierarchy, such as "lab-2.1"; "lab-lab" outside a lab."""
    return f"lab-{ledger.owner() or 'lab'}"


def check_name(name: str) -> str:
    """Return `name` if a cgroup of the lab may have it.

    Raises:
        LabError: it is empty, leaves its directory, or could be taken for an interface file.
    """
    text = str(name)
    remedy = "use letters, digits, _ . @ : + and -, such as mycgroup"
    if not text:
        raise LabError("a cgroup needs a name, and this one is empty", remedy=remedy)
    if "/" in text or text in (".", ".."):
        raise LabError(f"cgroup name {text!r} is a path, not one name", remedy="make the child of a cgroup with .child(name)")
    if not _NAME.fullmatch(text):
        raise LabError(f"cgroup name {text!r} has a character that cannot stand there, or too many", remedy=remedy)
    if text in _RESERVED or (text.partition(".")[0] in _PREFIXES and "." in text):
        raise LabError(f"cgroup name {text!r} is kept for the kernel's interface files and the lab itself", remedy="choose another name")
    return text


def home(controller: str = "", version: int | None = None) -> Path:
    """Return the lab's directory in the hierarchy of `controller` ("" for v2), made if it is not there.

    What is made in it by hand has the controller: in v1 by itself, in v2 because it is enabled here.

    Raises:
        UnsupportedError: the machine does not have the controller (in this version).
        LabError: a cgroup of that name is there and is not ours.
    """
    root, found = require(controller, version)
    path = home_in(root)
    if found == 2 and controller not in ("", "freezer"):
        controllers.enable_for_lab(root, path, [controller])
    return path


def home_in(root: Path) -> Path:
    """Return the lab's directory below the mount point of a hierarchy, made if it is not there."""
    path = root / subtree()
    if not _is_known(path):
        with trace.silent():
            _claim(path)
        if identity := _identity(path):
            _homes[ledger.state(), path] = identity
    return path


def homes(*, bare: bool = False) -> None:
    """Make the lab's part of every hierarchy that the machine has mounted: what a runtime makes in it goes with the lab.

    Args:
        bare: only of v2 and of those without a controller, as systemd's.
    """
    with trace.silent():
        for hierarchy in hierarchies().mounted:
            if not hierarchy.own and (not bare or hierarchy.version == 2 or hierarchy.name.startswith("name=")):
                home_in(hierarchy.path)


def hand_down() -> None:
    """Where there is v2 alone, give what is made in the lab's part every controller: a runtime does it for its first container."""
    root = hierarchies().unified
    if root and hierarchies().mode == "v2":
        with trace.silent():
            controllers.enable_for_lab(root, home_in(root), controllers.words(root, "cgroup.controllers"))


def _is_known(path: Path) -> bool:
    """Whether this process has already seen in the ledger that the directory is ours; the kernel says if it still is that one."""
    known = _homes.get((ledger.state(), path))
    return known is not None and known == _identity(path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _claim(path: Path) -> None:
    there = _identity(path)
    if there is None:
        with ledger.making("cgroup", path=str(path)) as entry:
            make_directory(path)
            entry.identity.update(inode=os.stat(path).st_ino)
        return
    ours = [entry for entry in ledger.live(ledger.owner()) if entry.kind == "cgroup" and entry.key["path"] == str(path)]
    if any(entry.identity.get("inode") == there[1] for entry in ours):
        return
    waiting = [entry for entry in ours if not entry.identity]
    if not waiting:
        raise LabError(f"{path} is there, and no lab of this machine's ledger made it", remedy=f"look at it, then rmdir {path}")
    ledger.made(waiting[-1], inode=there[1])  # whoever made it died before he could write so


def make_directory(path: Path) -> list[tuple[Path, str]]:
    """Make one cgroup.

    Returns:
        What had to be written so that processes can enter it: file and value.

    Raises:
        SyscallError: the kernel refused.
    """
    try:
        path.mkdir()
    except FileExistsError:
        return []  # made since the caller looked, by another process of this lab
    except OSError as error:
        remedy = "run as root" if os.geteuid() else None
        raise SyscallError("mkdir", error.errno or 0, [f'"{path}"', "0777"], remedy=remedy) from error
    return _copy_cpuset(path)


def _copy_cpuset(path: Path) -> list[tuple[Path, str]]:
    """Give a new cgroup of the v1 cpuset its parent's CPUs and memory nodes: without, no process can enter it."""
    written = []
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (path / "cgroup.clone_children").exists() and (path / name).exists() and not members.read(path / name):
            value = members.read(path.parent / name)
            members.write(path / name, value)
            written.append((path / name, value))
    return written


def tracker(name: str) -> Path:
    """Return a fresh cgroup of v2 without children, in which a process is started so that it ends with all it starts.

    Args:
        name: of the process; where one of this name is still running there, the cgroup gets a number behind it.

    Raises:
        LabError: the name cannot be that of a cgroup.
    """
    check_name(name)
    parent = trackers()
    for number in range(1, 10_000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            os.mkdir(path)
        except FileExistsError:
            try:
                os.rmdir(path)  # left by one that ended
                os.mkdir(path)
            except OSError:
                continue
        return path
    raise LabError(f"10,000 processes called {name} are running", remedy="lab.reset()")


def trackers() -> Path:
    """Return the directory of v2 in which each process has a cgroup, made."""
    directory = _home_of_v2() / TRACKERS
    directory.mkdir(exist_ok=True)
    return directory


def _home_of_v2() -> Path:
    key = ledger.state(), ledger.owner()
    known = _v2_homes.get(key)  # starting a process must not wait for mountinfo each time
    if known is None or not _is_known(known):
        known = _v2_homes[key] = home()
    return known


@contextmanager
def guest(pid: int, directory: Path) -> Iterator[None]:
    """Remember where in v2 a process was that no lab started, before the block moves it into `directory`.

    v2 knows only one place for each process, so the undo could not tell it from the lab's own, and would kill it.
    """
    hierarchy = hierarchies().of(directory)
    place = members.memberships(pid).get("")
    if hierarchy is None or hierarchy.version == 1 or place is None or place.startswith(f"{hierarchy.root.rstrip('/')}/{subtree()}/"):
        yield
        return
    origin = hierarchy.path / place.removeprefix(hierarchy.root).lstrip("/")
    with ledger.making("cgroup-guest", pid=str(pid), origin=str(origin)) as entry:
        entry.identity.update(start=_start_of(pid))
        yield


def _start_of(pid: int) -> str:
    fields = members.stat_fields(pid)
    return fields[19] if fields else ""


@ledger.undoes("cgroup-guest")
def _undo_guest(entry: ledger.Entry) -> None:
    pid, origin = int(entry.key["pid"]), Path(entry.key["origin"])
    hierarchy = hierarchies().of(origin)
    if hierarchy is None or not entry.identity or _start_of(pid) != entry.identity["start"]:
        return
    if members.memberships(pid).get("", "").startswith(f"{hierarchy.root.rstrip('/')}/lab-{entry.owner or 'lab'}/"):
        _move(pid, origin if origin.is_dir() else hierarchy.path)


@ledger.undoes("cgroup")
def _undo(entry: ledger.Entry) -> None:
    path = Path(entry.key["path"])
    there = _identity(path)
    if there is None or (entry.identity and entry.identity.get("inode") != there[1]):
        return
    _thaw_ours(path.name)
    _empty(path)
    members.remove(path, _TIMEOUT)


def _thaw_ours(name: str) -> None:
    """Thaw what the lab froze with the v1 freezer: a process that is frozen there dies in no hierarchy."""
    inodes = {entry.key["path"]: entry.identity.get("inode") for entry in ledger.live() if entry.kind == "cgroup"}
    for hierarchy in hierarchies().mounted:
        freezer = hierarchy.path / name
        identity = _identity(freezer) if "freezer" in hierarchy.controllers else None
        if identity and inodes.get(str(freezer)) in (None, identity[1]) and str(freezer) in inodes:
            members.thaw_all(freezer)


def _empty(path: Path) -> None:
    """Kill what is in the lab's part; move back to the root who is not the lab's: ourselves, and who was put in by hand."""
    deadline = time.monotonic() + _TIMEOUT
    while inside := members.pids(path, deep=True):
        guests = [pid for pid in inside if pid and _is_guest(pid, path)]
        for pid in guests:
            _move(pid, path.parent)
        if len(guests) < len(inside):
            members.kill([path], max(0.1, deadline - time.monotonic()), spared=guests)
        if time.monotonic() > deadline:
            raise LabError(f"{path} does not get empty: {members.describe(members.pids(path, deep=True))}")


def _is_guest(pid: int, path: Path) -> bool:
    """Whether a process is not the lab's: this one and its ancestors, or, in v1, one that no lab started.

    What a lab starts is in the lab's part of v2 from its first instruction on; a shell whose number was written into a
    v1 cgroup is still in its own place in v2.
    """
    if pid in members.is_or_begot(os.getpid()):
        return True
    here = hierarchies()
    hierarchy = here.of(path)
    unified = next((other for other in here.mounted if other.version == 2), None)
    if hierarchy is None or hierarchy.version == 2 or unified is None:
        return False
    place = members.memberships(pid).get("", "")
    ours = f"{unified.root.rstrip('/')}/{path.name}/"
    return bool(place) and not place.startswith(ours)


def _move(pid: int, to: Path) -> None:
    try:
        members.write(to / "cgroup.procs", str(pid))
    except SyscallError:
        if members.stat_fields(pid):
            raise  # not because it ended meanwhile
