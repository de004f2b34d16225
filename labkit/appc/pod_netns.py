"""The network namespace of a pod: kept by a file in /run/netns, so that it outlives the pod's processes until it is cleared away.

Its name, rkt-UUID, says whose it is: `ip netns exec rkt-UUID ip addr` looks into it. See: network_namespaces(7), ip-netns(8)
"""

from __future__ import annotations

import struct
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel.network import namespace, netlink
from labkit.kernel.network.messages import IFF_UP
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.network.reading import NETNS_RUN

_LOOPBACK_UP = struct.pack("=BBHiII", 0, 0, 0, 1, IFF_UP, IFF_UP)
"""struct ifinfomsg for link 1, which is lo in every network namespace. Written here: pyroute2 loads longer than a pod starts."""


def path(pod_uuid: str) -> Path:
    """Return the file of a pod's network namespace."""
    return Path(NETNS_RUN) / f"rkt-{pod_uuid}"


def create(pod_uuid: str) -> Path:
    """Make a pod's network namespace; in a lab the ledger has it first.

    Shell:
        ip netns add rkt-31733fb7-...

    Returns:
        Its file.

    Raises:
        LabError: there is one.
    """
    namespace.make_directory()
    file = path(pod_uuid)
    if file.exists():
        raise LabError(f"there is a network namespace {file.name} already")
    if not ledger.owner():
        namespace.make_file(str(file))
        return file
    with ledger.making("netns", name=file.name) as entry:
        entry.identity.update(namespace.make_file(str(file)))
    return file


def delete(pod_uuid: str) -> None:
    """Take a pod's network namespace away; without it there is nothing to do.

    Shell:
        ip netns delete rkt-31733fb7-...
    """
    file = path(pod_uuid)
    namespace.remove_file(str(file))
    for entry in ledger.live():
        if entry.kind == "netns" and entry.key == {"name": file.name}:
            ledger.gone(entry)


def loopback(netns: Path) -> None:
    """Set the loopback of a network namespace up.

    Shell:
        ip netns exec rkt-31733fb7-... ip link set lo up
    Raises:
        LabError: there is no such namespace.
    """

    def set_up() -> None:
        with NetlinkSocket() as route:
            route.request(netlink.RTM_NEWLINK, _LOOPBACK_UP, arguments=("lo", "up"))

    netlink.within(str(netns), set_up)
