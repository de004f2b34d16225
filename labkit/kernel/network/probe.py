"""Send one packet that is known again wherever it is seen: a TCP SYN by its sequence number, an echo request by what it carries.

Network address translation changes addresses and ports, and leaves these. See: tcp(7), icmp(7), arp(7).
"""

from __future__ import annotations

import errno
import secrets
import select
import socket
import struct
import time
from dataclasses import dataclass, replace

from labkit.kernel.network import netlink
from labkit.kernel.network.capture import Frame
from labkit.kernel.network.frames import ECHO_REPLY, ECHO_REQUEST, ETH_P_ARP, Packet

_IP_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 3
_HEADERS = 28
_SMALLEST = 84
PATIENCE = 1.5
"""Seconds for an answer: longer than the kernel waits before it sends a SYN, or asks for a neighbour, a second time."""


@dataclass(frozen=True)
class Probe:
    """One packet that was sent, and what the sender heard.

    Attributes:
        protocol: "tcp" or "icmp".
        source: the address that the kernel chose; "" where it could not.
        source_port: of TCP.
        destination: address.
        port: of TCP; 0 of ICMP.
        token: what an echo request carries.
        sequence: of the SYN, as it was seen leave; None until then.
        outcome: 0 for an answer, else the errno that the sender got: ECONNREFUSED, ENETUNREACH, ..., ETIMEDOUT for none.
    """

    protocol: str
    source: str
    source_port: int
    destination: str
    port: int
    token: bytes = b""
    sequence: int | None = None
    outcome: int = 0

    def is_request(self, packet: Packet) -> bool:
        """Whether a packet is the one that was sent, with whatever addresses."""
        if self.protocol == "icmp":
            return packet.icmp is not None and packet.icmp.kind == ECHO_REQUEST and packet.icmp.payload.startswith(self.token)
        return packet.tcp is not None and packet.tcp.flags == ("SYN",) and packet.tcp.sequence == self.sequence

    def is_answer(self, packet: Packet) -> bool:
        """Whether a packet answers it: an echo reply, or an acknowledgement of the SYN, or a reset."""
        if self.protocol == "icmp":
            return packet.icmp is not None and packet.icmp.kind == ECHO_REPLY and packet.icmp.payload.startswith(self.token)
        if packet.tcp is None or self.sequence is None or not {"SYN", "RST"} & set(packet.tcp.flags):
            return False
        return packet.tcp.acknowledgement == (self.sequence + 1) & 0xFFFFFFFF

    def is_error(self, packet: Packet) -> bool:
        """Whether a packet is an ICMP error about it, or about its answer."""
        about = packet.icmp.about if packet.icmp else None
        return about is not None and (self.is_request(about) or self.is_answer(about) or self._begins(about))

    def _begins(self, about: Packet) -> bool:
        """Whether the first 8 bytes of a segment are those of the SYN: errors may carry no more."""
        return self.protocol == "tcp" and about.tcp is not None and about.tcp.sequence == self.sequence

    def seen(self, frames: tuple[Frame, ...], netns: str) -> Probe:
        """Return it with the sequence number of the first SYN that left by its port."""
        if self.protocol != "tcp":
            return self
        for frame in frames:
            tcp = frame.packet.tcp
            if frame.netns == netns and frame.outgoing and tcp and tcp.flags == ("SYN",) and tcp.source == self.source_port:
                return replace(self, sequence=tcp.sequence)
        return self


def tcp(path: str | None, destination: str, port: int, patience: float = PATIENCE) -> Probe:
    """Open a connection in a network namespace, and close it when it stands.

    Args:
        path: the namespace's file; None for this one.
        destination: address.
        port: where to.
        patience: seconds for an answer.
    """
    one = netlink.within(path, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
    with one:
        outcome = one.connect_ex((destination, port))
        source, source_port = one.getsockname()
        if outcome == errno.EINPROGRESS:
            there = _ready(one, select.POLLOUT, patience)
            outcome = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if there else errno.ETIMEDOUT
    return Probe("tcp", source, source_port, destination, port, outcome=outcome)


def echo(path: str | None, destination: str, size: int = _SMALLEST, patience: float = PATIENCE) -> Probe:
    """Send one echo request that must not be cut, and wait for its reply.

    Args:
        path: the namespace's file; None for this one.
        destination: address.
        size: bytes of the packet, headers included.
        patience: seconds for an answer.
    """
    token = secrets.token_bytes(16)
    one = netlink.within(path, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP))
    with one:
        one.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        try:
            one.connect((destination, 0))
            source = one.getsockname()[0]
            one.send(_echo_request(token.ljust(max(size - _HEADERS, len(token)), b"\0")))
        except OSError as error:
            return Probe("icmp", "", 0, destination, 0, token, outcome=error.errno or errno.EIO)
        return Probe("icmp", source, 0, destination, 0, token, outcome=_await_reply(one, token, patience))


def ask(path: str | None, ifname: str, address: str) -> None:
    """Ask on a link who has an address, as one asks before one takes it: nobody's table of neighbours changes.

    Args:
        path: the namespace's file; None for this one.
        ifname: the link.
        address: whom to ask for.

    See: RFC 5227
    """
    with netlink.within(path, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)) as one:
        one.bind((ifname, 0))
        mac = one.getsockname()[4]
        header = b"\xff" * 6 + mac + struct.pack("!H", ETH_P_ARP)
        one.send(header + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + bytes(4) + bytes(6) + socket.inet_aton(address))


def _echo_request(payload: bytes) -> bytes:
    number = secrets.randbelow(0xFFFF) + 1  # another each time: conntrack takes the same one for the same flow, and asks no rule of nat
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number, 1)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, _checksum(head + payload), number, 1) + payload


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ready(one: socket.socket, event: int, patience: float) -> bool:
    """Wait until a socket can be read or written; poll(2), as select(2) takes no descriptor above 1023."""
    watch = select.poll()
    watch.register(one, event)
    return bool(watch.poll(patience * 1000))


def _await_reply(one: socket.socket, token: bytes, patience: float) -> int:
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        if not _ready(one, select.POLLIN, left):
            break
        try:
            data = one.recv(1 << 16)
        except OSError as error:  # an ICMP error, or a neighbour that does not answer
            return int(error.errno or errno.EIO)
        size = (data[0] & 0xF) * 4
        if data[size : size + 1] == bytes([ECHO_REPLY]) and data[size + 8 :].startswith(token):
            return 0
    return errno.ETIMEDOUT
