"""Layers: a tree written as a tar, the same tree always the same bytes; and a tar from a stranger unpacked without leaving its root.

See:
    image-spec layer.md
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from labkit.errors import LabError
from labkit.images.oci import LAYER_GZIP, Descriptor

WHITEOUT = ".wh."
"""Before the name of what a layer takes away from the layers below."""
OPAQUE = ".wh..wh..opq"
"""In a directory whose content in the layers below is hidden."""

_CHUNK = 2**20
_XATTR = "SCHILY.xattr."
_SKIPPED = ("security.selinux", "system.posix_acl_default", "system.posix_acl_access")


@dataclass(frozen=True)
class Layer:
    """A layer that was written.

    Attributes:
        descriptor: of the compressed tar.
        diff_id: the digest of the tar itself.
        path: its file.
    """

    descriptor: Descriptor
    diff_id: str
    path: Path


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


class _Hashing:
    """A file that is written and digested at once."""

    def __init__(self, file: _Writable) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def write(file: Path, tree: Path, *, epoch: int, paths: Iterable[str] | None = None, removed: Iterable[str] = ()) -> Layer:
    """Write a tree, or some of its paths, as a layer.

    Sorted by name, no time later than `epoch`, owners as numbers: the same tree gives the same bytes on every machine.

    Args:
        file: where to write it.
        tree: the directory that is the root.
        epoch: seconds since 1970, as SOURCE_DATE_EPOCH.
        paths: relative to the tree; None takes all of them. The directories above each are written, too.
        removed: relative paths that the layers below have and this one takes away (written as whiteouts).
    """
    wanted = sorted(_with_parents(_walk(tree) if paths is None else paths), key=_order)
    with file.open("wb") as raw:
        packed = _Hashing(raw)
        with gzip.GzipFile(fileobj=cast(IO[bytes], packed), mode="wb", compresslevel=6, mtime=0, filename="") as zipped:
            plain = _Hashing(zipped)
            with tarfile.open(fileobj=cast(IO[bytes], plain), mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar:
                _add_all(tar, tree, wanted, epoch)
                for path in sorted(removed, key=_order):
                    name = PurePosixPath(path)
                    tar.addfile(_whiteout(str(name.with_name(f"{WHITEOUT}{name.name}")), epoch))
    descriptor = Descriptor(LAYER_GZIP, f"sha256:{packed.digest.hexdigest()}", packed.size)
    return Layer(descriptor, f"sha256:{plain.digest.hexdigest()}", file)


def _walk(tree: Path) -> Iterator[str]:
    for directory, names, files in os.walk(tree):
        for name in (*names, *files):
            yield os.path.relpath(os.path.join(directory, name), tree)


def _with_parents(paths: Iterable[str]) -> set[str]:
    return {str(each) for path in paths for each in (PurePosixPath(path), *PurePosixPath(path).parents)} - {"."}


def _order(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts  # a directory before what is in it, whatever its name continues with


def _add_all(tar: tarfile.TarFile, tree: Path, paths: Iterable[str], epoch: int) -> None:
    linked: dict[tuple[int, int], str] = {}
    for path in paths:
        source = tree / path
        status = source.lstat()
        member = _member(source, path, status, epoch)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            first = linked.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                member.type, member.linkname, member.size = tarfile.LNKTYPE, first, 0
        if member.isreg():
            with source.open("rb") as content:
                tar.addfile(member, content)
        else:
            tar.addfile(member)


_TYPES = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}


def _member(source: Path, path: str, status: os.stat_result, epoch: int) -> tarfile.TarInfo:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise LabError(f"{source}: a device or a socket", cause="an image brings none, the runtime makes /dev")
    member = tarfile.TarInfo(path)
    member.type = kind
    member.mode = stat.S_IMODE(status.st_mode)
    member.uid, member.gid = status.st_uid, status.st_gid
    member.mtime = min(int(status.st_mtime), epoch)
    member.size = status.st_size if kind == tarfile.REGTYPE else 0
    member.linkname = os.readlink(source) if kind == tarfile.SYMTYPE else ""
    member.pax_headers = {f"{_XATTR}{name}": value.decode("utf-8", "surrogateescape") for name, value in _xattrs(source)}
    return member


def _xattrs(path: Path) -> list[tuple[str, bytes]]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    kept = [name for name in names if name not in _SKIPPED and not name.startswith("trusted.overlay.")]
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in kept]


def _whiteout(path: str, epoch: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mode, member.mtime = 0o600, epoch
    return member


def difference(lower: Path, upper: Path) -> tuple[list[str], list[str]]:
    """Compare two trees: return what `upper` adds or changes, and what it lacks, as relative paths.

    Of what is lacking only the topmost directory is named. Times do not count.
    """
    changed = [path for path in _walk(upper) if _facts(lower / path) != _facts(upper / path)]
    lacking = {path for path in _walk(lower) if not os.path.lexists(upper / path)}
    return changed, [path for path in lacking if str(PurePosixPath(path).parent) not in lacking]


def _facts(path: Path) -> tuple[object, ...] | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    content: object = None
    if stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        with path.open("rb") as file:
            content = status.st_size, hashlib.file_digest(file, "sha256").digest()
    return status.st_mode, status.st_uid, status.st_gid, content, _xattrs(path)


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


LARGEST = 8 * 2**30
"""Bytes that the files of one layer may have together, unless the caller says otherwise."""


def apply(layer: IO[bytes], root: Path, *, largest: int = LARGEST) -> None:
    """Unpack a layer over a root file system: what it adds and changes, and what its whiteouts take away.

    Args:
        layer: a tar, compressed or not, read from its beginning to its end.
        root: a directory.
        largest: bytes of all files together, beyond which it is refused.

    Raises:
        LabError: an entry that would leave the root (by its path, a link or a parent that is one), a device, too much data, a
            damaged archive; the entry is named. What was unpacked before it stays in `root`.
    """
    left = largest
    try:
        with tarfile.open(fileobj=layer, mode="r|*") as tar:
            for member in tar:
                left -= member.size
                if left < 0 or member.size < 0:
                    raise _refused(member, f"the layer has more than {largest} bytes")
                _applied(tar, member, root)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise LabError("the layer is no whole tar archive", cause=str(error) or type(error).__name__) from error


def _applied(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    try:
        _apply_one(tar, member, root)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _refused(member, (error.strerror or str(error)).lower()) from error


def _apply_one(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    parts = _parts(member, member.name)
    if not parts:
        return
    parent = _directory(member, root, parts[:-1], make=True)
    try:
        name = parts[-1]
        if name == OPAQUE:
            for each in os.listdir(parent):
                _remove(parent, each)
        elif name.startswith(WHITEOUT):
            gone = name.removeprefix(WHITEOUT)
            if gone in ("", ".", ".."):
                raise _refused(member, "a whiteout of no name")
            _remove(parent, gone)
        else:
            _put(tar, member, root, parent, name)
    finally:
        os.close(parent)


def _put(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, parent: int, name: str) -> None:
    if not (member.isdir() and _is_directory(parent, name)):
        _remove(parent, name)
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
        _write(cast(_Readable, tar.extractfile(member)), parent, name)
    else:
        raise _refused(member, "a device, which would open the machine's own")
    _dress(member, parent, name)


def _dress(member: tarfile.TarInfo, parent: int, name: str) -> None:
    if os.geteuid() == 0:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    if not member.issym():
        os.chmod(name, member.mode & 0o7777, dir_fd=parent)  # after chown, which takes the set-user-ID bit away
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            here = f"/proc/self/fd/{parent}/{name}"
            os.setxattr(here, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
    os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)


def _write(content: _Readable, parent: int, name: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "wb") as file:
        while data := content.read(_CHUNK):
            file.write(data)


def _link(member: tarfile.TarInfo, root: Path, parent: int, name: str) -> None:
    target = _parts(member, member.linkname)
    if not target:
        raise _refused(member, f"a link to {member.linkname!r}")
    there = _directory(member, root, target[:-1], make=False)
    try:
        os.link(target[-1], name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise _refused(member, f"a link to {member.linkname!r}: {error.strerror}") from error
    finally:
        os.close(there)


def _parts(member: tarfile.TarInfo, name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _refused(member, f"the path {name!r} leaves the root")
    return parts


def _directory(member: tarfile.TarInfo, root: Path, parts: Iterable[str], *, make: bool) -> int:
    """Open a directory below root, one step after the other and through no link, so that nobody can redirect it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            if make and not _exists(here, part):
                os.mkdir(part, 0o755, dir_fd=here)
            below = os.open(part, flags, dir_fd=here)
        except OSError as error:
            raise _refused(member, f"{part!r} in its path is no directory: {error.strerror}") from error
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


def _remove(parent: int, name: str) -> None:
    if _is_directory(parent, name):
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for each in os.listdir(below):
                _remove(below, each)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=parent)
    elif _exists(parent, name):
        os.unlink(name, dir_fd=parent)


def _refused(member: tarfile.TarInfo, why: str) -> LabError:
    return LabError(f"layer entry {member.name!r} refused", cause=why)
