"""Engines that differ in how they keep layers: a dockerd for each storage driver, with its data on a disk of its own.

The disk is a file system in a file, so what a driver takes of it can be read from statvfs(2), and is nobody else's. The engine is one
of docker_engine.py. See: dockerd(8), --storage-driver, https://docs.docker.com/engine/storage/drivers/select-storage-driver/
"""

from __future__ import annotations

from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.kernel import disks, loop, trees
from labkit.runtimes import docker_engine

_CLAIM = "storage driver"
_DISK = "disk"
_MEGABYTE = 2**20

DISKS = {"overlay2": ("ext4", 208 * _MEGABYTE), "vfs": ("ext4", 352 * _MEGABYTE), "btrfs": ("btrfs", 352 * _MEGABYTE)}
"""Storage driver to the file system of its disk, and how large that is."""


def claim(driver: str) -> None:
    """Let an engine of this storage driver, called after it, start when this lab opens.

    Raises:
        LabError: no such driver here.
    """
    if driver not in DISKS:
        raise LabError(f"no engine of a lab has the storage driver {driver!r}", remedy=f"there are {', '.join(DISKS)}")
    loop.claim(ledger.state() / "labs" / ledger.owner() / driver / _DISK)  # before the lab's cgroups: their processes have it mounted
    docker_engine.claim(driver)
    ledger.intend(_CLAIM, name=driver)


def settings(directory: Path, name: str) -> dict[str, object]:
    """Return what daemon.json of an engine says of its storage; its disk is made first. Nothing where it is none of these.

    Args:
        directory: of the lab.
        name: of the engine.

    Raises:
        UnsupportedError: there is no mkfs for its disk.
        SyscallError: ENODEV, the kernel has no such file system.
    """
    if not any(entry.kind == _CLAIM and entry.key["name"] == name for entry in ledger.live(ledger.owner())):
        return {}
    fstype, size = DISKS[name]
    own = trees.make_tree(directory / name)
    data = own / "root"
    data.mkdir(exist_ok=True)
    with trace.silent():
        disks.disk(own / _DISK, data, fstype, size)
    return {"storage-driver": name}


@ledger.undoes(_CLAIM)
def _undo_claim(_: ledger.Entry) -> None:
    """Do nothing: a claim holds nothing by itself."""
