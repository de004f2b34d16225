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
from labkit.images.entries import DAMAGED, add_all, open_directory, path_parts, put, refused, remove, xattrs
from labkit.images.oci import LAYER_GZIP, Descriptor

WHITEOUT = ".wh."
"""Before the name of what a layer takes away from the layers below."""
OPAQUE = ".wh..wh..opq"
"""In a directory whose content in the layers below is hidden."""

_CHUNK = 2**20


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
                add_all(tar, tree, wanted, epoch=epoch)
                for path in sorted(removed, key=_order):
                    name = PurePosixPath(path)
                    tar.addfile(_whiteout(str(name.with_name(f"{WHITEOUT}{name.name}")), epoch))
    descriptor = Descriptor(LAYER_GZIP, f"sha256:{packed.digest.hexdigest()}", packed.size)
    return Layer(descriptor, f"sha256:{plain.digest.hexdigest()}", file)


def everything(tree: Path) -> list[str]:
    """Return all relative paths of a tree, a directory before what is in it."""
    return sorted(_walk(tree), key=_order)


def _walk(tree: Path) -> Iterator[str]:
    for directory, names, files in os.walk(tree):
        for name in (*names, *files):
            yield os.path.relpath(os.path.join(directory, name), tree)


def _with_parents(paths: Iterable[str]) -> set[str]:
    return {str(each) for path in paths for each in (PurePosixPath(path), *PurePosixPath(path).parents)} - {"."}


def _order(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts  # a directory before what is in it, whatever its name continues with


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
    return status.st_mode, status.st_uid, status.st_gid, content, xattrs(path)


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
                    raise refused(member, f"the layer has more than {largest} bytes")
                _applied(tar, member, root)
    except (*DAMAGED, gzip.BadGzipFile) as error:
        raise LabError("the layer is no whole tar archive", cause=str(error) or type(error).__name__) from error


def _applied(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    try:
        _apply_one(tar, member, root)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise refused(member, (error.strerror or str(error)).lower()) from error


def _apply_one(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    parts = path_parts(member, member.name)
    if not parts:
        return
    parent = open_directory(member, root, parts[:-1], make=True)
    try:
        name = parts[-1]
        if name == OPAQUE:
            for each in os.listdir(parent):
                remove(parent, each)
        elif name.startswith(WHITEOUT):
            gone = name.removeprefix(WHITEOUT)
            if gone in ("", ".", ".."):
                raise refused(member, "a whiteout of no name")
            remove(parent, gone)
        else:
            put(tar, member, root, parent, name)
    finally:
        os.close(parent)
