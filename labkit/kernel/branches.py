"""What lies in the branches of a union mount: which names, in which branch, hidden by what.

Nothing is asked of the mount: the branches are read as the plain directories that they are, and merged by the rules of
the file system. See: Documentation/filesystems/overlayfs.rst, unionfs(8), mergerfs(1)
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labkit.kernel.state import FileState

UNIONFS_META = (".unionfs-fuse", ".unionfs")
"""The directory in a branch in which unionfs keeps what it hides: Debian's name, and the original one."""

_HIDDEN = "_HIDDEN~"


@dataclass(frozen=True)
class Found:
    """One name in one directory of one branch.

    Attributes:
        kind: "file", "directory", "symlink", "whiteout", or "notes": no directory, only notes on what is hidden in one.
        opaque: a directory that hides those of its name below.
        copied_up: made by the kernel as a copy of a lower one.
        redirect: where the lower part of a renamed directory lies, as the kernel wrote it; "" if it was not renamed.
    """

    kind: str
    opaque: bool = False
    copied_up: bool = False
    redirect: str = ""


Reader = Callable[[Path, str], dict[str, Found]]
"""Gives the names of one directory (relative path) of a branch; none where it is no directory."""


@dataclass
class _Part:
    """A directory of one branch that a merged directory is made of, seen or hidden."""

    index: int
    directory: str
    hidden: bool


@dataclass
class _Name:
    """One merged name while its branches are gone through from the top."""

    layers: list[int] = field(default_factory=list)
    top: Found | None = None
    opaque: bool = False
    hidden: bool = False
    closed: bool = False
    redirect: str = ""
    parts: list[_Part] = field(default_factory=list)


def walk(branches: Sequence[Path], read: Reader) -> tuple[FileState, ...]:
    """Return every name in the branches, seen or hidden, a directory before what is in it.

    Args:
        branches: the topmost first.
        read: reads one directory as the file system does: `overlay`, `unionfs`, `fuse_overlay` or `plain`.
    """
    files: list[FileState] = []
    waiting = [("", [_Part(index, "", hidden=False) for index in range(len(branches))])]
    while waiting:
        prefix, parts = waiting.pop()
        names = sorted({name for part in parts for name in read(branches[part.index], part.directory)})
        for name in names:
            merged = _merge(name, parts, branches, read)
            path = posixpath.join(prefix, name)
            if merged.layers:
                files.append(_as_state(path, merged))
            if merged.layers and merged.parts:
                waiting.append((path, merged.parts))
    return tuple(sorted(files, key=lambda file: file.path.split("/")))


def overlay(branch: Path, directory: str) -> dict[str, Found]:
    """Read a directory of an overlay's layer: whiteouts are devices 0/0 or marked files, opaque directories are marked."""
    marked = _xattr(branch / directory, "opaque") == b"x"  # only then the kernel looks for whiteouts that are files
    return {entry.name: _overlay_entry(entry, marked) for entry in _scan(branch / directory)}


def unionfs(branch: Path, directory: str) -> dict[str, Found]:
    """Read a directory of a branch of unionfs: what it hides has a file NAME_HIDDEN~ in a directory beside."""
    notes = [entry for meta in UNIONFS_META for entry in _scan(branch / meta / directory)]
    hidden = {entry.name.removesuffix(_HIDDEN) for entry in notes if entry.name.endswith(_HIDDEN)}
    beside = {entry.name: Found("notes") for entry in notes if not entry.name.endswith(_HIDDEN)}
    found = {name: one for name, one in plain(branch, directory).items() if directory or name not in UNIONFS_META}
    covered = {name: Found(one.kind, opaque=one.kind == "directory" and name in hidden) for name, one in found.items()}
    return {**beside, **{name: Found("whiteout") for name in hidden}, **covered}


def fuse_overlay(branch: Path, directory: str) -> dict[str, Found]:
    """Read a directory of a branch of fuse-overlayfs: as an overlay, but for the names that it keeps for itself."""
    return {name: found for name, found in overlay(branch, directory).items() if not name.startswith(".wh.")}


