"""Names that a person will give things of LXD by hand: instance, image, profile and storage pool of a name are the lab's."""

from __future__ import annotations

import time
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel.cgroups import members
from labkit.runtimes import lxc, lxd_daemon
from labkit.runtimes.lxd_daemon import Daemon

_KIND = "lxd claim"
_KINDS = {
    "instances": "lxc delete --force",
    "images/aliases": "lxc image delete",
    "profiles": "lxc profile delete",
    "storage-pools": "lxc storage delete",
}
"""A collection of the API to the command that removes one of it, what needs others before those others."""

_PATIENCE, _TICK = 30.0, 0.05


def claim(name: str) -> None:
    """Take a name for this lab: the undo removes what LXD then has of it.

    Raises:
        LabError: LXD cannot be used here, or has something of this name, and no lab made it.
    """
    if why := lxd_daemon.why_not():
        raise LabError("LXD cannot be used here", cause=why)
    daemon = lxd_daemon.of_the_labs()
    if any(entry.kind == _KIND and entry.key["name"] == name for entry in ledger.live(ledger.owner())):
        return
    for kind, command in _KINDS.items():
        if daemon.ask(f"/1.0/{kind}/{name}"):
            raise LabError(f"LXD has {name} among its {kind}, and this lab did not make it", remedy=f"{command} {name}")
    for directory in lxc.default_cgroups(name):
        raise LabError(f"{directory} is there already and was not made by this lab", remedy=f"lxc-stop -k -n {name}")
    ledger.intend(_KIND, name=name, lxd=str(daemon.directory), pivots=lxc.pivots())


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Remove what has this name, the instance first; then what is left of its cgroups."""
    daemon, name = Daemon(Path(entry.key["lxd"])), entry.key["name"]
    if lxd_daemon.must_answer(daemon):
        daemon.settle()
        for kind, command in _KINDS.items():
            _remove(daemon, kind, command, name)
    for directory in lxc.default_cgroups(name):
        members.end(directory, 10)
    lxc.remove_pivots(entry.key["pivots"])


def _remove(daemon: Daemon, kind: str, command: str, name: str) -> None:
    """Remove one, as soon as LXD has done what it does when an instance has stopped.

    Raises:
        CommandError: it does not go: something else may hold it.
    """
    deadline = time.monotonic() + (_PATIENCE if kind == "instances" else 0)
    while daemon.ask(f"/1.0/{kind}/{name}"):
        daemon.tell([*command.split(), name], check=time.monotonic() > deadline)
        time.sleep(_TICK)
