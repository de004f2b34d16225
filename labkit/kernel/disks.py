"""Small disks for a lab: a file system in a file, mounted through a loop device, and what it has in use. See: mkfs(8), statvfs(3)."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.kernel import commands, loop, mounts
from labkit.kernel.state import MountState

_MKFS = {"ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"), "btrfs": ("mkfs.btrfs", "-q", "-f")}


def disk(file: Path, target: Path, fstype: str, size: int) -> MountState:
    """Make a file system in a file, and mount it: a disk of the lab's own. One that is mounted there already is returned.

    Shell:
        truncate --size SIZE FILE; mkfs.FSTYPE FILE; mount -o loop FILE TARGET

    Args:
        file: in the lab's directory.
        target: an empty directory.
        fstype: "ext4" or "btrfs".
        size: bytes; those that nobody writes take no space.

    Raises:
        UnsupportedError: there is no mkfs of this kind.
        SyscallError: ENODEV, the kernel has no such file system.
    """
    there = mounts.at(target)
    if there is not None and there.fstype == fstype:
        return there
    with file.open("wb") as image:
        image.truncate(size)
    commands.run([*_MKFS[fstype], file])
    with loop.attached(file) as device:
        return mounts.mount(device, target, fstype)


def used(place: str | os.PathLike[str]) -> int:
    """Return the bytes in use on the file system of a place, once all that was written has got its blocks.

    Shell:
        sync --file-system PLACE; df PLACE
    """
    commands.run(["sync", "--file-system", place])
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
