"""What checkpoints of storage look at: what a process sees at a place, and what is mounted there."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.state import MountState


def mounted(pid: int, place: str) -> MountState | None:
    """Return what a process has mounted at a place, the last one where there are several."""
    return next((one for one in reversed(mountinfo(pid)) if one.mountpoint == place), None)


def seen(pid: int, place: str) -> os.stat_result | None:
    """Return the file that a process sees at a place, or None where it sees none."""
    try:
        return os.stat(f"/proc/{pid}/root{place}")
    except OSError:
        return None


def is_seen(directory: Path, pid: int, place: str) -> bool:
    """Return whether a directory of this machine is what a process sees at a place."""
    found = seen(pid, place)
    return found is not None and directory.is_dir() and os.path.samestat(found, directory.stat())
