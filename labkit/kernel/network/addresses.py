"""Addresses of links and routes of network namespaces: both go with their link. See: ip-address(8), ip-route(8)."""

from __future__ import annotations

import ipaddress
import shlex

from labkit import trace
from labkit.errors import LabError
from labkit.kernel.network import link_ledger as network_links
from labkit.kernel.network import netlink
from labkit.kernel.network import reading as network_state
from labkit.kernel.network import requests as network_requests
from labkit.kernel.network.icmp import check_address, way
from labkit.kernel.network.link_ledger import by_name, check_ours
from labkit.kernel.network.messages import Link
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.network.places import Netns, Place, place
from labkit.kernel.network.requests import Address, Interface, Network
from labkit.kernel.state import LinkState, RouteState

_NEW = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL


def address(ifname: str, interface: str, netns: Netns = None) -> LinkState:
    """Give a link an address; one that it has already is left.

    Shell:
        ip netns exec namespace1 ip addr add 192.168.1.1/24 dev veth1
    Args:
        ifname: the link.
        interface: address and length of its network: "192.168.1.1/24".
        netns: where it is.

    Raises:
        LabError: no address with a length, or a link that is not this lab's.
        SyscallError: ENODEV where there is no such link.
    """
    wanted = check_interface(interface)
    return _change_address(ifname, place(netns), wanted, add=True)


def delete_address(ifname: str, interface: str, netns: Netns = None) -> LinkState:
    """Take an address from a link; without it there is nothing to do.

    Shell:
        ip netns exec namespace1 ip addr del 192.168.1.1/24 dev veth1
    Raises:
        LabError: no address with a length, or a link that is not this lab's.
        SyscallError: ENODEV where there is no such link.
    """
    wanted = check_interface(interface)
    return _change_address(ifname, place(netns), wanted, add=False)


def route(destination: str, via: str | None = None, ifname: str | None = None, netns: Netns = None) -> tuple[RouteState, ...]:
    """Add a route to the main table; one that is there already is left.

    Shell:
        ip netns exec namespace1 ip route add default via 192.168.1.254
    Args:
        destination: "default" or "10.0.0.0/8".
        via: the next hop, if there is one.
        ifname: the link, where the next hop does not say it.
        netns: where.

    Returns:
        The main table.

    Raises:
        LabError: no network, no address, neither next hop nor link, or it would leave by a link that is not this lab's.
        SyscallError: ENETUNREACH where the next hop is out of reach, EEXIST where another route has this destination.
    """
    return _change_route(destination, via, ifname, place(netns), add=True)


def delete_route(destination: str, via: str | None = None, ifname: str | None = None, netns: Netns = None) -> tuple[RouteState, ...]:
    """Delete a route of the main table; without it there is nothing to do.

    Shell:
        ip netns exec namespace1 ip route del default
    Returns:
        The main table.

    Raises:
        LabError: as `route`.
    """
    return _change_route(destination, via, ifname, place(netns), add=False)


def routes(netns: Netns = None) -> tuple[RouteState, ...]:
    """Read the main table of a namespace, IPv4 and IPv6.

    Shell:
        ip route; ip -6 route
    """
    where = place(netns)
    where.check_there()
    return netlink.within(where.path, _main_table)


def check_interface(interface: str) -> Interface:
    """Return the address with the length of its network, or refuse what is none.

    Raises:
        LabError: no address, or one without a length: what the kernel would take for a network of one address.
    """
    if "/" not in interface:
        raise LabError(f"{interface!r} is an address without the length of its network", remedy=f'write it as "{interface}/24"')
    try:
        return ipaddress.ip_interface(interface)
    except ValueError as error:
        raise LabError(f"{interface!r} is no address", cause=str(error), remedy="write it as 192.168.1.1/24") from None


def check_destination(destination: str, via: Address | None) -> Network:
    """Return the network that a route leads to; "default" is of the family of its next hop.

    Raises:
        LabError: no network, or one with host bits set.
    """
    if destination == "default":
        destination = "::/0" if via is not None and via.version == 6 else "0.0.0.0/0"
    try:
        return ipaddress.ip_network(destination)
    except ValueError as error:
        raise LabError(f"{destination!r} is no network", cause=str(error), remedy='write it as 10.0.0.0/8, or "default"') from None


def _change_address(ifname: str, where: Place, wanted: Interface, *, add: bool) -> LinkState:
    def body(route: NetlinkSocket, found: Link) -> bytes | None:
        there = str(wanted) in network_state.addresses(route).get(found.state.index, ())
        return None if there is add else network_requests.address(found.state.index, wanted)

    words = f"ip addr {'add' if add else 'del'} {wanted} dev {shlex.quote(ifname)}"
    kind, flags = (netlink.RTM_NEWADDR, _NEW) if add else (netlink.RTM_DELADDR, 0)
    return network_links.change(ifname, where, kind, flags, body, words)


def _change_route(destination: str, via: str | None, ifname: str | None, where: Place, *, add: bool) -> tuple[RouteState, ...]:
    where.check_there()
    hop = check_address(via) if via else None
    network = check_destination(destination, hop)
    if add and hop is None and ifname is None:
        raise LabError(f"route to {destination}: neither a next hop nor a link is given", remedy="say via= or ifname=")
    words = [destination, *(["via", str(hop)] if hop else []), *(["dev", ifname] if ifname else [])]

    def change() -> tuple[bool, tuple[RouteState, ...]]:
        with NetlinkSocket() as route:
            index = by_name(route, ifname, where).state.index if ifname else None
            if _has(_main_table(), network, hop, ifname) is add:
                return False, _main_table()
            _check_way(route, hop, ifname, where)
            kind, flags = (netlink.RTM_NEWROUTE, _NEW) if add else (netlink.RTM_DELROUTE, 0)
            route.request(kind, network_requests.route(network, hop, index, add=add), flags, tuple(words))
            return True, _main_table()

    changed, table = netlink.within(where.path, change)
    if changed:
        family = "-6 " if network.version == 6 else ""
        line = shlex.join(["route", "add" if add else "del", *words])
        trace.record(f"{where.prefix}ip {family}{line}", calls=[f"sendmsg(RTM_{'NEW' if add else 'DEL'}ROUTE {' '.join(words)})"])
    return table


def _main_table() -> tuple[RouteState, ...]:
    with NetlinkSocket() as route:
        return network_state.routes(route, {link.state.index: link.state.ifname for link in network_state.links(route)})


def _has(table: tuple[RouteState, ...], network: Network, hop: Address | None, ifname: str | None) -> bool:
    """Tell whether a table has this route: what is not asked for may be anything."""
    text = "default" if not network.prefixlen else str(network)
    bare = str(network.network_address) if network.prefixlen == network.max_prefixlen else text
    gateway = str(hop) if hop else ""
    return any(
        found.destination == bare
        and (not gateway or found.gateway == gateway)
        and (ifname is None or found.ifname == ifname)
        and (network.prefixlen > 0 or not found.gateway or (":" in found.gateway) == (network.version == 6))
        for found in table
    )


def _check_way(route: NetlinkSocket, hop: Address | None, ifname: str | None, where: Place) -> None:
    """Refuse a route that would leave a namespace which is not this lab's by a link that is not this lab's."""
    if where.ours():
        return
    if ifname is None and hop is not None:
        index, _ = way(route, hop)
        check_ours(route, next(link for link in network_state.links(route) if link.state.index == index), where)
    elif ifname is not None:
        check_ours(route, by_name(route, ifname, where), where)
