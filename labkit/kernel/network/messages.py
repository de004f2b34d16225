"""Parse what the kernel tells of links, addresses and routes. See: rtnetlink(7)."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from labkit.kernel.network.netlink import attributes
from labkit.kernel.state import LinkState, RouteState

IFF_UP, IFF_LOWER_UP = 0x1, 0x10000
_ARPHRD_LOOPBACK = 772
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_QDISC, _IFLA_MASTER, _IFLA_OPERSTATE = 1, 3, 4, 5, 6, 10, 16
_IFLA_LINKINFO, _IFLA_STATS64, _IFLA_LINK_NETNSID, _IFLA_INFO_KIND, _IFLA_INFO_DATA = 18, 23, 37, 1, 2
_IFLA_KIND_FIRST = 1  # IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_VXLAN_ID
_MODES = {
    "macvlan": {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"},
    "ipvlan": {0: "l2", 1: "l3", 2: "l3s"},
}
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 7, 9, 15, 18
_RT_TABLE_MAIN, _RTN_UNICAST, _RTM_F_CLONED = 254, 1, 0x200
_ROUTE_TYPES = {5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"}
_OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")


@dataclass(frozen=True)
class Link:
    """A link as one message tells it: the record, and the numbers that say where its other end is.

    Attributes:
        state: the record, its peer not resolved.
        flags: IFF_*.
        master: index of its bridge, or 0.
        link: index of the other end of a veth, or 0.
        netnsid: the namespace of the other end, as this namespace numbers it; None for this one.
        counters: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped.
        detail: what its kind adds: the mode of a macvlan or ipvlan, the id of a vxlan; else "".
        qdisc: what queues what leaves it: "noqueue", "tbf", ...
    """

    state: LinkState
    flags: int = 0
    master: int = 0
    link: int = 0
    netnsid: int | None = None
    counters: tuple[int, ...] = ()
    detail: str = ""
    qdisc: str = ""


def parse_link(message: bytes) -> Link:
    """Return the link that a message of RTM_NEWLINK tells of."""
    _, hardware, index, flags, _ = struct.unpack_from("=BxHiII", message)
    found = attributes(message, 16)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    kind = _text(info.get(_IFLA_INFO_KIND, b"")) or ("loopback" if hardware == _ARPHRD_LOOPBACK else "")
    state = LinkState(
        ifname=_text(found[_IFLA_IFNAME]),
        index=index,
        kind=kind,
        up=bool(flags & IFF_UP),
        operstate=_OPERSTATES[min(found.get(_IFLA_OPERSTATE, b"\0")[0], 6)],
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(found.get(_IFLA_MTU)),
    )
    netnsid = found.get(_IFLA_LINK_NETNSID)
    counters = struct.unpack_from("=8Q", found[_IFLA_STATS64]) if _IFLA_STATS64 in found else ()
    other = _number(found.get(_IFLA_LINK))
    master, number = _number(found.get(_IFLA_MASTER)), None if netnsid is None else _number(netnsid)
    detail, qdisc = _detail(kind, info.get(_IFLA_INFO_DATA, b"")), _text(found.get(_IFLA_QDISC, b""))
    return Link(state, flags, master, other, number, counters, detail, qdisc)


def _detail(kind: str, data: bytes) -> str:
    """Return the one attribute that tells two links of a kind apart; in all of these kinds it is the first."""
    value = int.from_bytes(attributes(data).get(_IFLA_KIND_FIRST, b""), sys.byteorder)
    if kind == "vxlan":
        return f"id {value}"
    modes: Mapping[int, str] = _MODES.get(kind, {})
    return f"mode {modes.get(value, str(value))}" if modes else ""


def parse_address(message: bytes) -> tuple[int, str]:
    """Return index of the link and "address/length" of a message of RTM_NEWADDR."""
    family, length, _, _, index = struct.unpack_from("=BBBBI", message)
    found = attributes(message, 8)
    return index, f"{socket.inet_ntop(family, found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])}/{length}"


def parse_route(message: bytes, names: dict[int, str]) -> list[RouteState]:
    """Return the routes, one a next hop, of a message of RTM_NEWROUTE; none where it is not of the main table."""
    family, length, _, _, table, _, _, kind, flags = struct.unpack_from("=8BI", message)
    found = attributes(message, 12)
    if family not in (socket.AF_INET, socket.AF_INET6) or flags & _RTM_F_CLONED:
        return []
    if (_number(found.get(_RTA_TABLE)) or table) != _RT_TABLE_MAIN:
        return []
    destination = _destination(family, length, found.get(_RTA_DST))
    if kind != _RTN_UNICAST:
        destination = f"{_ROUTE_TYPES.get(kind, str(kind))} {destination}"
    source = socket.inet_ntop(family, found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else ""
    hops = _next_hops(found[_RTA_MULTIPATH]) if _RTA_MULTIPATH in found else [(_number(found.get(_RTA_OIF)), found)]
    return [RouteState(destination, _gateway(family, hop), names.get(index, ""), source) for index, hop in hops]


def _destination(family: int, length: int, address: bytes | None) -> str:
    if not length or address is None:
        return "default"
    whole = length == len(address) * 8
    return socket.inet_ntop(family, address) + ("" if whole else f"/{length}")


def _next_hops(data: bytes) -> list[tuple[int, dict[int, bytes]]]:
    hops, offset = [], 0
    while offset + 8 <= len(data):
        length, _, _, index = struct.unpack_from("=HBBi", data, offset)
        hops.append((index, attributes(data[offset : offset + length], 8)))
        offset += (length + 3) & ~3 or len(data)
    return hops


def _gateway(family: int, found: dict[int, bytes]) -> str:
    if _RTA_GATEWAY in found:
        return socket.inet_ntop(family, found[_RTA_GATEWAY])
    if _RTA_VIA in found:  # a next hop of the other family
        (other,) = struct.unpack_from("=H", found[_RTA_VIA])
        return socket.inet_ntop(other, found[_RTA_VIA][2:])
    return ""


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")


def _number(value: bytes | None) -> int:
    return struct.unpack("=i", value)[0] if value else 0
