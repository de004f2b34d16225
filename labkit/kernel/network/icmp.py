"""Send echo requests, and where no answer comes, measure why. See: ping(8), icmp(7)."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import socket
import struct
from dataclasses import dataclass

from labkit import trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import commands
from labkit.kernel.network import netlink
from labkit.kernel.network import reading as network_state
from labkit.kernel.network.messages import IFF_LOWER_UP, IFF_UP, Link
from labkit.kernel.network.netlink import NetlinkSocket, attributes
from labkit.kernel.network.places import Netns, Place, place
from labkit.kernel.network.requests import Address

_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_NDA_DST, _NUD_INCOMPLETE, _NUD_FAILED = 1, 0x01, 0x20


@dataclass(frozen=True)
class Ping:
    """What came of some echo requests.

    Attributes:
        address: whom they were sent to.
        sent: packets sent.
        received: answers.
        rtt_ms: mean time to an answer and back, in milliseconds; None without an answer.
        cause: why answers are missing, as measured; None where none are missing.
        text: what ping(8) wrote.
    """

    address: str
    sent: int
    received: int
    rtt_ms: float | None
    cause: str | None
    text: str

    def __bool__(self) -> bool:
        return self.sent > 0 and self.sent == self.received


def ping(address: str, netns: Netns = None, count: int = 1, deadline: float = 1.0) -> Ping:
    """Send echo requests to an address.

    Shell:
        ip netns exec namespace1 ping -c 1 -W 1 192.168.1.2
    Args:
        address: IPv4 or IPv6.
        netns: where from.
        count: how many, one a second.
        deadline: seconds to wait for each answer.

    Returns:
        True as a condition, if every one was answered.

    Raises:
        LabError: no address, or no such namespace.
        UnsupportedError: ping(8) is not installed.

    See: ping(8)
    """
    target, where = check_address(address), place(netns)
    where.check_there()
    words = ["ping", "-c", str(count), "-W", f"{deadline:g}", str(target)]
    trace.record(where.prefix + shlex.join(words))
    enter = [] if where.path is None else ["nsenter", f"--net={where.path}"]
    done = commands.run([*enter, *words], timeout=10 + count * (deadline + 1), check=False)
    text = done.stdout + done.stderr
    sent, received, rtt = parse_ping(done.stdout)
    return Ping(str(target), sent, received, rtt, None if 0 < sent == received else why_silent(target, where), text)


def parse_ping(text: str) -> tuple[int, int, float | None]:
    """Return packets sent, answers received and mean time in milliseconds from what ping(8) wrote."""
    numbers = re.search(r"(\d+) packets transmitted, (\d+)(?: packets)? received", text)
    times = re.search(r"min/avg/max\S* = [\d.]+/([\d.]+)/", text)
    sent, received = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return sent, received, float(times[1]) if times and received else None


def check_address(address: str) -> Address:
    """Return the address, or refuse what is none.

    Raises:
        LabError: with the reason that the parser gives.
    """
    try:
        return ipaddress.ip_address(address)
    except ValueError as error:
        raise LabError(f"{address!r} is no address", cause=str(error), remedy="write it as 192.168.1.2, without a length") from None


def way(route: NetlinkSocket, address: Address) -> tuple[int, Address | None]:
    """Return the link (its index) and the next hop, if any, that a packet to `address` takes.

    Shell:
        ip route get 192.168.1.2
    Raises:
        SyscallError: ENETUNREACH where there is no route.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = struct.pack("=8BI", family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0) + netlink.attribute(_RTA_DST, address.packed)
    found = attributes(route.request(netlink.RTM_GETROUTE, body, arguments=(str(address),)), 12)
    (index,) = struct.unpack("=i", found[_RTA_OIF])
    return index, ipaddress.ip_address(found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else None


def why_silent(address: Address, where: Place) -> str:
    """Return why no answer comes from an address, as far as it can be measured from here."""

    def look() -> str | Link:
        with NetlinkSocket() as route:
            links = network_state.links(route)
            try:
                index, gateway = way(route, address)
            except SyscallError as error:
                return _no_route(address, where, links, network_state.addresses(route), error)
            link = next(link for link in links if link.state.index == index)
            if not link.flags & IFF_UP:
                return f"link {link.state.ifname} in {where.title} is down"
            if not link.flags & IFF_LOWER_UP:
                return link
            hop = gateway or address
            if _unanswered(route, index, hop):
                return f"nobody on link {link.state.ifname} of {where.title} answers for {hop}"
            return f"packets left {where.title} by link {link.state.ifname}, and no answer came back"

    found = netlink.within(where.path, look)
    return found if isinstance(found, str) else _no_carrier(found, where)


def _no_route(address: Address, where: Place, links: list[Link], addresses: dict[int, list[str]], error: SyscallError) -> str:
    for link in links:
        for text in addresses.get(link.state.index, ()):
            if address in ipaddress.ip_interface(text).network and not link.flags & IFF_UP:
                return f"link {link.state.ifname} in {where.title}, which has {text}, is down, and so there is no route"
    return f"{where.title} has no route to {address} ({error.strerror})"


def _no_carrier(link: Link, where: Place) -> str:
    """Return what is measured of a link that is up and carries nothing: of a veth, the state of its other end."""
    state = link.state
    inode = os.stat(where.path or "/proc/self/ns/net").st_ino
    networks = network_state.states(rules=False)
    ends = {(network.name, other.ifname): other for network in networks for other in network.links}
    here = (other for network in networks if network.inode == inode for other in network.links)
    peer = next((other.peer for other in here if other.index == state.index), None)
    if peer and not ends[peer].up:
        return f"link {state.ifname} in {where.title} is up without a carrier: its other end, {peer[1]} in {peer[0]}, is down"
    return f"link {state.ifname} in {where.title} is up without a carrier"


def _unanswered(route: NetlinkSocket, index: int, address: Address) -> bool:
    """Tell whether the neighbour table says that this address was asked for and nobody answered."""
    for message in route.dump(netlink.RTM_GETNEIGH, bytes(12)):
        _, link, state = struct.unpack_from("=BxxxiH", message)
        if link == index and attributes(message, 12).get(_NDA_DST) == address.packed:
            return bool(state & (_NUD_FAILED | _NUD_INCOMPLETE))
    return False
