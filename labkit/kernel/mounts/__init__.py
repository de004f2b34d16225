"""mount(8) for the labs: attach, bind, remount, change propagation, detach; each mount in the ledger before it is made.

A mount is told from another at the same place by mount id, device and type. One that is not the lab's is never
detached, changed or covered. See: mount(2), mount_namespaces(7)
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import syscalls
from labkit.kernel.mounts.options import FLAGS, OPPOSITE, data_of, flags_of, kept_flags
from labkit.kernel.mounts.ownership import (
    describe,
    detach,
    entries,
    entry_of,
    identify,
    is_ours,
    must_be_free,
    ours_or_refuse,
    refuse_strangers,
)
from labkit.kernel.mounts.table import Holder, at, at_or_below, children, holders, is_mounted_on, mount_id, mountinfo
from labkit.kernel.state import MountState

__all__ = [
    "Holder", "at", "at_or_below", "bind", "children", "describe", "holders", "is_mounted_on", "is_ours", "mount", "mount_id", "mountinfo",
    "must_be_free", "propagation", "remount", "tmpfs", "unmount",
]  # fmt: skip

_PROPAGATION = {
    "shared": syscalls.MS_SHARED,
    "private": syscalls.MS_PRIVATE,
    "slave": syscalls.MS_SLAVE,
    "unbindable": syscalls.MS_UNBINDABLE,
}
_CAP_SYS_ADMIN = 21  # its bit, as in <linux/capability.h>
_SIZE = re.compile(r"\d+[kKmMgG%]?")

Location = str | os.PathLike[str]


def mount(source: Location, target: Location, fstype: str, options: str = "") -> MountState:
    """Mount a file system of a kind; the lab's own mount that is like it already is returned as it is.

    Shell:
        mount -t FSTYPE -o OPTIONS SOURCE TARGET

    Args:
        source: device, or any word for a file system without one.
        target: the directory, which must be there.
        fstype: as in /proc/filesystems.
        options: as for mount(8), joined by commas; none has a comma in it.

    Returns:
        The mount, read back.

    Raises:
        LabError: the target is not there, or something that is not the lab's is mounted on it.
        SyscallError: ENODEV no such file system; EINVAL it refuses its options; EPERM without CAP_SYS_ADMIN.

    See: mount(2)
    """
    word, where = os.fspath(source), _target(target)
    words = [option for option in options.split(",") if option]
    line = shlex.join(["mount", "-t", fstype, *(["-o", options] if words else []), word, where])
    there = must_be_free(where, line, lambda top: top.fstype == fstype and set(words) <= {*top.options, *top.super_options})
    if there is not None:
        return there
    flags, data = flags_of(words), data_of(words)
    with ledger.making("mount", target=where) as entry:
        _call(word, where, fstype, flags, data)
        made = identify(entry, where, line)
    trace.record(line, calls=[_as_call(word, where, fstype, flags, data)])
    return made


def bind(source: Location, target: Location, readonly: bool = False, recursive: bool = False) -> MountState:
    """Show a directory, or a file, at a second place.

    Shell:
        mount --bind SOURCE TARGET
        mount -o remount,bind,ro TARGET

    Args:
        source: what to show.
        target: where: a directory for a directory, a file for a file.
        readonly: refuse writes through the second place.
        recursive: show also what is mounted below `source` (`mount --rbind`).

    Raises:
        LabError: source or target is not there, or something that is not the lab's is mounted on the target.
        SyscallError: EINVAL where `source` is unbindable; ENOTDIR where one is a directory and the other is not.

    See: mount(2), "Creating a bind mount"
    """
    origin, where = os.path.realpath(source), _target(target)
    if not os.path.lexists(origin):
        raise LabError(f"bind: {origin} is not there")
    line = shlex.join(["mount", "--rbind" if recursive else "--bind", origin, where])
    wanted = line + (" # read-only" if readonly else "")
    there = must_be_free(where, wanted, lambda _: os.path.samefile(origin, where))
    if there is None:
        flags = syscalls.MS_BIND | (syscalls.MS_REC if recursive else 0)
        with ledger.making("mount", target=where) as entry:
            _call(origin, where, None, flags)
            there = identify(entry, where, wanted, bind=True)
            trace.record(line, calls=[_as_call(origin, where, None, flags)])
            for part in (there, *children(there)) if readonly else ():  # the first call ignores MS_RDONLY
                _reflag(part, ["ro"])
    return at(where) or there


def tmpfs(target: Location, size: int | str | None = None) -> MountState:
    """Mount an empty file system that lives in memory.

    Shell:
        mount -t tmpfs -o size=16m tmpfs TARGET

    Args:
        target: the directory.
        size: bytes, or "16m" (binary), or "10%" of the memory; None is half of the memory.

    Raises:
        LabError: the size cannot be read as one.

    See: tmpfs(5)
    """
    if size is not None and not _SIZE.fullmatch(str(size)):
        raise LabError(f"tmpfs: {size!r} is no size", remedy='bytes, or a number with k, m, g or %, such as "16m"')
    return mount("tmpfs", target, "tmpfs", f"size={size}" if size is not None else "")


def remount(target: Location, options: str) -> MountState:
    """Change the options of a mount of the lab; those that are not named stay.

    Of a bind mount only this mount changes, never the file system that others see too.

    Shell:
        mount -o remount,bind,ro TARGET

    Args:
        target: where it is mounted.
        options: as for mount(8), such as "ro", "rw,nosuid" or, of a tmpfs, "size=32m".

    Raises:
        LabError: it is no mount of the lab.
        SyscallError: EBUSY for "ro" where a file is open for writing.

    See: mount(2), "Remounting an existing mount"
    """
    where = os.path.realpath(target)
    top = ours_or_refuse(where)
    words = [word for word in options.split(",") if word]
    entry = entry_of(top)
    if entry is None or entry.identity.get("bind", True):  # of one that was typed by hand the careful way is taken
        _reflag(top, words)
        return at(where) or top
    flags, kept = syscalls.MS_REMOUNT | flags_of([*top.options, *words]), kept_flags(top, words)
    data = data_of(words)
    _call(None, where, None, flags, data)
    line = shlex.join(["mount", "-o", ",".join(["remount", *kept, *([data] if data else [])]), where])
    trace.record(line, calls=[_as_call(None, where, None, flags, data)])
    return at(where) or top


def propagation(target: Location, kind: str, recursive: bool = False) -> MountState:
    """Say whether what is mounted below a mount shows in its copies in other places and mount namespaces.

    Shell:
        mount --make-shared TARGET
        mount --make-rprivate TARGET

    Args:
        target: a mount of the lab; a directory becomes one by `bind(target, target)`.
        kind: "shared" (both ways), "slave" (only in), "private" (not at all), "unbindable" (and cannot be copied).
        recursive: also of every mount below.

    Raises:
        LabError: no such kind; no mount of the lab.

    See: mount_namespaces(7)
    """
    if kind not in _PROPAGATION:
        raise LabError(f"propagation: no kind {kind!r}", remedy=f"one of {', '.join(_PROPAGATION)}")
    where = os.path.realpath(target)
    top = ours_or_refuse(where)
    if recursive:
        refuse_strangers(top)
    flags = _PROPAGATION[kind] | (syscalls.MS_REC if recursive else 0)
    _call(None, where, None, flags)
    trace.record(
        shlex.join(["mount", f"--make-{'r' if recursive else ''}{kind}", where]), calls=[_as_call(None, where, None, flags)]
    )
    return at(where) or top


def unmount(target: Location) -> None:
    """Detach the lab's mount from a directory; one that is gone already is only forgotten.

    Shell:
        umount TARGET

    Raises:
        LabError: what is mounted there, or below it, is not the lab's.
        SyscallError: EBUSY, with the processes that use it; EINVAL where nothing is mounted.

    See: umount2(2)
    """
    where = os.path.realpath(target)
    everything = mountinfo()
    top = at(where, among=everything)
    if top is None and (forgotten := entries(where)):
        for entry in forgotten:
            ledger.gone(entry)
        return
    if top is None:
        call = [f'"{where}"', syscalls.flag_names(syscalls.UMOUNT_NOFOLLOW, "umount2")]
        raise SyscallError("umount2", errno.EINVAL, call, cause=f"nothing is mounted on {where}")
    ours_or_refuse(where, everything)
    known = entry_of(top)
    try:
        detach(top, known, among=everything)
    except SyscallError as error:
        if error.errno == errno.EBUSY and (found := holders(top)):
            error.cause = f"in use by {', '.join(map(str, found))}"
            error.remedy = "end the process, or let it leave the directory"
        raise
    if known is not None:
        ledger.gone(known)
    trace.record(shlex.join(["umount", where]), calls=[f'umount2("{where}", UMOUNT_NOFOLLOW)'])


def _target(target: Location) -> str:
    where = os.path.realpath(target)
    if not os.path.lexists(where):
        raise LabError(f"mount: {where} is not there", remedy=f"mkdir {shlex.quote(where)}")
    return where


def _reflag(mounted: MountState, words: Sequence[str]) -> None:
    """Change the flags of one mount, and of nothing else that shows the same file system."""
    if unknown := [word for word in words if word not in FLAGS and word not in OPPOSITE]:
        raise LabError(f"remount: {unknown[0]} is no option of a bind mount", remedy=f"one of {', '.join([*FLAGS, *OPPOSITE])}")
    flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | flags_of([*mounted.options, *words])
    _call(None, mounted.mountpoint, None, flags)
    line = shlex.join(["mount", "-o", ",".join(["remount", "bind", *kept_flags(mounted, words)]), mounted.mountpoint])
    trace.record(line, calls=[_as_call(None, mounted.mountpoint, None, flags)])


def _as_call(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> str:
    return f"mount({', '.join(syscalls.describe_mount(source, target, fstype, flags, data))})"


def _call(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """Call mount(2), and where it fails measure why."""
    try:
        syscalls.mount(source, target, fstype, flags, data)
    except SyscallError as error:
        if error.errno == errno.EPERM and not _capable():
            error.cause, error.remedy = "this process lacks CAP_SYS_ADMIN", "run it as root"
        elif error.errno == errno.ENODEV and fstype is not None and not _known(fstype):
            error.cause = f"{fstype} is not in /proc/filesystems"
        elif error.errno == errno.ENOTDIR and source is not None and os.path.isdir(source) != os.path.isdir(target):
            error.cause = "one is a directory, the other is not"
        raise


def _capable() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _known(fstype: str) -> bool:
    return fstype in Path("/proc/filesystems").read_text().split()
