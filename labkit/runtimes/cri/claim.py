"""Pods that root makes by hand, with `labkit cri` or crictl: those of a namespace, in Kubernetes' sense, go with the lab."""

from __future__ import annotations

from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.host.services import places
from labkit.runtimes.cri.client import Client

_KIND = "cri claim"


def claim(name: str) -> None:
    """Take a namespace of pods for this lab: the undo ends and removes all that are in it.

    Raises:
        LabError: there are pods in it already, and no lab made them; nobody serves the CRI.
    """
    socket = places().containerd
    claimed = any(entry.kind == _KIND and entry.key["name"] == name for entry in ledger.live(ledger.owner()))
    with Client(socket) as client:
        if not claimed and (pods := _pods(client, name)):
            raise LabError(f"the namespace {name} has pods already ({len(pods)}), and this lab did not make them")
    ledger.intend(_KIND, name=name, socket=str(socket))


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    socket = Path(entry.key["socket"])
    if socket.is_socket():
        with Client(socket) as client:
            for pod in _pods(client, entry.key["name"]):
                client.stop_pod(pod)
                client.remove_pod(pod)


def _pods(client: Client, namespace: str) -> list[str]:
    return [pod["id"] for pod in client.pods() if pod["metadata"]["namespace"] == namespace]