def plain(branch: Path, directory: str) -> dict[str, Found]:
    """Read a directory of a branch in which nothing is hidden, as mergerfs does."""
    return {entry.name: Found(_kind(entry)) for entry in _scan(branch / directory)}


def is_whiteout(path: str | Path) -> bool:
    """Return whether a path in a layer of an overlay hides the name in the layers below."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if stat.S_ISREG(status.st_mode):
        return status.st_size == 0 and _xattr(Path(path), "whiteout") is not None
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: str | Path) -> bool:
    """Return whether a directory in a layer of an overlay hides what the layers below have in it."""
    return os.path.isdir(path) and not os.path.islink(path) and _xattr(Path(path), "opaque") == b"y"


def was_copied_up(path: str | Path) -> bool:
    """Return whether a file in an upper layer was made by the kernel as a copy of a lower one."""
    return _xattr(Path(path), "origin") is not None


def origin_handle(path: str | Path) -> tuple[int, bytes] | None:
    """Return the file handle of the file that a copy was made from, as copy-up wrote it; None where it wrote none.

    The attribute is a version, a magic number, its length, flags, the type of the handle, the file system's UUID and
    the handle. See: struct ovl_fb in fs/overlayfs/overlayfs.h of the kernel
    """
    value = _xattr(Path(path), "origin")
    if value is None or len(value) < 21 or value[1] != 0xFB:
        return None
    return value[4], value[21 : value[2]]


def _merge(name: str, parts: Sequence[_Part], branches: Sequence[Path], read: Reader) -> _Name:
    merged, waiting = _Name(), list(parts)
    while waiting:
        part = waiting.pop(0)
        place = posixpath.join(part.directory, merged.redirect or name).lstrip("/")
        parent, _, last = place.rpartition("/")
        found = read(branches[part.index], parent).get(last)
        if found is not None:
            _take(merged, found, _Part(part.index, place, part.hidden or merged.closed))
            if found.redirect.startswith("/"):  # counted from the root of every branch below, also of those without this parent
                waiting = [_Part(index, "", hidden=False) for index in range(part.index + 1, len(branches))]
    return merged


def _take(merged: _Name, found: Found, part: _Part) -> None:
    """Go one branch down: add what it has of this name, and see whether it hides the branches below."""
    if found.kind in ("directory", "notes"):
        merged.parts.append(part)
    if found.kind == "notes":
        return
    merged.layers.append(part.index)
    if merged.top is None:
        merged.top, merged.hidden = found, part.hidden
    if not part.hidden:
        merged.opaque = merged.opaque or found.opaque
        merged.closed = found.kind != "directory" or found.opaque
        merged.redirect = found.redirect or merged.redirect


def _as_state(path: str, merged: _Name) -> FileState:
    top = merged.top or Found("file")
    kind = "opaque" if merged.opaque and top.kind == "directory" else top.kind
    visible = not merged.hidden and kind != "whiteout"
    return FileState(path, tuple(merged.layers), kind, visible, top.copied_up)


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "symlink"
    return "directory" if entry.is_dir(follow_symlinks=False) else "file"


def _overlay_entry(entry: os.DirEntry[str], marked: bool) -> Found:
    kind, path = _kind(entry), Path(entry.path)
    if kind == "file" and (marked or not entry.is_file(follow_symlinks=False)) and is_whiteout(path):
        return Found("whiteout")
    copied = was_copied_up(path)
    if kind != "directory":
        return Found(kind, copied_up=copied)
    redirect = os.fsdecode(_xattr(path, "redirect") or b"")
    return Found(kind, opaque=is_opaque(path), copied_up=copied, redirect=redirect)


def _xattr(path: Path, name: str) -> bytes | None:
    """Return an attribute of the overlay, of root's kind or of an unprivileged mount; None where it is not set."""
    for space in ("trusted", "user"):
        try:
            return os.getxattr(path, f"{space}.overlay.{name}", follow_symlinks=False)
        except OSError:
            continue
    return None
