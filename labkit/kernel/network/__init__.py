"""Links, addresses and routes in network namespaces. See: rtnetlink(7), veth(4), network_namespaces(7).

Every function takes `netns`: a NetworkNamespace, its name, a process in it; None is the host's. What is changed must
be this lab's: a namespace that it made, or a link that it made.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from labkit import ledger, trace
from labkit.kernel.network import link_ledger as network_links
from labkit.kernel.network import netlink
from labkit.kernel.network import requests as network_requests
from labkit.kernel.network.addresses import address, delete_address, delete_route, route, routes
from labkit.kernel.network.icmp import Ping, ping
from labkit.kernel.network.link_ledger import End, by_name, check_ours
from labkit.kernel.network.messages import Link
from labkit.kernel.network.namespace import HOST_NET, NetworkNamespace, names
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.network.places import Netns, Place, place
from labkit.kernel.network.reading import states
from labkit.kernel.network.virtual import bridge, by_names, check_ifname, delete_unfinished, place_of, refuse_taken, taken, veth, word
from labkit.kernel.state import LinkState

__all__ = [
    "Netns", "NetworkNamespace", "Ping", "Statistics", "address", "bridge", "claim_link", "delete_address", "delete_link",
    "delete_route", "delete_unfinished", "down", "link", "links", "move", "names", "ping", "route", "routes", "set_master", "states",
    "statistics", "up", "veth",
]  # fmt: skip


@dataclass(frozen=True)
class Statistics:
    """What passed a link since it was made, as the kernel counts it: bytes and packets, received (rx) and sent (tx)."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def move(ifname: str, to: Netns, netns: Netns = None) -> LinkState:
    """Move a link into another network namespace; it loses its addresses and is down there.

    A link that is there already is returned as it is.

    Shell:
        ip link set veth1 netns namespace1
    Args:
        ifname: the link.
        to: where to.
        netns: where it is.

    Raises:
        LabError: the link or the namespace is not this lab's.
        SyscallError: ENODEV where there is no such link, EEXIST where one of that name is in `to`, EINVAL for lo.

    See: ip-link(8)
    """
    source, target = place(netns), place(to)
    source.check_there()
    target.check()
    there = by_names(target).get(ifname)
    if there and ifname not in by_names(source):
        return there
    cookie = netlink.within(target.path, _cookie)
    old, entry = netlink.within(source.path, lambda: _entry_to_move(ifname, source))
    found = [end for end in network_links.ends(entry) if end != old]
    network_links.write_ends(entry, [*found, old, End(target.path or "", cookie, old.index, ifname)])
    ledger.made(entry)  # both places, before it moves: the index is kept unless another link has it there
    with open(target.path or HOST_NET, "rb") as file:
        body = network_requests.set_link(old.index, netns=file.fileno())
        netlink.within(source.path, lambda: _request(netlink.RTM_NEWLINK, body, (ifname, f"netns {target.title}")))
    end, state = netlink.within(target.path, lambda: place_of(ifname, target))
    network_links.write_ends(entry, [*found, end])
    ledger.made(entry)
    line = f"{source.prefix}ip link set {word(ifname)} netns {target.word}"
    trace.record(line, calls=[f"sendmsg(RTM_NEWLINK {ifname}, netns {target.title})"])
    return state


def set_master(ifname: str, master: str | None, netns: Netns = None) -> LinkState:
    """Make a link a port of a bridge in the same namespace; None takes it out.

    Shell:
        ip link set dev veth1 master br0
    Raises:
        SyscallError: ENODEV where there is no such link or bridge.
    """
    where = place(netns)

    def body(route: NetlinkSocket, found: Link) -> bytes:
        index = by_name(route, master, where).state.index if master else 0
        return network_requests.set_link(found.state.index, master=index)

    words = f"ip link set dev {shlex.quote(ifname)} " + (f"master {shlex.quote(master)}" if master else "nomaster")
    return network_links.change(ifname, where, netlink.RTM_NEWLINK, 0, body, words)


