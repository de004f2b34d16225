"""What a container has changed of its root file system: read from the upper layer of the overlay that is its root.

See:
    Documentation/filesystems/overlayfs.rst in the kernel's sources, proc_pid_mountinfo(5)
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit.errors import LabError
from labkit.kernel.branches import is_opaque, is_whiteout
from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.xray.machine import Machine
from labkit.kernel.xray.root import root_of

Kind = Literal["added", "changed", "removed"]


@dataclass(frozen=True)
class PathChange:
    """One path, and what became of it in a layer.

    Attributes:
        path: relative to the root.
        kind: "added", "changed" or "removed".
    """

    path: str
    kind: Kind


def changes(pid: int) -> tuple[PathChange, ...]:
    """Return what the container of this process has changed since it was made, sorted by path.

    A directory counts as changed where something in it did, or its mode or owner. A file that was copied up and is as below again
    does not count.

    Shell:
        docker container diff NAME

    Args:
        pid: a process of the container.

    Raises:
        LabError: its root is no overlay, or one without an upper layer, or its layers lie where we cannot see them.
    """
    root = root_of(pid, mountinfo(pid), Machine())
    if root.mount is None or root.mount.fstype != "overlay" or not root.upperdir:
        found = root.mount.fstype if root.mount else "nothing that we see"
        raise LabError(f"the root of process {pid} has no upper layer", cause=f"its file system is {found}")
    layers = [Path(each) for each in (root.upperdir, *root.lowerdir)]
    if hidden := next((each for each in layers if not each.is_absolute() or not each.is_dir()), None):
        raise LabError(f"a layer of process {pid} cannot be read", cause=f"there is no directory {hidden}")
    return between(layers[0], layers[1:])


def between(upper: Path, lower: Sequence[Path]) -> tuple[PathChange, ...]:
    """Return what the upper layer of an overlay changes in what the lower ones show.

    Args:
        upper: upperdir.
        lower: lowerdir, the topmost first.
    """
    found = _directory(upper, lower, "")
    return tuple(sorted(found, key=lambda change: change.path.split("/")))


def _directory(upper: Path, lower: Sequence[Path], directory: str) -> Iterator[PathChange]:
    """Yield what changed in one directory of the upper layer and below it."""
    names = {entry.name for entry in os.scandir(upper / directory)}
    if directory and is_opaque(upper / directory):
        hidden = _names(lower, directory) - names
        yield from (PathChange(os.path.join(directory, name), "removed") for name in hidden)
    for name in names:
        path = os.path.join(directory, name)
        below, here = shown(lower, path), upper / path
        if is_whiteout(here):
            yield from [PathChange(path, "removed")] if below else []
            continue
        status = here.lstat()
        inside = list(_directory(upper, lower, path)) if stat.S_ISDIR(status.st_mode) else []
        if below is None:
            yield PathChange(path, "added")
        elif inside or facts(status) != facts(below):
            yield PathChange(path, "changed")
        yield from inside


def _names(lower: Sequence[Path], directory: str) -> set[str]:
    """Return the names that the lower layers show in a directory."""
    there = {name for layer in lower if (layer / directory).is_dir() for name in os.listdir(layer / directory)}
    return {name for name in there if shown(lower, os.path.join(directory, name))}


def shown(lower: Sequence[Path], path: str) -> os.stat_result | None:
    """Return the status of what the lower layers together show under a path; None where they show nothing.

    Args:
        lower: the topmost first.
        path: relative.
    """
    *parents, last = path.split("/")
    for layer in lower:
        closed = False  # whether this layer hides what the layers below it have of the path
        place = layer
        for part in parents:
            place = place / part
            if not os.path.lexists(place):
                break
            if not stat.S_ISDIR(place.lstat().st_mode):
                return None
            closed = closed or is_opaque(place)
        else:
            if os.path.lexists(place / last):
                return None if is_whiteout(place / last) else (place / last).lstat()
        if closed:
            return None
    return None


def facts(status: os.stat_result) -> tuple[object, ...]:
    """Return what makes a file another one: kind, mode, owner, and unless it is a directory, size, time and device."""
    base = status.st_mode, status.st_uid, status.st_gid
    return base if stat.S_ISDIR(status.st_mode) else (*base, status.st_size, status.st_mtime_ns, status.st_rdev)
