"""Where what a mount shows lies: a directory of a file system that is mounted here, too, or nothing that has a path here.

See: proc_pid_mountinfo(5), the fields major:minor and root
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.state import MountState


def origin(mount: MountState, among: Iterable[MountState] | None = None) -> str | None:
    """Return the path here of the directory, or file, that a mount of another mount namespace shows; None where it has none.

    Shell:
        findmnt --first-only --noheadings --output TARGET,FSROOT DEVICE

    Args:
        mount: read from the mountinfo of a process.
        among: what is mounted here, if that was just read.
    """
    found: list[tuple[int, str]] = []
    for here in mountinfo() if among is None else among:
        if here.device == mount.device and PurePosixPath(mount.root).is_relative_to(here.root):
            rest = PurePosixPath(mount.root).relative_to(here.root)
            found.append((len(PurePosixPath(here.root).parts), str(here.mountpoint / rest)))
    return max(found)[1] if found else None


def upperdir(mount: MountState) -> str | None:
    """Return the directory that takes what is written to an overlay; None where it has none, or is of another kind."""
    return next((word.removeprefix("upperdir=") for word in mount.super_options if word.startswith("upperdir=")), None)
