"""The entries of a tar: written from a tree, and from a stranger's archive put into one, without a step outside it.

See:
    tar(5), image-spec layer.md, "Change Types"
"""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, cast

from labkit.errors import LabError

DAMAGED = (tarfile.TarError, EOFError, ValueError, ArithmeticError, LookupError, RecursionError, zlib.error, lzma.LZMAError)
"""What tarfile, and what uncompresses for it, raise at bytes that no tar has."""
DEEPEST = 256
"""Directories that a path in an archive may go through."""

_CHUNK = 2**20
_XATTR = "SCHILY.xattr."
_SKIPPED = ("security.selinux", "system.posix_acl_default", "system.posix_acl_access")
_LATEST = 2**40
_NOBODY = 2**32 - 1


def add_all(tar: tarfile.TarFile, tree: Path, paths: Iterable[str], *, named: Callable[[str], str] = str, epoch: int | None = None) -> None:
    """Write paths of a tree as entries: with owners, modes and extended attributes, and a link where two are one file.

    Args:
        tar: open for writing.
        tree: the directory that the paths are relative to.
        paths: in their order: a directory before what is in it.
        named: returns what a path is called in the archive.
        epoch: seconds since 1970 that no time is later than.

    Raises:
        LabError: a device or a socket.
    """
    linked: dict[tuple[int, int], str] = {}
    for path in paths:
        source = tree / path
        status = source.lstat()
        member = _member(source, named(path), status, epoch)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            first = linked.setdefault((status.st_dev, status.st_ino), member.name)
            if first != member.name:
                member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
        if member.isreg():
            with source.open("rb") as content:
                tar.addfile(member, content)
        else:
            tar.addfile(member)


_TYPES = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}


def _member(source: Path, path: str, status: os.stat_result, epoch: int | None) -> tarfile.TarInfo:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise LabError(f"{source}: a device or a socket", cause="an image brings none, the runtime makes /dev")
    member = tarfile.TarInfo(path)
    member.type = kind
    member.mode = stat.S_IMODE(status.st_mode)
    member.uid, member.gid = status.st_uid, status.st_gid
    member.mtime = status.st_mtime if epoch is None else min(int(status.st_mtime), epoch)
    member.size = status.st_size if kind == tarfile.REGTYPE else 0
    member.linkname = os.readlink(source) if kind == tarfile.SYMTYPE else ""
    member.pax_headers = {f"{_XATTR}{name}": value.decode("utf-8", "surrogateescape") for name, value in xattrs(source)}
    return member


def xattrs(path: Path) -> list[tuple[str, bytes]]:
    """Return the extended attributes that an archive keeps, sorted by name."""
    names = sorted(os.listxattr(path, follow_symlinks=False))
    kept = [name for name in names if name not in _SKIPPED and not name.startswith("trusted.overlay.")]
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in kept]


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def put(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, parent: int, name: str) -> None:
    """Put an entry into a root, in place of what has its name; a directory that is there keeps what is in it.

    Args:
        tar: the archive, just at this entry.
        member: the entry.
        root: the directory that the paths of the archive are relative to.
        parent: the directory of the entry below it, open.
        name: of the entry in it.

    Raises:
        LabError: a device, or a link that leads out of the root.
        OSError: what the system says.
    """
    if not (member.isdir() and _is_directory(parent, name)):
        remove(parent, name)
    if member.isdir():
        if not _is_directory(parent, name):
            os.mkdir(name, dir_fd=parent)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.islnk():
        _link(member, root, parent, name)
        return  # owner, mode and time are those of what it links to
    elif member.isfifo():
        os.mkfifo(name, dir_fd=parent)
    elif member.isreg():
        check(member)
        _write(cast(_Readable, tar.extractfile(member)), parent, name)
    else:
        raise refused(member, "a device, which would open the machine's own")
    dress(member, parent, name)


