"""The bodies of the rtnetlink requests that change something, written by pyroute2 with the kernel's own names.

Only the messages are pyroute2's: its sockets bring an event loop, and a notebook cell runs in one already.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Protocol

from labkit.kernel.network.messages import IFF_UP

_RT_TABLE_MAIN, _RTN_UNICAST = 254, 1
_RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK, _RT_SCOPE_NOWHERE = 3, 0, 253, 255
_HEADER_BYTES = 16

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Message(Protocol):
    data: bytearray

    def encode(self) -> None: ...


def new_veth(ifname: str, peer: str, peer_netns: int | None = None) -> bytes:
    """Return a new veth pair; `peer_netns` is an open file of the namespace in which the other end is made."""
    end: list[tuple[str, Any]] = [("IFLA_IFNAME", peer)]
    if peer_netns is not None:
        end.append(("IFLA_NET_NS_FD", peer_netns))
    return _new_link(ifname, "veth", [("VETH_INFO_PEER", {"attrs": end})])


def new_bridge(ifname: str) -> bytes:
    """Return a new bridge."""
    return _new_link(ifname, "bridge", [])


def set_link(index: int, *, up: bool | None = None, master: int | None = None, netns: int | None = None) -> bytes:
    """Return a change of a link: its state, its bridge (0 for none), its namespace (an open file)."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = ifinfmsg()
    message["index"] = index
    if up is not None:
        message["flags"], message["change"] = (IFF_UP if up else 0), IFF_UP
    if master is not None:
        message["attrs"].append(("IFLA_MASTER", master))
    if netns is not None:
        message["attrs"].append(("IFLA_NET_NS_FD", netns))
    return _body(message)


def address(index: int, interface: Interface) -> bytes:
    """Return an address of a link, to be added or deleted."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    message = ifaddrmsg()
    message["family"] = _family(interface)
    message["prefixlen"] = interface.network.prefixlen
    message["index"] = index
    message["attrs"] = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
    return _body(message)


def route(destination: Network, via: Address | None = None, index: int | None = None, *, add: bool = True) -> bytes:
    """Return a route of the main table, to be added or deleted: by a next hop, by a link, or by both."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    message = rtmsg()
    message["family"] = _family(destination)
    message["dst_len"] = destination.prefixlen
    message["table"], message["scope"] = _RT_TABLE_MAIN, _RT_SCOPE_NOWHERE  # of one to be deleted: any
    if add:
        message["proto"], message["type"] = _RTPROT_BOOT, _RTN_UNICAST
        message["scope"] = _RT_SCOPE_LINK if via is None and destination.version == 4 else _RT_SCOPE_UNIVERSE
    if destination.prefixlen:
        message["attrs"].append(("RTA_DST", str(destination.network_address)))
    if via is not None:
        message["attrs"].append(("RTA_GATEWAY", str(via)))
    if index is not None:
        message["attrs"].append(("RTA_OIF", index))
    return _body(message)


def _new_link(ifname: str, kind: str, data: list[tuple[str, Any]]) -> bytes:
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    info: list[tuple[str, Any]] = [("IFLA_INFO_KIND", kind)]
    if data:
        info.append(("IFLA_INFO_DATA", {"attrs": data}))
    message = ifinfmsg()
    message["attrs"] = [("IFLA_IFNAME", ifname), ("IFLA_LINKINFO", {"attrs": info})]
    return _body(message)


def _family(of: Interface | Network) -> int:
    return socket.AF_INET if of.version == 4 else socket.AF_INET6


def _body(message: _Message) -> bytes:
    message.encode()
    return bytes(message.data[_HEADER_BYTES:])
