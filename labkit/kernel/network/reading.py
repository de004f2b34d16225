"""Read network namespaces: their links, addresses, routes and nft rules, and where the other end of each veth is.

Read with a parser of its own: pyroute2 takes fifteen times as long as the kernel to answer, and this is read before
and after every cell. See: rtnetlink(7).
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from labkit.kernel.namespaces import kept_by_mounts
from labkit.kernel.network import netlink, qdiscs
from labkit.kernel.network.messages import Link, parse_address, parse_link, parse_route
from labkit.kernel.network.netlink import NetlinkSocket, attributes
from labkit.kernel.network.nft import read_rules
from labkit.kernel.state import NamespaceState, NetworkState, RouteState

HOST = "host"
NETNS_RUN = "/run/netns"
_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS = 29, 8
_NETNSA_NSID, _NETNSA_FD = 1, 3
_SETTLE_SECONDS = 3.0
"""In which the kernel takes down the namespaces that a cell has left, also several of them on an emulated processor."""


@dataclass
class _Network:
    """What was read in one namespace; the peers are still to be resolved."""

    name: str
    inode: int
    path: str | None
    links: list[Link] = field(default_factory=list)
    addresses: dict[int, list[str]] = field(default_factory=dict)
    routes: tuple[RouteState, ...] = ()
    rules: tuple[str, ...] = ()


_lasting: set[tuple[int, int]] = set()
"""(namespace, link) of the veths whose other end is out of sight for good: they are waited for once."""


def states(
    namespaces: Iterable[NamespaceState] | None = None,
    *,
    proc: Path = Path("/proc"),
    run: Path = Path(NETNS_RUN),
    rules: bool = True,
    patience: float = _SETTLE_SECONDS,
) -> tuple[NetworkState, ...]:
    """Read every network namespace that has a name or a process: the host's first, then by name.

    A veth whose other end is in no namespace that anyone holds is being destroyed with it: its end is awaited.

    Shell:
        ip -d addr; ip route; ip netns list
    Args:
        namespaces: where they are, if an inventory was made already; None looks for them.
        proc: where the processes are looked for.
        run: where the names are.
        rules: read the nft rules, too.
        patience: seconds for which the other end of a veth is awaited.

    Returns:
        One record a namespace; one that went meanwhile is left out.
    """
    deadline = time.monotonic() + patience
    while True:
        networks = _read_all(_places(namespaces, proc, run), rules=rules)
        peers = _peers(networks)
        dying = _without_peer(networks, peers) - _lasting
        if not dying or time.monotonic() > deadline:
            break
        time.sleep(0.01)  # the kernel takes namespaces down in a work queue and tells nobody
    _lasting.update(dying if patience else ())
    return tuple(_state(network, peers) for network in networks)


def links(route: NetlinkSocket) -> list[Link]:
    """Read the links of the namespace that the socket is in; the counters of their protocols are left out."""
    mask = netlink.attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    found = [parse_link(message) for message in route.dump(netlink.RTM_GETLINK, bytes(16) + mask)]
    names = {link.state.index: link.state.ifname for link in found}
    limits = qdiscs.rates(route) if any(link.qdisc == qdiscs.SHAPER for link in found) else {}
    told = [replace(link.state, master=names.get(link.master, ""), rate=limits.get(link.state.index, 0)) for link in found]
    return [replace(link, state=state) for link, state in zip(found, told, strict=True)]


def addresses(route: NetlinkSocket) -> dict[int, list[str]]:
    """Read the addresses of the namespace that the socket is in, by the index of their link."""
    found: dict[int, list[str]] = {}
    for message in route.dump(netlink.RTM_GETADDR, bytes(8)):
        index, text = parse_address(message)
        found.setdefault(index, []).append(text)
    return found


def routes(route: NetlinkSocket, names: dict[int, str]) -> tuple[RouteState, ...]:
    """Read the main table of the namespace that the socket is in; `names` are the links by their index."""
    found = [hop for message in route.dump(netlink.RTM_GETROUTE, bytes(12)) for hop in parse_route(message, names)]
    return tuple(sorted(found, key=lambda hop: (":" in hop.destination + hop.gateway + hop.source, hop.destination, hop.ifname)))


def places(proc: Path = Path("/proc"), run: Path = Path(NETNS_RUN)) -> dict[str, str | None]:
    """Return every network namespace that has a name or a process: its name, as in NetworkState, to its file; the host's has none."""
    return dict(_places(None, proc, run).values())


def _places(namespaces: Iterable[NamespaceState] | None, proc: Path, run: Path) -> dict[int, tuple[str, str | None]]:
    """Return where the namespaces are: inode to (name, file); the host's has no file."""
    own = (proc / "self/ns/net").stat()
    places: dict[int, tuple[str, str | None]] = {own.st_ino: (HOST, None)}
    for name in sorted(os.listdir(run)) if run.is_dir() else ():
        inode = namespace_inode(f"{run}/{name}", own.st_dev)
        if inode:
            places.setdefault(inode, (f"{run}/{name}" if name == HOST else name, f"{run}/{name}"))
    found = _of_processes(proc) if namespaces is None else _of_inventory(namespaces, proc)
    for inode, path in sorted(found.items()):
        places.setdefault(inode, (f"net:[{inode}]", path))
    return places


