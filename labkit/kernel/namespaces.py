"""Which namespaces there are, who is in them and who owns them, read from /proc.

A namespace is made, and entered, by a process that is started for it: see `labkit.kernel.processes.start`.
See: namespaces(7), ioctl_ns(2), proc(5)
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from labkit.errors import LabError
from labkit.kernel.state import NamespaceState, ProcessState


@dataclass(frozen=True)
class Kind:
    """One kind of namespace under each of its names.

    Attributes:
        name: the long option of unshare(1) without its dashes; the word used everywhere in labkit.
        flag: CLONE_NEW* of clone(2), unshare(2) and setns(2).
        flag_name: that flag's name.
        file: its name in /proc/PID/ns.
        nsenter: the long option of nsenter(1) without its dashes.
        oci: its name in the config.json of an OCI bundle.
        isolates: what a process in it has for itself.
    """

    name: str
    flag: int
    flag_name: str
    file: str
    nsenter: str
    oci: str
    isolates: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("mount", 0x00020000, "CLONE_NEWNS", "mnt", "mount", "mount", "mount points"),
            Kind("uts", 0x04000000, "CLONE_NEWUTS", "uts", "uts", "uts", "host name and NIS domain name"),
            Kind("ipc", 0x08000000, "CLONE_NEWIPC", "ipc", "ipc", "ipc", "System V IPC, POSIX message queues"),
            Kind("net", 0x40000000, "CLONE_NEWNET", "net", "net", "network", "network devices, addresses, routes, ports"),
            Kind("pid", 0x20000000, "CLONE_NEWPID", "pid", "pid", "pid", "process ids"),
            Kind("user", 0x10000000, "CLONE_NEWUSER", "user", "user", "user", "user and group ids, capabilities"),
            Kind("cgroup", 0x02000000, "CLONE_NEWCGROUP", "cgroup", "cgroup", "cgroup", "root directory of the cgroups"),
            Kind("time", 0x00000080, "CLONE_NEWTIME", "time", "time", "time", "boot and monotonic clocks"),
        )
    }
)
"""Every kind, in the order in which the labs show them."""

_FILES = {kind.file: kind.name for kind in KINDS.values()}
_NS_GET_USERNS, _NS_GET_OWNER_UID = 0xB701, 0xB704


def kind_named(name: str) -> Kind:
    """Return the row of a kind.

    Raises:
        LabError: there is no such kind.
    """
    if name not in KINDS:
        raise LabError(f"no kind of namespace is called {name!r}", remedy=f"one of {', '.join(KINDS)}")
    return KINDS[name]


def of(pid: int | str, proc: str | Path = "/proc") -> dict[str, int]:
    """Return the namespaces of a process, kind to inode; a kind that may not be read is left out.

    Shell:
        ls -l /proc/PID/ns

    Raises:
        LabError: there is no such process.
    """
    base = f"{proc}/{pid}/ns/"
    found = {name: inode for file, name in _FILES.items() if (inode := _inode(base + file)) is not None}
    if not found and not os.path.isdir(f"{proc}/{pid}"):
        raise LabError(f"there is no process {pid}")
    return found


def shared(pid_a: int | str, pid_b: int | str, proc: str | Path = "/proc") -> dict[str, bool]:
    """Say for each kind whether two processes are in the same namespace; a kind unknown for one of them is left out."""
    a, b = of(pid_a, proc), of(pid_b, proc)
    return {kind: a[kind] == b[kind] for kind in KINDS if kind in a and kind in b}


def inventory(proc: str | Path = "/proc", *, owners: bool = True) -> tuple[NamespaceState, ...]:
    """Return every namespace that a process is in or that a mount keeps alive, by kind and inode.

    Shell:
        lsns

    Args:
        proc: where procfs is mounted.
        owners: also ask the kernel which user namespace owns each, and who made it.
    """
    members: defaultdict[str, list[str]] = defaultdict(list)
    files = [f"/ns/{file}" for file in _FILES]
    readlink, prefix = os.readlink, f"{proc}/"
    for pid in os.listdir(proc):
        if pid[0] not in "123456789":
            continue
        base = prefix + pid
        for file in files:
            try:
                members[readlink(base + file)].append(pid)
            except OSError:
                continue  # not ours to read, or it ended while we looked
    named = {**dict(_kept_out_of_sight(members, prefix)), **dict(kept_by_mounts(prefix + "self/mountinfo"))}
    states = (_namespace(link, members.get(link, []), named.get(link), prefix, owners) for link in {**members, **named})
    order = {name: place for place, name in enumerate(KINDS)}
    return tuple(sorted(filter(None, states), key=lambda state: (order[state.kind], state.inode)))


def processes(
    proc: str | Path = "/proc", *, pids: Collection[int] | None = None, names: Mapping[int, str] = MappingProxyType({})
) -> tuple[ProcessState, ...]:
    """Return the processes, by pid; those that end while they are read are left out.

    Args:
        proc: where procfs is mounted.
        pids: only these; None for all.
        names: pid to the name that the lab gave it.
    """
    numbers = sorted(int(name) for name in os.listdir(proc) if name.isdigit()) if pids is None else sorted(pids)
    found = []
    for pid in numbers:
        try:
            found.append(process(pid, proc, name=names.get(pid, "")))
        except LabError:
            continue
    return tuple(found)


def process(pid: int, proc: str | Path = "/proc", *, name: str = "") -> ProcessState:
    """Return one process.

    Raises:
        LabError: there is no such process.
    """
    base = f"{proc}/{pid}"
    try:
        stat = _read(f"{base}/stat")
        status = _read(f"{base}/status")
        argv = _read(f"{base}/cmdline")
        cgroups = _read(f"{base}/cgroup")
        namespaces = of(pid, proc)
    except OSError as error:
        raise LabError(f"there is no process {pid}") from error
    words = stat[stat.rindex(")") + 2 :].split()
    return ProcessState(
        pid=pid,
        ppid=int(words[1]),
        comm=stat[stat.index("(") + 1 : stat.rindex(")")],
        argv=tuple(argv.rstrip("\0").split("\0")) if argv else (),
        state=words[0],
        start=int(words[19]),
        pid_inside=_innermost(status, pid),
        namespaces=MappingProxyType(namespaces),
        cgroups=MappingProxyType({line.split(":", 2)[1]: line.split(":", 2)[2] for line in cgroups.splitlines()}),
        name=name,
    )


def uid_map(pid: int | str, proc: str | Path = "/proc") -> tuple[tuple[int, int, int], ...]:
    """Return the user ids of a process's user namespace: (inside, outside, count), outside as the reader numbers them.

    Shell:
        cat /proc/PID/uid_map

    See: user_namespaces(7)
    """
    return _map(f"{proc}/{pid}/uid_map")


def gid_map(pid: int | str, proc: str | Path = "/proc") -> tuple[tuple[int, int, int], ...]:
    """Return the group ids of a process's user namespace, as `uid_map` does the user ids."""
    return _map(f"{proc}/{pid}/gid_map")


