"""What leads where: the other ends of links, ports of bridges, who has an address, and which way a namespace would send a packet."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError, SyscallError
from labkit.kernel.network import netlink, reading
from labkit.kernel.network.netlink import NetlinkSocket, attribute, attributes
from labkit.kernel.state import LinkState, NetworkState

_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RTN_LOCAL = 2
_NO_CARRIER = ("DOWN", "LOWERLAYERDOWN", "NOTPRESENT", "DORMANT")


@dataclass(frozen=True)
class End:
    """A link in its network namespace."""

    netns: str
    link: LinkState


@dataclass(frozen=True)
class Way:
    """Where the kernel of a namespace would send a packet: "" and `refused` where it has no route."""

    ifname: str = ""
    gateway: str = ""
    local: bool = False
    refused: int = 0


class Topology:
    """The network namespaces of the machine at one instant; what is asked of a namespace later is asked now.

    Args:
        titles: what namespaces are called, by their number; those that have no entry keep their name.
    """

    def __init__(self, titles: Mapping[int, str] | None = None) -> None:
        self.paths = reading.places()
        self.states: dict[str, NetworkState] = {state.name: state for state in reading.states(rules=False)}
        self._titles = dict(titles or {})

    def title(self, netns: str) -> str:
        """Return what a namespace is called."""
        state = self.states.get(netns)
        return self._titles.get(state.inode, netns) if state else netns

    def called(self, link: End) -> str:
        """Return how a link is called in a sentence."""
        return f"{link.link.ifname} in {self.title(link.netns)}"

    def end(self, netns: str, ifname: str) -> End | None:
        """Return a link by its name."""
        links = self.states[netns].links if netns in self.states else ()
        return next((End(netns, link) for link in links if link.ifname == ifname), None)

    def ends(self) -> Iterator[End]:
        """Yield all links."""
        for state in self.states.values():
            for link in state.links:
                yield End(state.name, link)

    def peer(self, end: End) -> End | None:
        """Return the other end of a veth, where it is in sight."""
        return self.end(*end.link.peer) if end.link.peer else None

    def bridge_of(self, end: End) -> End | None:
        """Return the bridge that a link is a port of."""
        found = self.end(end.netns, end.link.master) if end.link.master else None
        return found if found and found.link.kind == "bridge" else None

    def ports(self, bridge: End) -> tuple[End, ...]:
        """Return the ports of a bridge."""
        return tuple(End(bridge.netns, link) for link in self.states[bridge.netns].links if link.master == bridge.link.ifname)

    def owners(self, address: str) -> tuple[End, ...]:
        """Return the links that have an address."""
        return tuple(end for end in self.ends() if any(text.split("/")[0] == address for text in end.link.addresses))

    def has(self, netns: str, address: str) -> bool:
        """Whether a namespace has an address."""
        return any(end.netns == netns for end in self.owners(address))

    def down_towards(self, netns: str, address: str) -> End | None:
        """Return the link of a namespace that is down and whose network has an address: its route is gone with that."""
        for link in self.states[netns].links:
            if not link.up and any(_contains(text, address) for text in link.addresses):
                return End(netns, link)
        return None

    def way(self, netns: str, address: str) -> Way:
        """Ask the kernel of a namespace where it would send a packet.

        Shell:
            ip netns exec NETNS ip route get ADDRESS
        """
        names = {link.index: link.ifname for link in self.states[netns].links}

        def look() -> Way:
            with NetlinkSocket() as route:
                return _way(route, address, names)

        return netlink.within(self.paths.get(netns), look)

    def setting(self, netns: str, key: str) -> int:
        """Read a number below /proc/sys/net in a namespace; 0 where there is no such file.

        Shell:
            ip netns exec NETNS sysctl net.ipv4.ip_forward
        """

        def read() -> int:
            try:
                return int(Path("/proc/sys/net", key).read_text())
            except (OSError, ValueError):
                return 0

        return netlink.within(self.paths.get(netns), read)

    def netns_at(self, inode: int) -> str:
        """Return the name of a namespace by its number.

        Raises:
            LabError: it has neither a name nor a process.
        """
        for state in self.states.values():
            if state.inode == inode:
                return state.name
        raise LabError(f"there is no network namespace net:[{inode}]")


def carries(link: LinkState) -> bool:
    """Whether a link that is up has a carrier: somebody at its other end."""
    return link.operstate not in _NO_CARRIER


def _way(route: NetlinkSocket, address: str, names: dict[int, str]) -> Way:
    packed = socket.inet_aton(address)
    body = struct.pack("=8BI", socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, packed)
    try:
        answer = route.request(netlink.RTM_GETROUTE, body, arguments=(address,))
    except SyscallError as error:
        return Way(refused=error.errno or errno.ENETUNREACH)
    found = attributes(answer, 12)
    (index,) = struct.unpack("=i", found.get(_RTA_OIF, bytes(4)))
    gateway = socket.inet_ntoa(found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else ""
    return Way(names.get(index, ""), gateway, answer[7] == _RTN_LOCAL)


def _contains(text: str, address: str) -> bool:
    network = ipaddress.ip_interface(text).network
    return network.version == 4 and ipaddress.ip_address(address) in network
