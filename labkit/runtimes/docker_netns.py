"""A machine of its own for the dockerd of a lab: a network namespace, and a cable to this machine.

There docker0 is free whoever has it here, and so is every port; dockerd writes into a packet filter that nobody else reads; and a container
with the network of the host has that one. Who asks from here asks from outside. See: network_namespaces(7), veth(4)
"""

from __future__ import annotations

from pathlib import Path

from labkit import ledger
from labkit.host.services.places import places
from labkit.kernel import network
from labkit.kernel.network import NetworkNamespace
from labkit.kernel.processes.process import Process
from labkit.runtimes import docker_mirror

ADDRESS = "10.154.0.2/24"
"""The address of the machine, and its network."""

OUTSIDE = "10.154.0.1/24"
"""The address of this machine there."""

ETHERNET = "eth0"
"""The end of the cable in the machine; the end here is called as the machine is."""

_CLAIM = "docker netns claim"


def claim(name: str) -> None:
    """Let the dockerd of this lab have a machine of its own, of this name.

    Raises:
        LabError: the name is no name, or a network namespace or a link is called so and is not this lab's.
    """
    NetworkNamespace.claim(name)
    network.claim_link(name)
    ledger.intend(_CLAIM, name=name)


def claimed() -> str | None:
    """Return the name of the machine of the lab that owns what is made; None where its dockerd stands on this machine."""
    found = [entry.key["name"] for entry in ledger.live(ledger.owner()) if entry.kind == _CLAIM]
    return found[-1] if found else None


def make(name: str, own: Path) -> Process:
    """Make the machine, with this machine's mirror of docker.io in it, and return the process that carries it there.

    Shell:
        ip netns add NAME; ip link add NAME type veth peer name eth0 netns NAME; ip addr add 10.154.0.1/24 dev NAME

    Args:
        name: of the network namespace, and of the end of the cable here.
        own: the directory of dockerd.

    Raises:
        LabError: one of them is there and is not this lab's; the mirror does not answer, with the last line of its log.
    """
    netns = NetworkNamespace.create(name)
    network.veth(name, ETHERNET, None, netns)
    network.address(name, OUTSIDE)
    network.address(ETHERNET, ADDRESS, netns)
    for ifname, where in (("lo", netns), (ETHERNET, netns), (name, None)):
        network.up(ifname, where)
    return docker_mirror.serve(own, netns.path, places().registry_address)


def inside(name: str) -> str:
    """Return the file of the machine's network namespace."""
    return NetworkNamespace(name).path


def configuration() -> dict[str, object]:
    """Return what daemon.json says of the network there: docker's own ways, and an address of docker0 that is the same everywhere."""
    return {"bip": "172.17.0.1/16", "iptables": True, "ip6tables": False, "ip-forward": True}


@ledger.undoes(_CLAIM)
def _undo_claim(entry: ledger.Entry) -> None:
    """Leave it to the namespace and the link: they have entries of their own."""
