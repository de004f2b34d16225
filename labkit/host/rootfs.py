"""What the set-up has packed for the labs to unpack, without the network: see vagrant/provision/60-rootfs.sh."""

from __future__ import annotations

import os
from pathlib import Path

from labkit import ledger
from labkit.errors import UnsupportedError


def packed() -> Path:
    """Return where it lies ($LABKIT_ROOTFS, or /var/lib/labkit/rootfs)."""
    return Path(os.environ.get("LABKIT_ROOTFS") or "/var/lib/labkit/rootfs")


def acis() -> Path:
    """Return the directory with what the hosts of the course's ACIs serve: that of this state, or that of the set-up.

    Raises:
        UnsupportedError: the set-up has not made them.
    """
    for state in (ledger.state(), Path("/var/lib/labkit")):
        if (found := state / "images/aci/sites").is_dir():
            return found
    raise UnsupportedError("the ACIs of the course", f"no {found}", remedy="make lab")


def tarball(name: str = "debian") -> Path:
    """Return one of the packed files: "debian", a root file system, or "metadata", for `lxc-create -t local`.

    Raises:
        UnsupportedError: the set-up has not made it.
    """
    path = packed() / f"{name}.tar.xz"
    if not path.is_file():
        raise UnsupportedError(f"the packed file {name}.tar.xz", f"none in {packed()}", remedy="make lab")
    return path
