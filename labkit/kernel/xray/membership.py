"""Which namespaces a process is in, its own or shared, the host name in there, and the maps of its user namespace."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping

from labkit.kernel import namespaces, syscalls
from labkit.kernel.network import netlink
from labkit.kernel.xray.machine import Machine, read
from labkit.kernel.xray.records import IdMaps, Member, Membership

_NS_GET_USERNS, _NS_GET_PARENT = 0xB701, 0xB702


def memberships(member: Member, machine: Machine) -> tuple[Membership, ...]:
    """Return the namespaces of a process, compared with those of the reference and of its parent.

    Raises:
        OSError: none of them may be read.
    """
    base = f"{machine.proc}/{member.pid}/ns"
    found = namespaces.of(member.pid, machine.proc)
    if not found:
        os.readlink(f"{base}/net")  # raises what the kernel said
    parent = namespaces.of(member.ppid, machine.proc) if member.ppid in machine.members else {}
    return tuple(
        Membership(
            kind=kind,
            inode=inode,
            own=_differs(kind, inode, machine.reference_namespaces),
            with_parent=not differs if (differs := _differs(kind, inode, parent)) is not None else None,
            owner=_above(f"{base}/{namespaces.KINDS[kind].file}", _NS_GET_USERNS),
            for_children=_for_children(base, kind, inode),
        )
        for kind, inode in found.items()
    )


def _differs(kind: str, inode: int, others: Mapping[str, int]) -> bool | None:
    return others[kind] != inode if kind in others else None


def _for_children(base: str, kind: str, inode: int) -> int | None:
    if kind not in ("pid", "time"):
        return None
    try:
        other = int(os.readlink(f"{base}/{kind}_for_children").split("[")[1][:-1])
    except OSError:
        return None  # for a PID namespace whose first process is still to come there is none
    return other if other != inode else None


def parent_namespace(path: str) -> int | None:
    """Return the inode of the PID or user namespace that one was made in; None where that is out of the reader's sight."""
    return _above(path, _NS_GET_PARENT)


def _above(path: str, request: int) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        above = fcntl.ioctl(fd, request)
        inode = os.fstat(above).st_ino
        os.close(above)
        return inode
    except OSError:
        return None  # EPERM: not below our own
    finally:
        os.close(fd)


def hostname(pid: int, machine: Machine) -> str:
    """Return the host name that a process sees: asked for in a thread that enters its UTS namespace and ends there.

    Raises:
        OSError: its namespace may not be read, or not be entered.
    """
    path = f"{machine.proc}/{pid}/ns/uts"
    if os.readlink(path) == os.readlink(f"{machine.proc}/self/ns/uts"):
        return socket.gethostname()

    def ask() -> str:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(fd, syscalls.CLONE_NEWUTS)
            return socket.gethostname()
        finally:
            os.close(fd)

    return netlink.in_thread(ask)


def id_maps(pid: int, machine: Machine) -> IdMaps:
    """Return the id maps of a process's user namespace.

    Shell:
        cat /proc/PID/uid_map /proc/PID/gid_map /proc/PID/setgroups
    """
    try:
        setgroups = read(f"{machine.proc}/{pid}/setgroups").strip()
    except OSError:
        setgroups = ""
    return IdMaps(namespaces.uid_map(pid, machine.proc), namespaces.gid_map(pid, machine.proc), setgroups)


def inside(outside: int, rows: tuple[tuple[int, int, int], ...]) -> int | None:
    """Return the number that an id of the reader's has inside a user namespace, or None."""
    return next((first + outside - begin for first, begin, count in rows if begin <= outside < begin + count), None)
