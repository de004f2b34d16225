"""A namespace of containerd for a lab: what root makes in it by hand, with `ctr --namespace NAME`, goes with the lab.

It is no namespace of the kernel but a part of the daemon's database: containers, images, snapshots of one user.
"""

from __future__ import annotations

import time
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError, UnsupportedError
from labkit.host.services import places
from labkit.kernel import commands
from labkit.runtimes import shims
from labkit.runtimes.containerd import command
from labkit.runtimes.lifecycle import homes

_KIND = "containerd claim"
_PATIENCE = 20.0
_TICK = 0.1


def claim(name: str) -> None:
    """Take a namespace of containerd for this lab: the undo ends and removes all that is in it.

    Raises:
        LabError: there is one of this name already, and no lab made it; containerd does not answer.
    """
    socket = places().containerd
    claimed = any(entry.kind == _KIND and entry.key["name"] == name for entry in ledger.live(ledger.owner()))
    if not claimed and name in _listed(socket, "namespaces", "list", "--quiet"):
        raise LabError(f"containerd has a namespace {name} already, and it was not made by this lab", remedy="ctr namespaces list")
    homes()  # a namespace that is called as the lab's cgroup has its containers there: ctr puts them in /NAMESPACE/CONTAINER
    ledger.intend(_KIND, name=name, socket=str(socket))


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    name, socket = entry.key["name"], Path(entry.key["socket"])
    shims.end_clients(name)
    deadline = time.monotonic() + _PATIENCE
    while socket.is_socket() and name in _listed(socket, "namespaces", "list", "--quiet"):
        _empty(name, socket)
        said = commands.run(command("namespaces", "remove", name, socket=socket), check=False, timeout=30).stderr
        if time.monotonic() > deadline:
            raise LabError(f"containerd's namespace {name} could not be removed", cause=" ".join(said.split()) or None)
        time.sleep(_TICK)


def _empty(name: str, socket: Path) -> None:
    """Remove what is in a namespace, what stands on something before that; what refuses now may go the next time."""
    for what, delete in (
        ("tasks", ("tasks", "delete", "--force")),
        ("containers", ("containers", "delete")),
        ("images", ("images", "delete", "--sync")),
        ("snapshots", ("snapshots", "delete")),
        ("leases", ("leases", "delete", "--sync")),
    ):
        quiet = [] if what == "snapshots" else ["--quiet"]
        there = _listed(socket, what, "list", *quiet, within=name)
        for each in there if quiet else [line.split()[0] for line in there[1:]]:
            commands.run(command(*delete, each, within=name, socket=socket), check=False, timeout=30)


def _listed(socket: Path, *words: str, within: str = "") -> list[str]:
    try:
        return commands.run(command(*words, within=within, socket=socket), timeout=30).stdout.splitlines()
    except UnsupportedError:
        raise
    except LabError as error:
        raise LabError(f"containerd does not answer at {socket}", cause=error.message, remedy="labkit up containerd") from error
