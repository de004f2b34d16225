"""Network namespaces with what goes over their links.

One multicast socket in this process's namespace hears of links and addresses here and in each namespace that has a number here
(NETLINK_LISTEN_ALL_NSID); a veth's other end is heard of by the carrier of this one. No socket is kept in another namespace: it
would keep that alive. What is told by nobody is polled: the counters, and the namespaces that nothing here knows a number of.
See: rtnetlink(7), netlink(7)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from labkit.kernel.live.frame import Member, Network, Traffic
from labkit.kernel.network import netlink, reading
from labkit.kernel.network.messages import IFF_LOWER_UP, IFF_UP, Link
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.state import NamespaceState, NetworkState

REST = 2.0
"""Seconds after which addresses and the ends of cables are read, also where nothing told of a change."""

_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_SOL_NETLINK, _LISTEN_ALL_NSID = 270, 8
_RX_BYTES, _TX_BYTES = 2, 3
_Counted = dict[tuple[int, int], tuple[int, int, float]]


class Networks:
    """The network namespaces that have a name or a process.

    Args:
        run: where the names are.
    """

    def __init__(self, run: str = reading.NETNS_RUN) -> None:
        self._run = run
        self._home = os.stat("/proc/self/ns/net").st_ino
        self._heard = True
        self._read_at = -REST
        self._seen: dict[int, tuple[tuple[object, ...], ...]] = {}
        self._counted: _Counted = {}
        self.rows: MappingProxyType[str, Network] = MappingProxyType({})
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, netlink.NETLINK_ROUTE)
        self.socket.bind((0, _GROUPS))
        with suppress(OSError):  # without it, what is told is of this namespace
            self.socket.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)

    def take_events(self) -> bool:
        """Take what the kernel tells of links and addresses."""
        with suppress(BlockingIOError):
            while True:
                try:
                    self.socket.recv(1 << 16)
                except BlockingIOError:
                    raise
                except OSError:
                    pass  # ENOBUFS: some were dropped, and all is read anyway
                self._heard = True
        return self._heard

    def refresh(self, now: float, processes: Mapping[str, Member]) -> bool:
        """Read the counters, and all the rest where something told of a change; return whether anything did change."""
        places = self._places(processes)
        read = self._links(places)
        seen = {inode: tuple(map(_looks, links)) for inode, links in read.items()}
        whole = self._heard or seen != self._seen or now - self._read_at > REST
        states = self._states(places) if whole else {int(key): row.state for key, row in self.rows.items()}
        if whole:
            self._heard, self._read_at, self._seen = False, now, seen
        rows = {str(inode): Network(state, self._traffic(inode, read.get(inode, ()), now)) for inode, state in states.items()}
        kept = {key: old if (old := self.rows.get(key)) == row else row for key, row in rows.items()}
        self._counted = {key: value for key, value in self._counted.items() if key[0] in read}
        if kept.keys() == self.rows.keys() and all(self.rows[key] is row for key, row in kept.items()):
            return False
        self.rows = MappingProxyType(kept)
        return True

    def _places(self, processes: Mapping[str, Member]) -> dict[int, str]:
        """Return where the namespaces are: inode to a file, a name before a process."""
        found: dict[int, str] = {}
        device = os.stat("/proc/self/ns/net").st_dev
        with suppress(OSError):
            for name in sorted(os.listdir(self._run)):
                if inode := reading.namespace_inode(f"{self._run}/{name}", device):
                    found.setdefault(inode, f"{self._run}/{name}")
        for row in processes.values():
            inode = dict(row.namespaces).get("net", 0) if "net" in row.own else 0
            if inode and inode not in found:
                found[inode] = f"/proc/{row.pid}/ns/net"
        found.pop(self._home, None)
        return found

    def _links(self, places: Mapping[int, str]) -> dict[int, Sequence[Link]]:
        wanted: list[tuple[int, str | None]] = [(self._home, None), *places.items()]

        def read(_: int) -> tuple[int, list[Link]]:
            with NetlinkSocket() as route:
                return os.stat("/proc/thread-self/ns/net").st_ino, reading.links(route)

        return dict(one for one in netlink.through([path for _, path in wanted], read) if one)

    def _states(self, places: Mapping[int, str]) -> dict[int, NetworkState]:
        wanted = [NamespaceState("net", inode, path=path) for inode, path in places.items()]
        found = reading.states(wanted, run=Path(self._run), rules=False, patience=0)
        return {state.inode: replace(state, rules=()) for state in found}

    def _traffic(self, inode: int, links: Sequence[Link], now: float) -> tuple[Traffic, ...]:
        found = []
        for link in links:
            key = (inode, link.state.index)
            received, sent = (link.counters[_RX_BYTES], link.counters[_TX_BYTES]) if link.counters else (0, 0)
            before = self._counted.get(key, (received, sent, now))
            passed = max(now - before[2], 1e-3)
            self._counted[key] = (received, sent, now)
            state = "down" if not link.flags & IFF_UP else "up" if link.flags & IFF_LOWER_UP else "no carrier"
            found.append(Traffic(link.state.ifname, state, round((received - before[0]) / passed), round((sent - before[1]) / passed)))
        return tuple(found)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def _looks(link: Link) -> tuple[object, ...]:
    """Return what of a link tells that more than its counters changed."""
    return link.state.index, link.state.ifname, link.flags, link.master, link.link