def dress(member: tarfile.TarInfo, parent: int, name: str) -> None:
    """Give what was put its owner, mode, extended attributes and time."""
    check(member)
    if os.geteuid() == 0:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    if not member.issym():
        os.chmod(name, member.mode & 0o7777, dir_fd=parent)  # after chown, which takes the set-user-ID bit away
    for key, value in member.pax_headers.items():
        attribute = key.removeprefix(_XATTR)
        if attribute != key and attribute not in _SKIPPED:
            here = f"/proc/self/fd/{parent}/{name}"
            os.setxattr(here, attribute, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
    os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)


def check(member: tarfile.TarInfo) -> None:
    """Refuse an entry with a time, an owner, a link, an attribute or parts that the system cannot be told.

    Raises:
        LabError: it has one.
    """
    if not abs(member.mtime) < _LATEST:
        raise refused(member, f"its time {member.mtime} is none")
    if not (0 <= member.uid < _NOBODY and 0 <= member.gid < _NOBODY):
        raise refused(member, f"its owner {member.uid}:{member.gid} is none")
    if "\0" in member.linkname or (member.issym() and not member.linkname):
        raise refused(member, f"a link to {member.linkname!r}")
    attributes = [key.removeprefix(_XATTR) for key in member.pax_headers if key.startswith(_XATTR)]
    if any("\0" in each or not 0 < len(os.fsencode(each)) < 256 for each in attributes):
        raise refused(member, "an attribute with a name that none can have")
    end, parts = 0, list[tuple[int, int]](getattr(member, "sparse", None) or ())
    for start, length in parts:
        if length and not end <= start < start + length <= member.size:
            raise refused(member, "a sparse file whose parts do not follow each other")
        end = start + length if length else end


def _write(content: _Readable, parent: int, name: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as file:
        while data := content.read(_CHUNK):
            file.write(data)


def _link(member: tarfile.TarInfo, root: Path, parent: int, name: str) -> None:
    target = path_parts(member, member.linkname)
    if not target:
        raise refused(member, f"a link to {member.linkname!r}")
    there = open_directory(member, root, target[:-1], make=False)
    try:
        os.link(target[-1], name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise refused(member, f"a link to {member.linkname!r}: {error.strerror}") from error
    finally:
        os.close(there)


def path_parts(member: tarfile.TarInfo, name: str) -> tuple[str, ...]:
    """Return the names in the path of an entry, or of what it links to.

    Raises:
        LabError: it is absolute, has a `..` in it, or goes deeper than trees of files do.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise refused(member, f"the path {name!r} leaves the root")
    if len(parts) > DEEPEST:
        raise refused(member, f"its path goes through more than {DEEPEST} directories")
    return parts


def open_directory(member: tarfile.TarInfo, root: Path, parts: Iterable[str], *, make: bool) -> int:
    """Open a directory below root, one step after the other and through no link, so that nobody can redirect it.

    Args:
        member: the entry, for the error.
        root: a directory.
        parts: the names of the way down.
        make: whether to make what is not there.

    Raises:
        LabError: a step is no directory.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            if make and not _exists(here, part):
                os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, flags, dir_fd=here)
        except OSError as error:
            raise refused(member, f"{part!r} in its path is no directory: {error.strerror}") from error
        finally:
            os.close(here)
        here = below
    return here


def _exists(parent: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(parent: int, name: str) -> bool:
    return _exists(parent, name) and stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def remove(parent: int, name: str) -> None:
    """Remove what has a name in an open directory, with everything in it; nothing, where nothing has it."""
    if _is_directory(parent, name):
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for each in os.listdir(below):
                remove(below, each)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=parent)
    elif _exists(parent, name):
        os.unlink(name, dir_fd=parent)


def refused(member: tarfile.TarInfo, why: str) -> LabError:
    """Return the error that refuses an entry."""
    return LabError(f"archive entry {member.name!r} refused", cause=why)
