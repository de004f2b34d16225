"""Decode frames: Ethernet, ARP, IPv4, ICMP, TCP, UDP, and VXLAN with the frame inside.

What is cut off, or of a protocol that is not among these, is left None: no frame is an error. See: packet(7), RFC 791, RFC 7348.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

ETH_P_IP, ETH_P_ARP, ETH_P_8021Q, ETH_P_IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP = 1, 6, 17
VXLAN_PORTS = (4789, 8472)
"""The port that IANA gave to VXLAN, and the one of Linux before that."""

ECHO_REPLY, UNREACHABLE, ECHO_REQUEST, TIME_EXCEEDED = 0, 3, 8, 11
_FRAGMENTATION_NEEDED = 4
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
_ICMP = {ECHO_REPLY: "echo reply", UNREACHABLE: "destination unreachable", ECHO_REQUEST: "echo request", TIME_EXCEEDED: "time exceeded"}
_UNREACHABLE = {0: "net unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable", 4: "fragmentation needed",
                9: "net prohibited", 10: "host prohibited", 13: "prohibited by a filter"}  # fmt: skip


@dataclass(frozen=True)
class Ethernet:
    """The header of a frame: MAC addresses, and what follows (0x0800 is IPv4). See: packet(7)."""

    source: str
    destination: str
    kind: int


@dataclass(frozen=True)
class Arp:
    """A question, "request", for the MAC address of a neighbour, or its answer, "reply". See: arp(7)."""

    operation: str
    sender_mac: str
    sender: str
    target_mac: str
    target: str


@dataclass(frozen=True)
class IPv4:
    """The header of a packet. See: ip(7).

    Attributes:
        source: address.
        destination: address.
        protocol: of what is inside, 6 is TCP.
        ttl: how many routers it may still pass.
        length: bytes, header included.
        dont_fragment: whether routers must not cut it.
        offset: of a fragment, in bytes.
    """

    source: str
    destination: str
    protocol: int
    ttl: int
    length: int
    dont_fragment: bool
    offset: int


@dataclass(frozen=True)
class Icmp:
    """A message about packets; an error carries the begin of the packet that it is about. See: icmp(7).

    Attributes:
        kind: 8 is an echo request, 0 its reply, 3 an error: destination unreachable.
        code: of an error.
        number: of who asked for an echo.
        sequence: of an echo.
        payload: what an echo carries.
        mtu: of an error "fragmentation needed", what would pass.
        about: of an error, the packet.
    """

    kind: int
    code: int
    number: int
    sequence: int
    payload: bytes
    mtu: int
    about: Packet | None

    @property
    def told(self) -> str:
        """What it says, in words."""
        if self.kind == UNREACHABLE:
            return _UNREACHABLE.get(self.code, _ICMP[UNREACHABLE]) + (f", mtu {self.mtu}" if self.code == _FRAGMENTATION_NEEDED else "")
        return _ICMP.get(self.kind, f"type {self.kind}")


@dataclass(frozen=True)
class Tcp:
    """The header of a segment; `flags` such as ("SYN", "ACK"). See: tcp(7)."""

    source: int
    destination: int
    sequence: int
    acknowledgement: int
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Udp:
    """The header of a datagram. See: udp(7)."""

    source: int
    destination: int


@dataclass(frozen=True)
class Vxlan:
    """A frame of one network carried in a datagram of another; `vni` is its number. See: RFC 7348."""

    vni: int
    inner: Packet


@dataclass(frozen=True)
class Packet:
    """What a frame says, from the outside to the inside; None for what it does not have."""

    ethernet: Ethernet | None = None
    arp: Arp | None = None
    ip: IPv4 | None = None
    icmp: Icmp | None = None
    tcp: Tcp | None = None
    udp: Udp | None = None
    vxlan: Vxlan | None = None

    @property
    def protocol(self) -> str:
        """The innermost name: "vxlan", "tcp", "udp", "icmp", "ip", "arp", or "" for what is not decoded."""
        return next((name for name in ("vxlan", "tcp", "udp", "icmp", "ip", "arp") if getattr(self, name) is not None), "")

    @property
    def told(self) -> str:
        """What it says, in one line, without what differs each time: ports that were chosen by chance, numbers, MAC addresses."""
        return _told(self)

    def all(self) -> Iterator[Packet]:
        """Yield it, and what is carried inside it."""
        yield self
        if self.vxlan is not None:
            yield from self.vxlan.inner.all()


def decode(data: bytes) -> Packet:
    """Decode a frame that begins with its Ethernet header."""
    if len(data) < 14:
        return Packet()
    (kind,) = struct.unpack_from("!H", data, 12)
    start = 14
    if kind == ETH_P_8021Q and len(data) >= 18:
        (kind,), start = struct.unpack_from("!H", data, 16), 18
    ethernet = Ethernet(_mac(data[6:12]), _mac(data[:6]), kind)
    if kind == ETH_P_ARP:
        return Packet(ethernet, arp=_arp(data[start:]))
    return _ip(data[start:], ethernet) if kind == ETH_P_IP else Packet(ethernet)


def decode_ip(data: bytes) -> Packet:
    """Decode a packet that begins with its IPv4 header."""
    return _ip(data, None)


def _arp(data: bytes) -> Arp | None:
    if len(data) < 28 or data[:6] != b"\0\1\x08\0\6\4":  # Ethernet and IPv4
        return None
    (operation,) = struct.unpack_from("!H", data, 6)
    word = {1: "request", 2: "reply"}.get(operation, str(operation))
    return Arp(word, _mac(data[8:14]), _address(data[14:18]), _mac(data[18:24]), _address(data[24:28]))


def _ip(data: bytes, ethernet: Ethernet | None) -> Packet:
    size = (data[0] & 0xF) * 4 if data else 0
    if len(data) < 20 or data[0] >> 4 != 4 or size < 20:
        return Packet(ethernet)
    length, _, fragment, ttl, protocol = struct.unpack_from("!HHHBB", data, 2)
    ip = IPv4(_address(data[12:16]), _address(data[16:20]), protocol, ttl, length, bool(fragment & 0x4000), (fragment & 0x1FFF) * 8)
    body = data[size : max(length, size)] if length else data[size:]  # a large one that the card will cut says 0
    if ip.offset:
        return Packet(ethernet, ip=ip)  # only the first fragment has the header of what is inside
    if protocol == IPPROTO_ICMP and len(body) >= 8:
        return Packet(ethernet, ip=ip, icmp=_icmp(body))
    if protocol == IPPROTO_TCP and len(body) >= 8:
        return Packet(ethernet, ip=ip, tcp=_tcp(body))
    if protocol == IPPROTO_UDP and len(body) >= 8:
        return _udp(body, ethernet, ip)
    return Packet(ethernet, ip=ip)


def _icmp(data: bytes) -> Icmp:
    kind, code, _, number, sequence = struct.unpack_from("!BBHHH", data)
    if kind in (ECHO_REQUEST, ECHO_REPLY):
        return Icmp(kind, code, number, sequence, data[8:], 0, None)
    mtu = sequence if (kind, code) == (UNREACHABLE, _FRAGMENTATION_NEEDED) else 0
    return Icmp(kind, code, 0, 0, b"", mtu, decode_ip(data[8:]) if kind in (UNREACHABLE, TIME_EXCEEDED) else None)


def _tcp(data: bytes) -> Tcp:
    """Decode what is there of a segment: an ICMP error may carry its first 8 bytes alone."""
    source, destination, sequence = struct.unpack_from("!HHI", data)
    if len(data) < 14:
        return Tcp(source, destination, sequence, 0, ())
    acknowledgement, _, bits = struct.unpack_from("!IBB", data, 8)
    return Tcp(source, destination, sequence, acknowledgement, tuple(name for bit, name in enumerate(_FLAGS) if bits >> bit & 1))


def _udp(data: bytes, ethernet: Ethernet | None, ip: IPv4) -> Packet:
    source, destination = struct.unpack_from("!HH", data)
    vxlan = None
    if destination in VXLAN_PORTS and len(data) >= 16 and data[8] & 0x08:
        vxlan = Vxlan(int.from_bytes(data[12:15], "big"), decode(data[16:]))
    return Packet(ethernet, ip=ip, udp=Udp(source, destination), vxlan=vxlan)


def _told(packet: Packet) -> str:
    if packet.arp is not None:
        arp = packet.arp
        return f"who has {arp.target}? asks {arp.sender}" if arp.operation == "request" else f"{arp.sender} is here, to {arp.target}"
    if packet.ip is None:
        return f"type 0x{packet.ethernet.kind:04x}" if packet.ethernet else "cut off"
    way = f"{packet.ip.source} > {packet.ip.destination}"
    if packet.vxlan is not None:
        return f"{way} vxlan {packet.vxlan.vni}: {packet.vxlan.inner.told}"
    if packet.icmp is not None:
        return f"{way} {packet.icmp.told}"
    if packet.tcp is not None:
        return f"{way} tcp {_port(packet.tcp)}{','.join(packet.tcp.flags)}"
    if packet.udp is not None:
        return f"{way} udp {_port(packet.udp)}".rstrip()
    return f"{way} protocol {packet.ip.protocol}"


def _port(segment: Tcp | Udp) -> str:
    """Name the port of the service: the lower one, for the other was chosen by chance."""
    service = min(segment.source, segment.destination)
    return f"port {service} "


def _mac(data: bytes) -> str:
    return data.hex(":")


def _address(data: bytes) -> str:
    return str(ipaddress.IPv4Address(data))