def namespace_inode(path: str, device: int) -> int:
    """Return the number of the namespace that a file is of, or 0; `device` is that of the file system of namespaces."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return found.st_ino if found.st_dev == device else 0  # a name without its mount is an empty file elsewhere


def _of_processes(proc: Path) -> dict[int, str]:
    found: dict[str, str] = {}
    root = str(proc)
    for pid in os.listdir(root):
        if pid.isdigit():
            path = f"{root}/{pid}/ns/net"
            try:
                found.setdefault(os.readlink(path), path)
            except OSError:  # gone meanwhile, or not ours to see
                continue
    own = f"{root}/self/ns/net"
    for process in [path.removesuffix("/ns/net") for path in found.values() if not _is_same(path, own)]:
        for target, mountpoint in kept_by_mounts(f"{process}/mountinfo"):  # an engine keeps more where its mounts alone are seen
            found.setdefault(target, f"{process}/root{mountpoint}")
    return {int(target[5:-1]): path for target, path in found.items() if target.startswith("net:[")}


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _of_inventory(namespaces: Iterable[NamespaceState], proc: Path) -> dict[int, str]:
    return {
        namespace.inode: namespace.path or f"{proc}/{namespace.pids[0]}/ns/net"
        for namespace in namespaces
        if namespace.kind == "net" and (namespace.path or namespace.pids)
    }


def _read_all(places: dict[int, tuple[str, str | None]], *, rules: bool) -> list[_Network]:
    wanted = list(places.items())

    def read(number: int) -> _Network | None:
        inode, (name, path) = wanted[number]
        network = _read_here(name, path, rules=rules)
        return network if network.inode == inode else None

    networks = [network for network in netlink.through([path for _, (_, path) in wanted], read) if network]
    return sorted(networks, key=lambda network: (network.path is not None, network.name.startswith("net:["), network.name))


def _read_here(name: str, path: str | None, *, rules: bool) -> _Network:
    with NetlinkSocket() as route:
        network = _Network(name, os.stat("/proc/thread-self/ns/net").st_ino, path, links(route), addresses(route))
        network.routes = routes(route, {link.state.index: link.state.ifname for link in network.links})
    network.rules = read_rules() if rules else ()
    return network


def _peers(networks: list[_Network]) -> dict[tuple[int, int], tuple[str, str]]:
    """Return the other end of each veth: (namespace, index) to (name of the namespace, ifname).

    Two ends know each other's index. Where several namespaces have such an end, the number that the one namespace
    gives to the other says which it is.
    """
    joined = [network for network in networks if _veths(network)]
    ends: dict[tuple[int, int], list[tuple[_Network, Link]]] = {}
    for network in joined:
        for link in _veths(network):
            ends.setdefault((link.state.index, link.link), []).append((network, link))
    found: dict[tuple[int, int], tuple[str, str]] = {}

    def look(place: int) -> None:
        network = joined[place]
        numbers: dict[int, int | None] = {}
        with NetlinkSocket() as route:
            for link in _veths(network):
                if (network.inode, link.state.index) in found:
                    continue
                for other, end in _nearest(network, ends.get((link.link, link.state.index), [])):
                    if _leads_to(route, network, link, other, numbers):
                        found[network.inode, link.state.index] = (other.name, end.state.ifname)
                        found[other.inode, end.state.index] = (network.name, link.state.ifname)
                        break

    if joined:
        netlink.through([network.path for network in joined], look)
    return found


def _veths(network: _Network) -> list[Link]:
    return [link for link in network.links if link.state.kind == "veth"]


def _nearest(network: _Network, candidates: list[tuple[_Network, Link]]) -> list[tuple[_Network, Link]]:
    """Order candidates so that the likely one is asked for first: the host, then what was made about the same time."""
    return sorted(candidates, key=lambda candidate: (candidate[0].path is not None, abs(candidate[0].inode - network.inode)))


def _leads_to(route: NetlinkSocket, network: _Network, link: Link, other: _Network, numbers: dict[int, int | None]) -> bool:
    """Tell whether a veth of `network` leads to `other`; `numbers` keeps what the socket was asked for already."""
    if link.netnsid is None or other is network:
        return link.netnsid is None and other is network
    if other.inode not in numbers:
        numbers[other.inode] = netnsid(route, other.path or "/proc/self/ns/net")
    return numbers[other.inode] == link.netnsid


def netnsid(route: NetlinkSocket, path: str) -> int | None:
    """Return the number that the namespace of a socket gives to the one of a file; None where it has none for it."""
    try:
        with open(path, "rb") as file:
            answer = route.request(netlink.RTM_GETNSID, bytes(4) + netlink.attribute(_NETNSA_FD, struct.pack("=I", file.fileno())))
    except OSError:  # gone meanwhile: then it is nobody's other end
        return None
    (number,) = struct.unpack("=i", attributes(answer, 4).get(_NETNSA_NSID, b"\xff\xff\xff\xff"))
    return number if number >= 0 else None


def _without_peer(networks: list[_Network], peers: dict[tuple[int, int], tuple[str, str]]) -> set[tuple[int, int]]:
    veths = {(network.inode, link.state.index) for network in networks for link in network.links if link.state.kind == "veth"}
    return veths - peers.keys()


def _state(network: _Network, peers: dict[tuple[int, int], tuple[str, str]]) -> NetworkState:
    described = tuple(
        replace(
            link.state,
            peer=peers.get((network.inode, link.state.index)),
            addresses=tuple(network.addresses.get(link.state.index, ())),
        )
        for link in sorted(network.links, key=lambda link: link.state.index)
    )
    return NetworkState(network.name, network.inode, described, network.routes, network.rules)
