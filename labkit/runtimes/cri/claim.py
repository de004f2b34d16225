"""Pods and images that root asks for by hand, with `labkit cri` or crictl: those of a namespace, in Kubernetes' sense, go with the lab."""

from __future__ import annotations

from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.host.services import places
from labkit.runtimes import crio
from labkit.runtimes.cri.client import Client
from labkit.runtimes.cri.runtime import why_not_ready
from labkit.runtimes.lifecycle import homes

_KIND = "cri claim"
_IMAGE = "cri image claim"


def claim(name: str) -> None:
    """Take a namespace of pods for this lab: the undo ends and removes all that are in it.

    Their cgroups lie in the lab's part of each hierarchy, if their `cgroup_parent` says so.

    Raises:
        LabError: there are pods in it already, and no lab made them; nobody serves the CRI.
    """
    socket = _served()
    claimed = any(entry.kind == _KIND and entry.key["name"] == name for entry in ledger.live(ledger.owner()))
    with Client(socket) as client:
        if not claimed and (pods := _pods(client, name)):
            raise LabError(f"the namespace {name} has pods already ({len(pods)}), and this lab did not make them")
    homes()
    ledger.intend(_KIND, name=name, socket=str(socket))


def claim_image(name: str) -> None:
    """Take an image for this lab that will be pulled: the undo removes it. One that is there already is somebody else's and stays.

    Raises:
        LabError: nobody serves the CRI.
    """
    socket = _served()
    with Client(socket) as client:
        if client.image(name) is None:
            ledger.intend(_IMAGE, name=name, socket=str(socket))


def _served() -> Path:
    server = crio.endpoint()
    server.serve()
    return server.socket()


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    if (socket := answering(entry)) is not None:
        with Client(socket) as client:
            for pod in _pods(client, entry.key["name"]):
                client.stop_pod(pod)
                client.remove_pod(pod)


@ledger.undoes(_IMAGE, survives_reboot=True)
def _undo_image(entry: ledger.Entry) -> None:
    if (socket := answering(entry)) is not None:
        with Client(socket) as client:
            client.remove_image(entry.key["name"])


def answering(entry: ledger.Entry) -> Path | None:
    """Return the socket of an entry; None where it is gone, or of a CRI-O that has ended: what that kept goes with its directory."""
    socket = Path(entry.key["socket"])
    if not socket.is_socket() or (socket != places().containerd and why_not_ready(socket) is not None):
        return None
    return socket


def _pods(client: Client, namespace: str) -> list[str]:
    return [pod["id"] for pod in client.pods() if pod["metadata"]["namespace"] == namespace]
