"""The Container Network Model as the kernel has it: a sandbox is a network namespace, an endpoint a link in it, a network what joins links.

What joins them is told by the link itself: the bridge at the other end of a veth, the parent of a macvlan or an ipvlan. A sandbox
that only another mount namespace has a file of is found by that of the process which made it. See: rtnetlink(7), veth(4), ip-link(8)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit.kernel.network import netlink
from labkit.kernel.network import reading as network_state
from labkit.kernel.network.messages import Link
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.network.reading import HOST, netnsid
from labkit.kernel.snapshot import noise
from labkit.kernel.state import automatic

_STACKED = ("macvlan", "ipvlan")


@dataclass(frozen=True)
class Endpoint:
    """One link of a sandbox, and what it is joined to.

    Attributes:
        ifname: its name there.
        kind: "veth", "macvlan", "ipvlan", ...; "" for hardware.
        detail: the mode of a macvlan or ipvlan, or "".
        joined: the bridge that its other end is a port of, or its parent; "" for neither.
        where: the network namespace of that: "host", a name, or "" for one without a name.
        vxlan: of the vxlan that is a port of the same bridge, such as "id 4097", or "".
        addresses: each as "10.0.1.2/24", those that the kernel gives by itself left out.
        mtu: bytes.
    """

    ifname: str
    kind: str
    detail: str
    joined: str
    where: str
    vxlan: str
    addresses: tuple[str, ...]
    mtu: int


@dataclass(frozen=True)
class Sandbox:
    """One network namespace as a container has it.

    Attributes:
        inode: its number.
        host: whether it is the machine's own.
        endpoints: its links but those that the kernel puts into every namespace, by index; none are read of the machine's own.
        gateway: where what is for nobody near goes first, or "".
    """

    inode: int
    host: bool
    endpoints: tuple[Endpoint, ...]
    gateway: str


@dataclass(frozen=True)
class _Read:
    name: str
    path: str
    inode: int
    links: tuple[Link, ...]
    addresses: dict[int, list[str]]


def sandbox(pid: int, others: Iterable[str] = ()) -> Sandbox:
    """Read the sandbox of a process.

    Shell:
        nsenter --target PID --net ip -d addr

    Args:
        pid: the process.
        others: files of network namespaces in which the other ends may be, beside the machine's and those under /run/netns.

    Raises:
        SyscallError: there is no such process.
    """
    inode = os.stat(f"/proc/{pid}/ns/net").st_ino
    if inode == os.stat("/proc/self/ns/net").st_ino:
        return Sandbox(inode, host=True, endpoints=(), gateway="")
    own = _read("", f"/proc/{pid}/ns/net")
    around = [_read(name, path) for name, path in _places(others)]
    told = (link for link in own.links if link.state.ifname not in noise.LINKS_OF_A_NEW_NAMESPACE)
    endpoints = tuple(_endpoint(link, own, around) for link in told)
    return Sandbox(inode, host=False, endpoints=endpoints, gateway=netlink.within(own.path, _gateway))


def _places(others: Iterable[str]) -> list[tuple[str, str]]:
    named = [(path.name, str(path)) for path in sorted(Path(network_state.NETNS_RUN).glob("*"))]
    device = os.stat("/proc/self/ns/net").st_dev
    there = [(name, path) for name, path in [*named, *(("", path) for path in others)] if network_state.namespace_inode(path, device)]
    return [(HOST, "/proc/self/ns/net"), *there]


def _read(name: str, path: str) -> _Read:
    def here() -> _Read:
        with NetlinkSocket() as route:
            links, addresses = tuple(network_state.links(route)), network_state.addresses(route)
        return _Read(name, path, os.stat("/proc/thread-self/ns/net").st_ino, links, addresses)

    return netlink.within(path, here)


def _gateway() -> str:
    with NetlinkSocket() as route:
        names = {link.state.index: link.state.ifname for link in network_state.links(route)}
        return next((hop.gateway or hop.ifname for hop in network_state.routes(route, names) if hop.destination == "default"), "")


def _endpoint(link: Link, own: _Read, around: list[_Read]) -> Endpoint:
    far, other = _other(link, own, around)
    joined = (other.state.ifname if link.state.kind in _STACKED else other.state.master) if other else ""
    ports = [each for each in far.links if joined and each.state.master == joined] if far else []
    vxlan = next((each.detail for each in ports if each.state.kind == "vxlan"), "")
    addresses = tuple(text for text in own.addresses.get(link.state.index, ()) if not automatic(text))
    where = far.name if far else ""
    return Endpoint(link.state.ifname, link.state.kind, link.detail, joined, where, vxlan, addresses, link.state.mtu)


def _other(link: Link, own: _Read, around: list[_Read]) -> tuple[_Read | None, Link | None]:
    """Return the link at the other end of a veth, or the parent; the number that the sandbox gives to a namespace says which it is."""
    for far in around:
        here = next((each for each in far.links if each.state.index == link.link), None)
        if here is None or (here.link != link.state.index and link.state.kind not in _STACKED):
            continue
        if _number(own, far) == link.netnsid:
            return far, here
    return None, None


def _number(own: _Read, far: _Read) -> int | None:
    def ask() -> int | None:
        with NetlinkSocket() as route:
            return netnsid(route, far.path)

    return netlink.within(own.path, ask)
