"""A directory of a lab that is a file system of its own and shared, as systemd makes the root: what is mounted in it later reaches copies.

It is made before the daemon of a lab takes its copy of what is mounted, so it is the same on machines whose root is shared and on
those whose root is private. See: mount_namespaces(7)
"""

from __future__ import annotations

from labkit import ledger
from labkit.kernel import mounts, trees
from labkit.kernel.mounts import ownership


def claim(name: str) -> None:
    """Make the directory of this name in the directory of the lab that is open, a shared mount of an empty file system in memory.

    One that is there already stays.

    Shell:
        mkdir $LAB/NAME; mount -t tmpfs tmpfs $LAB/NAME; mount --make-shared $LAB/NAME

    Raises:
        LabError: something that is not the lab's is mounted there.
    """
    lab = trees.make_tree(ledger.state() / "labs" / ledger.owner())
    ownership.claim(lab)
    there = mounts.at(lab / name)
    if there is not None and mounts.is_ours(there):
        return
    place = trees.make_tree(lab / name)
    mounts.tmpfs(place)
    mounts.propagation(place, "shared")
