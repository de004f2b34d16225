"""rkt as a person types it in a lab: its images, pods and configuration are the lab's, and so are the hosts from which it fetches.

A program `rkt` in the lab's PATH knows these places by itself (labkit.appc.door). See: labkit.appc.sites, labkit.appc.claims
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from labkit import ledger, trace
from labkit.appc import claims, door, sites
from labkit.appc.command import LAB, REAL
from labkit.host import rootfs
from labkit.kernel import trees
from labkit.kernel.cgroups import delegation
from labkit.kernel.processes.process import Process

NAME = sites.NAME
"""Of the process in its lab that stands for the hosts of the ACIs."""


def data(directory: Path) -> Path:
    """Return where rkt keeps images and pods in a lab: what is /var/lib/rkt on a machine of its own."""
    return directory / "rkt"


def local(directory: Path) -> Path:
    """Return where its configuration lies in a lab: what is /etc/rkt on a machine of its own."""
    return directory / "rkt.d"


def environment(directory: Path) -> dict[str, str]:
    """Return the variables by which rkt, and whoever looks for its files, finds the places of a lab.

    Args:
        directory: of the lab.
    """
    return {"RKT_DIR": str(data(directory)), "RKT_LOCAL_CONFIG": str(local(directory))}


def serve(directory: Path) -> Process:
    """Take rkt's directory for the lab, start the hosts of the course's ACIs, and put `rkt` into the lab's PATH.

    Args:
        directory: of the lab. `rkt.env` there has PATH for a terminal.

    Raises:
        UnsupportedError: the set-up has made no ACIs.
        LabError: there are pods already that no lab has run; the hosts do not listen.
    """
    made = rootfs.acis()
    with trace.silent():
        delegation.homes()  # the cgroups of pods lie in the lab's part of each hierarchy
        for place in (data(directory), local(directory) / "net.d"):
            trees.make_tree(place)
        claims.claim(data(directory))  # after the tree: pods are ended while their directories are there to tell of them
    process = sites.serve(directory, made)
    with trace.silent():
        own = trees.make_tree(directory / "bin")
        door.write(own, data(directory), local(directory), _variables(directory))
        (directory / "rkt.env").write_text(f'export PATH={shlex.quote(str(own))}:"$PATH"\n')
    return process


def _variables(directory: Path) -> dict[str, str]:
    """Return what the door of a lab knows beside its directories: whose its pods are, how hosts are reached, which rkt is meant."""
    real = os.environ.get(REAL)
    whose = {LAB: ledger.owner(), "LABKIT_STATE": str(ledger.state())}
    return {**whose, **sites.environment(directory), **(door.real(real) if real else {})}