def _map(path: str) -> tuple[tuple[int, int, int], ...]:
    try:
        lines = [line.split() for line in _read(path).splitlines()]
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}") from error
    return tuple((int(inside), int(outside), int(count)) for inside, outside, count in lines)


def _inode(link: str) -> int | None:
    try:
        return int(os.readlink(link).split("[")[1][:-1])
    except OSError:
        return None


def kept_by_mounts(mountinfo: str) -> Iterator[tuple[str, str]]:
    """Yield (such as "net:[4026532201]", mount point) for each mounted namespace, /run/netns last so that it is what counts.

    Args:
        mountinfo: the file that tells the mounts.
    """
    try:
        lines = [line.split() for line in _read(mountinfo).splitlines() if " - nsfs " in line]
    except OSError:
        return
    for _, link, path in sorted((line[4].startswith("/run/netns/"), line[3], line[4]) for line in lines):
        yield link, path.replace("\\040", " ")


def _kept_out_of_sight(members: Mapping[str, list[str]], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield network namespaces without a process which only the mounts of another network namespace's processes keep, as an engine's do."""
    near = {pid for kind in ("mnt", "net") for pid in members.get(_link(f"{prefix}self/ns/{kind}"), ())}
    for pid in [pids[0] for link, pids in members.items() if link.startswith("mnt:") and not near.intersection(pids)]:
        for link, path in kept_by_mounts(f"{prefix}{pid}/mountinfo"):
            if link.startswith("net:") and link not in members:
                yield link, f"{prefix}{pid}/root{path}"


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _namespace(link: str, pids: list[str], path: str | None, prefix: str, owners: bool) -> NamespaceState | None:
    """Make the record of the namespace that /proc writes as `link`."""
    file, _, number = link.partition(":[")
    if file not in _FILES:
        return None
    way = path or f"{prefix}{pids[0]}/ns/{file}"
    owner, uid = _owner(way, file) if owners else (None, None)
    return NamespaceState(_FILES[file], int(number[:-1]), tuple(sorted(map(int, pids))), owner, uid, path)


def _owner(path: str, file: str) -> tuple[int | None, int | None]:
    """Ask the kernel for the inode of the owning user namespace and, of a user namespace, for who made it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None, None
    owner = uid = None
    try:
        if file == "user":
            uid = struct.unpack("I", fcntl.ioctl(fd, _NS_GET_OWNER_UID, b"\0" * 4))[0]
        above = fcntl.ioctl(fd, _NS_GET_USERNS)
        owner = os.fstat(above).st_ino
        os.close(above)
    except OSError:
        pass  # EPERM: the owner is not below our own user namespace, so it is none of our business
    finally:
        os.close(fd)
    return owner, uid


def _innermost(status: str, pid: int) -> int:
    """Return the last number of the NSpid line, which Linux writes since 4.1."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return pid


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