def up(ifname: str, netns: Netns = None) -> LinkState:
    """Set a link up.

    Shell:
        ip netns exec namespace1 ip link set dev veth1 up
    Raises:
        SyscallError: ENODEV where there is no such link.
        LabError: it is not this lab's.
    """
    return _set_up(ifname, netns, up=True)


def down(ifname: str, netns: Netns = None) -> LinkState:
    """Set a link down; its routes go with that.

    Shell:
        ip netns exec namespace1 ip link set dev veth1 down
    Raises:
        SyscallError: ENODEV where there is no such link.
        LabError: it is not this lab's.
    """
    return _set_up(ifname, netns, up=False)


def delete_link(ifname: str, netns: Netns = None) -> None:
    """Delete a link, and with a veth its other end; without one of this name there is nothing to do.

    Shell:
        ip link delete veth1
    Raises:
        LabError: it is not this lab's.
        SyscallError: EOPNOTSUPP for a link of hardware and for lo.
    """
    where = place(netns)
    if ifname not in by_names(where):
        return

    def delete() -> tuple[int, int]:
        with NetlinkSocket() as route:
            found = by_name(route, ifname, where)
            check_ours(route, found, where)
            network_links.remove(route, found.state.index, ifname)
            return route.cookie(), found.state.index

    entry = network_links.entry_at(where.path or "", *netlink.within(where.path, delete))
    if entry is not None:
        ledger.gone(entry)
    trace.record(f"{where.prefix}ip link delete {word(ifname)}", calls=[f"sendmsg(RTM_DELLINK {ifname})"])


def claim_link(ifname: str) -> None:
    """Take a name for this lab whose link will be made by hand in the host's namespace: the undo then removes it.

    Raises:
        LabError: the name is no name, or there is such a link already and it is not this lab's.
    """
    check_ifname(ifname)
    if not network_links.claimed(ifname):
        refuse_taken(taken(ifname, place(None)), place(None))
        ledger.intend("link-claim", ifname=ifname)


def link(ifname: str, netns: Netns = None) -> LinkState:
    """Read one link with its addresses.

    Shell:
        ip addr show dev veth1
    Raises:
        SyscallError: ENODEV; the links that there are, are the cause.
    """
    return network_links.read(ifname, place(netns))


def links(netns: Netns = None) -> tuple[LinkState, ...]:
    """Read all links of a namespace with their addresses.

    Shell:
        ip addr
    """
    return tuple(by_names(place(netns)).values())


def statistics(ifname: str, netns: Netns = None) -> Statistics:
    """Read what passed a link.

    Shell:
        ip -s link show dev veth1
    Raises:
        SyscallError: ENODEV; the links that there are, are the cause.
    """
    where = place(netns)
    where.check_there()

    def read() -> Statistics:
        with NetlinkSocket() as route:
            return Statistics(*by_name(route, ifname, where).counters)

    return netlink.within(where.path, read)


def _set_up(ifname: str, netns: Netns, *, up: bool) -> LinkState:
    def body(_: NetlinkSocket, found: Link) -> bytes:
        return network_requests.set_link(found.state.index, up=up)

    words = f"ip link set dev {shlex.quote(ifname)} {'up' if up else 'down'}"
    return network_links.change(ifname, place(netns), netlink.RTM_NEWLINK, 0, body, words)


def _entry_to_move(ifname: str, source: Place) -> tuple[End, ledger.Entry]:
    """Return where a link is, and its entry; one that was made by hand in the lab's namespace gets one."""
    with NetlinkSocket() as route:
        found = by_name(route, ifname, source)
        check_ours(route, found, source)
        end = End(source.path or "", route.cookie(), found.state.index)
    entry = network_links.entry_at(end.path, end.cookie, end.index)
    key = {"link_kind": found.state.kind, "ifname": ifname, "netns": end.path}
    return end, entry or ledger.intend("link", **key)


def _request(kind: int, body: bytes, arguments: tuple[str, ...]) -> None:
    with NetlinkSocket() as route:
        route.request(kind, body, arguments=arguments)


def _cookie() -> int:
    with NetlinkSocket() as route:
        return route.cookie()
