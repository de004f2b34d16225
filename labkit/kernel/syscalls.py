"""The system calls that Python lacks, each named as its page in section 2 of the manual.

One way out for every failure: SyscallError, with the arguments as a person writes them (flags by their names).
Paths are given as str or Path; None is the NULL that the kernel accepts in its place.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from labkit.errors import SyscallError

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 0x10, 0x20, 0x40, 0x80
MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME = 0x100, 0x400, 0x800
MS_BIND, MS_MOVE, MS_REC, MS_SILENT = 0x1000, 0x2000, 0x4000, 0x8000
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25

MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8

CLONE_NEWTIME = 0x80
CLONE_FS = 0x200
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF = 0x2, 0x40, 0x80, 0x100, 0x200, 0x400
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_ISDIR = 0x4000, 0x8000, 0x01000000, 0x40000000

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 15, 36, 38

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_BTIME = 0x800
_HANDLE_BYTES = 128  # MAX_HANDLE_SZ of <fcntl.h>

_libc = ctypes.CDLL(None, use_errno=True)
_tables = {prefix: {name: value for name, value in globals().items() if name.startswith(prefix)} for prefix in ("MS_", "CLONE_NEW", "PR_")}
_tables["umount2"] = {name: value for name, value in globals().items() if name.startswith(("MNT_", "UMOUNT_"))}

Location = str | Path | None
"""A path, or None for the NULL pointer."""


def mount(source: Location, target: Location, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """Attach a file system at `target`, or change a mount that is there.

    Args:
        source: device, directory (MS_BIND) or any word for a file system without a device.
        target: where.
        fstype: type as in /proc/filesystems; None with MS_BIND, MS_REMOUNT and the propagation flags.
        flags: MS_* joined by `|`.
        data: options of the file system, joined by commas.

    Raises:
        SyscallError: the kernel refused.

    See: mount(2)
    """
    result = _libc.mount(_c(source), _c(target), _c(fstype), ctypes.c_ulong(flags), _c(data))
    _check(result, "mount", describe_mount(source, target, fstype, flags, data))


def umount2(target: Location, flags: int = 0) -> None:
    """Detach the topmost mount at `target`; `flags` are MNT_* and UMOUNT_NOFOLLOW.

    See: umount2(2)
    """
    _check(_libc.umount2(_c(target), flags), "umount2", [_quoted(target), flag_names(flags, "umount2")])


def pivot_root(new_root: Location, put_old: Location) -> None:
    """Make `new_root` the root of this mount namespace and move the old one to `put_old`.

    Raises:
        SyscallError: EINVAL where new_root is no mount point or its propagation is shared.

    See: pivot_root(2)
    """
    _check(_libc.pivot_root(_c(new_root), _c(put_old)), "pivot_root", [_quoted(new_root), _quoted(put_old)])


def unshare(flags: int) -> None:
    """Move this thread into new namespaces: CLONE_NEW* joined by `|`.

    Raises:
        SyscallError: EINVAL for CLONE_NEWUSER in a process of several threads, such as a notebook kernel.

    See: unshare(2)
    """
    _check(_libc.unshare(flags), "unshare", [flag_names(flags, "CLONE_NEW")])


def setns(fd: int, nstype: int = 0) -> None:
    """Move this thread into the namespace that `fd` refers to; `nstype` is the CLONE_NEW* it must be, or 0 for any.

    See: setns(2)
    """
    _check(_libc.setns(fd, nstype), "setns", [_fd_name(fd), flag_names(nstype, "CLONE_NEW")])


def prctl(option: int, argument: int = 0) -> int:
    """Set or read an attribute of this thread, an option of PR_*.

    Returns:
        What the option returns, 0 for one that sets.

    See: prctl(2)
    """
    result: int = _libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _check(result, "prctl", [flag_names(option, "PR_"), str(argument)])
    return result


def name_to_handle_at(path: str | Path) -> tuple[int, bytes]:
    """Return the file handle of `path` (a symlink is not followed): its type and its bytes.

    Raises:
        SyscallError: EOPNOTSUPP where the file system has no handles.

    See: name_to_handle_at(2)
    """
    buffer = ctypes.create_string_buffer(8 + _HANDLE_BYTES)
    size = ctypes.c_uint.from_buffer(buffer, 0)
    size.value = _HANDLE_BYTES
    result = _libc.name_to_handle_at(_AT_FDCWD, _c(path), buffer, ctypes.byref(ctypes.c_int()), 0)
    _check(result, "name_to_handle_at", ["AT_FDCWD", _quoted(path)])
    return ctypes.c_int.from_buffer(buffer, 4).value, buffer.raw[8 : 8 + size.value]


def birth_time(path: str | Path) -> int:
    """Return when a file was made, in nanoseconds since 1970; 0 where the file system does not keep it. A symlink is not followed.

    See: statx(2)
    """
    buffer = ctypes.create_string_buffer(256)
    result = _libc.statx(_AT_FDCWD, _c(path), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer)
    _check(result, "statx", ["AT_FDCWD", _quoted(path), "AT_SYMLINK_NOFOLLOW", "STATX_BTIME"])
    mask, seconds, nanoseconds = (
        ctypes.c_uint32.from_buffer(buffer, 0).value,
        ctypes.c_int64.from_buffer(buffer, 80).value,  # stx_btime
        ctypes.c_uint32.from_buffer(buffer, 88).value,
    )
    return seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0


def inotify_init1() -> int:
    """Return a descriptor, not blocking and closed on exec, from which the events of watched directories are read.

    Raises:
        SyscallError: EMFILE where the user has as many as fs.inotify.max_user_instances says.

    See: inotify(7)
    """
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    _check(descriptor, "inotify_init1", ["IN_NONBLOCK|IN_CLOEXEC"])
    return descriptor


def inotify_add_watch(descriptor: int, path: str | Path, mask: int) -> int:
    """Watch a file or directory for the events of `mask`, IN_* joined by `|`; return the number that its events carry.

    Raises:
        SyscallError: ENOENT; ENOSPC where fs.inotify.max_user_watches is reached.

    See: inotify(7)
    """
    number: int = _libc.inotify_add_watch(descriptor, _c(path), ctypes.c_uint32(mask))
    _check(number, "inotify_add_watch", [str(descriptor), _quoted(path), hex(mask)])
    return number


def describe_mount(source: Location, target: Location, fstype: str | None, flags: int = 0, data: str | None = None) -> list[str]:
    """Return the arguments of mount(2) as a person writes them, flags by their names."""
    return [_quoted(source), _quoted(target), _quoted(fstype), flag_names(flags, "MS_"), _quoted(data)]


def flag_names(flags: int, table: str) -> str:
    """Write flags by their names, joined by `|`.

    Args:
        flags: the number.
        table: "MS_" (mount), "umount2", "CLONE_NEW" or "PR_" (one option, not joined).
    """
    known = _tables[table]
    if table == "PR_":
        return next((name for name, value in known.items() if value == flags), str(flags))
    names = [name for name, value in known.items() if flags & value]
    rest = flags & ~_union(known.values())
    return "|".join([*names, hex(rest)] if rest else names) or "0"


def _union(values: Iterable[int]) -> int:
    total = 0
    for value in values:
        total |= value
    return total


def _c(word: Location) -> bytes | None:
    return None if word is None else os.fsencode(word)


def _quoted(word: Location) -> str:
    return "NULL" if word is None else f'"{word}"'


def _fd_name(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return str(fd)


def _check(result: int, syscall: str, arguments: list[str]) -> None:
    if result < 0:
        raise SyscallError(syscall, ctypes.get_errno(), arguments)
