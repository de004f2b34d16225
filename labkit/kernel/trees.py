"""Directories of the lab: made with a note in the ledger, removed without a step outside.

A directory is removed with everything in it, but never across a mount point (bind mounts included) and never through
a symlink: each directory is opened by its name in the one above, and must lie on the same mount. See: openat(2)
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import mounts
from labkit.kernel.mounts.table import mount_id_of
from labkit.kernel.state import MountState
from labkit.kernel.syscalls import birth_time

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_tree(path: str | Path) -> Path:
    """Make a directory of the lab, or return it where the lab has made it already.

    Below the directory that labkit keeps for itself, missing parents are made too.

    Shell:
        mkdir -p PATH

    Args:
        path: absolute; its parent is there.

    Raises:
        LabError: something that is not the lab's has this name; the parent is not there.
    """
    where = _checked(path)
    if os.path.lexists(where):
        if _entry(where) is None:
            raise LabError(f"{where} is there already and was not made by this lab", remedy="choose another name, or remove it")
        return Path(where)
    parent = os.path.dirname(where)
    if not os.path.isdir(parent):
        if not f"{parent}/".startswith(f"{ledger.state()}/"):
            raise LabError(f"{where}: the directory above it, {parent}, is not there", remedy=f"mkdir -p {shlex.quote(parent)}")
        os.makedirs(parent, exist_ok=True)
    with ledger.making("tree", path=where) as entry:
        os.mkdir(where)
        entry.identity.update(_identity(where))
    trace.record(shlex.join(["mkdir", "-p", where]), calls=[f'mkdir("{where}", 0777)'])
    return Path(where)


def claim_tree(path: str | Path) -> None:
    """Take a name for this lab whose directory will be made by hand, or by a tool: the undo then removes what has this name.

    Raises:
        LabError: there is something of this name already, and it is not this lab's.
    """
    where = _checked(path)
    if os.path.lexists(where) and _entry(where) is None:
        raise LabError(f"{where} is there already and was not made by this lab", remedy="choose another name, or remove it")
    ledger.intend("tree", path=where)


def remove_tree(path: str | Path) -> None:
    """Remove a directory of the lab with everything in it; mounts of the lab in it are detached first.

    Shell:
        rm -r --one-file-system PATH

    Args:
        path: as given to `make_tree`; one that is gone already is only forgotten.

    Raises:
        LabError: it was not made by the lab, or something that is not the lab's is mounted in it; nothing is removed then.
        SyscallError: EPERM for an immutable file, and what else unlinkat(2) says.
    """
    where = _checked(path)
    entry = _entry(where)
    if entry is None:
        known = [one for one in ledger.live(ledger.owner()) if one.kind == "tree" and one.key["path"] == where]
        if os.path.lexists(where) or not known:
            raise LabError(f"{where} was not made by this lab and stays as it is" if os.path.lexists(where) else f"{where} is not there")
        for gone in known:
            ledger.gone(gone)
        return
    _refuse_mounts([mount for mount in mounts.at_or_below(where) if not mounts.is_ours(mount)], where)
    for mount in reversed(mounts.at_or_below(where)):
        mounts.unmount(mount.mountpoint)
    _remove(where)
    ledger.gone(entry)
    trace.record(shlex.join(["rm", "-r", "--one-file-system", where]), calls=[f'unlinkat(AT_FDCWD, "{where}", AT_REMOVEDIR)'])


def _checked(path: str | Path) -> str:
    where = os.fspath(path)
    if not os.path.isabs(where) or ".." in where.split("/") or "\0" in where:
        raise LabError(f"{where!r} is no path for a directory of the lab", remedy="an absolute path without ..")
    parent, name = os.path.split(os.path.normpath(where))
    return os.path.join(os.path.realpath(parent), name)


def _entry(where: str) -> ledger.Entry | None:
    """Return the ledger's entry of a directory that is there and is the one that was made."""
    entries = [entry for entry in ledger.live(ledger.owner()) if entry.kind == "tree" and entry.key["path"] == where]
    return next((entry for entry in reversed(entries) if _is_the_one(entry, where)), None)


def _identity(where: str) -> dict[str, int]:
    """Return what tells a directory from a later one of its name: an inode number alone is given away again."""
    return {"inode": os.lstat(where).st_ino, "birth": birth_time(where)}


def _is_the_one(entry: ledger.Entry, where: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(where).st_mode) and entry.identity in ({}, _identity(where))
    except FileNotFoundError:
        return False


def _refuse_mounts(found: list[MountState], where: str) -> None:
    if found:
        raise LabError(f"{mounts.describe(found[0])} is mounted in {where}, which stays as it is", remedy=f"umount {found[0].mountpoint}")


@ledger.undoes("tree", survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    where = entry.key["path"]
    if _is_the_one(entry, where):
        _refuse_mounts(list(mounts.at_or_below(where)), where)
        _remove(where)


def _remove(where: str) -> None:
    """Remove a directory: in each its files first, then its directories, then itself.

    One directory is open at a time, so no tree is too deep; the way back up is checked against the way down.
    """
    current = os.open(os.path.dirname(where), _OPEN)
    mount = mount_id_of(current)
    way: list[tuple[str, list[str], tuple[int, int]]] = [("", [os.path.basename(where)], _number(current))]
    try:
        while way:
            _, left, _ = way[-1]
            if left:
                name = left.pop()
                below = os.open(name, _OPEN, dir_fd=current)
                os.close(current)
                current = below
                if mount_id_of(current) != mount:
                    raise LabError(f"{_path(current)} is a mount point now, what is mounted there stays as it is")
                way.append((name, _remove_files(current), _number(current)))
                continue
            name, _, _ = way.pop()
            if way:
                above = os.open("..", _OPEN, dir_fd=current)
                os.close(current)
                current = above
                if _number(current) != way[-1][2]:
                    raise LabError(f"{where} changed while it was removed", remedy="end what works in it and remove it again")
                _call("rmdir", name, current)
    finally:
        os.close(current)


def _remove_files(directory: int) -> list[str]:
    """Remove what is no directory in an open directory and return the names of its directories."""
    with os.scandir(directory) as entries:
        below = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    for name, is_directory in below.items():
        if not is_directory:
            _call("unlink", name, directory)
    return [name for name, is_directory in below.items() if is_directory]


def _call(call: str, name: str, directory: int) -> None:
    try:
        (os.rmdir if call == "rmdir" else os.unlink)(name, dir_fd=directory)
    except FileNotFoundError:
        return  # somebody else removed it meanwhile
    except OSError as error:
        place = f"{_path(directory)}/{name}"
        cause = f"{place} is a mount point" if error.errno == errno.EBUSY else None
        raise SyscallError(call, error.errno or 0, [f'"{place}"'], cause=cause) from error


def _number(directory: int) -> tuple[int, int]:
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def _path(directory: int) -> str:
    return os.readlink(f"/proc/self/fd/{directory}")
