"""The root file system of an image: of each image that it stands on, depth first, then its own, what comes later over what was there.

See:
    appc spec ace.md, "Filesystem Setup"
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from labkit.appc import aci
from labkit.appc.image_manifest import Dependency, ImageManifest
from labkit.appc.types import ImageID
from labkit.errors import LabError
from labkit.images import entries, layer

MOST_PIECES = 1000
"""Images that one may stand on, each counted as often as it is reached."""


@dataclass(frozen=True)
class Piece:
    """One image in the order in which they lie over each other.

    Attributes:
        key: the image.
        whitelists: relative paths that alone are taken of it: its own, and those of the images that it was reached through.
    """

    key: ImageID
    whitelists: tuple[frozenset[str], ...]


def pieces(key: ImageID, manifest: Callable[[ImageID], ImageManifest], find: Callable[[Dependency], ImageID]) -> tuple[Piece, ...]:
    """Return the images whose files make up an image, the lowest first; one that is reached twice is there twice.

    Args:
        key: the image.
        manifest: returns the manifest of an image.
        find: returns the image that a dependency means.

    Raises:
        LabError: an image stands on itself, or on too many.
    """
    found: list[Piece] = []
    for piece in _below(key, (), (), manifest, find):
        found.append(piece)
        if len(found) > MOST_PIECES:
            raise LabError(f"{key} stands on more than {MOST_PIECES} images")
    return tuple(found)


def _below(
    key: ImageID,
    way: tuple[ImageID, ...],
    whitelists: tuple[frozenset[str], ...],
    manifest: Callable[[ImageID], ImageManifest],
    find: Callable[[Dependency], ImageID],
) -> Iterator[Piece]:
    if key in way or len(way) > entries.DEEPEST:
        raise LabError(f"{key} stands on itself", cause=" on ".join(str(each)[:19] for each in (*way, key)[-5:]))
    described = manifest(key)
    own = frozenset("/".join(PurePosixPath(path).parts).lstrip("/") for path in described.path_whitelist)
    chain = (*whitelists, own) if own else whitelists
    for dependency in described.dependencies:
        yield from _below(find(dependency), (*way, key), chain, manifest, find)
    yield Piece(key, chain)


def render(found: Iterable[Piece], blob: Callable[[ImageID], Path], rootfs: Path) -> None:
    """Write the root file system that pieces make up.

    Args:
        found: the pieces, the lowest first.
        blob: returns the archive of an image.
        rootfs: a directory that is not there yet; beside it, each piece is unpacked for a moment.

    Raises:
        LabError: an archive breaks a rule; the disk is full.
    """
    staging = rootfs.with_name(f"{rootfs.name}.piece")
    rootfs.mkdir(parents=True)
    for number, piece in enumerate(found):
        place = staging if number else rootfs
        aci.unpack(blob(piece.key), place)
        for whitelist in piece.whitelists:
            _keep(place, whitelist)
        if number:
            _merge(staging, rootfs)
            shutil.rmtree(staging)


def _keep(tree: Path, whitelist: frozenset[str]) -> None:
    """Remove what is not in a list; of a directory that is not, only what has something in the list below it stays."""
    for directory, names, files in os.walk(tree, topdown=False):
        here = Path(directory)
        before = here.stat()
        relative = os.path.relpath(here, tree)
        for name in (*names, *files):
            path = name if relative == "." else f"{relative}/{name}"
            each = here / name
            if path not in whitelist and not (_is_directory(each) and any(each.iterdir())):
                _clear(each)
        os.utime(here, ns=(before.st_atime_ns, before.st_mtime_ns))


def _merge(piece: Path, target: Path) -> None:
    """Move everything of one tree over another; no link that is there is followed."""
    status, attributes = piece.stat(), entries.xattrs(piece)
    for name in os.listdir(piece):
        each, there = piece / name, target / name
        if _is_directory(each) and _is_directory(there):
            _merge(each, there)
        else:
            _clear(there)
            each.rename(there)
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
    for key, value in attributes:
        os.setxattr(target, key, value)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _clear(path: Path) -> None:
    if _is_directory(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def digest(tree: Path) -> str:
    """Return a digest of all that a tree has: names, contents, owners, modes, times, attributes."""
    total = hashlib.sha512()
    for path in (".", *layer.everything(tree)):
        each = tree / path
        status = each.lstat()
        content = b""
        if stat.S_ISREG(status.st_mode):
            with each.open("rb") as file:
                content = hashlib.file_digest(file, "sha512").digest()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(each))
        facts = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, entries.xattrs(each))
        total.update(repr((os.fsencode(path), *facts)).encode())
    return total.hexdigest()


def fingerprint(tree: Path) -> str:
    """Return a digest of what the kernel notes of a tree when it is changed: as long as it is the same, so are the contents."""
    total = hashlib.sha512()
    for path in (".", *layer.everything(tree)):
        status = (tree / path).lstat()
        facts = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        total.update(repr((os.fsencode(path), *facts)).encode())
    return total.hexdigest()


def size(tree: Path) -> int:
    """Return the bytes of all files of a tree, each counted once."""
    found = (os.lstat(tree / path) for path in layer.everything(tree))
    return sum({(each.st_dev, each.st_ino): each.st_size for each in found if stat.S_ISREG(each.st_mode)}.values())
