"""What two root file systems have in common, and what not: every name's kind, content, mode, owner and extended attributes.

See: inode(7), xattr(7)
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.kernel.mounts.table import mountinfo

_OF_OVERLAY = "trusted.overlay."
"""Extended attributes by which overlayfs keeps its own books in a layer; seen through the mount they are not there."""


@dataclass(frozen=True)
class Facts:
    """What there is to know of one name; the time does not count."""

    kind: int
    mode: int
    owner: tuple[int, int]
    content: object
    xattrs: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Unequal:
    """One name that is not the same in both.

    Attributes:
        path: relative to the roots.
        what: `only in the first`, `only in the second`, or what differs: kind, content, mode, owner, xattrs.
    """

    path: str
    what: str


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes:
        names: how many were compared.
        covered: where something else is mounted in one of the roots: that is not of this file system, and not looked at.
        unequal: what differs, by path.
    """

    names: int
    covered: tuple[str, ...]
    unequal: tuple[Unequal, ...]


def facts(path: Path) -> Facts:
    """Read one name.

    Raises:
        OSError: it is not there, or may not be read.
    """
    status = path.lstat()
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        content = status.st_rdev
    names = sorted(name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith(_OF_OVERLAY))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return Facts(stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), content, xattrs)


def compare(one: Path, other: Path) -> Compared:
    """Compare two root file systems, name by name.

    Shell:
        rsync --dry-run --archive --acls --xattrs --checksum --delete --itemize-changes ONE/ OTHER/

    Args:
        one: a directory; of a container `/proc/PID/root`.
        other: the same.

    Raises:
        OSError: one is no directory, or a file may not be read.
    """
    covered = sorted({*covers(one), *covers(other)})
    first, second = set(_names(one, covered)), set(_names(other, covered))
    unequal = [Unequal(path, "only in the first") for path in first - second]
    unequal += [Unequal(path, "only in the second") for path in second - first]
    for path in first & second:
        this, that = facts(one / path), facts(other / path)
        what = [field for field in Facts.__dataclass_fields__ if getattr(this, field) != getattr(that, field)]
        unequal += [Unequal(path, ", ".join(what))] if what else []
    return Compared(len(first | second), tuple(covered), tuple(sorted(unequal, key=lambda each: each.path.split("/"))))


def covers(root: Path) -> tuple[str, ...]:
    """Return where below a root something else is mounted, the uppermost, relative to it; of /proc/PID/root as that process sees it."""
    parts = root.parts
    if len(parts) == 4 and parts[1] == "proc" and parts[3] == "root":
        above, mounts = "/", mountinfo(int(parts[2]))
    else:
        above, mounts = f"{os.path.realpath(root)}/", mountinfo()
    found = sorted({mount.mountpoint.removeprefix(above) for mount in mounts if mount.mountpoint.startswith(above)} - {""})
    return tuple(each for each in found if not any(each.startswith(f"{other}/") for other in found))


def _names(root: Path, covered: list[str]) -> Iterator[str]:
    for directory, below, files in os.walk(root, onerror=_raise):
        base = os.path.relpath(directory, root)
        paths = {name: os.path.normpath(os.path.join(base, name)) for name in (*below, *files)}
        below[:] = [name for name in below if paths[name] not in covered]
        yield from (path for path in paths.values() if path not in covered)


def _raise(error: OSError) -> None:
    raise error
