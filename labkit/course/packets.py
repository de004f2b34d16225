"""The verbs of a lab that look at packets: capture frames, and follow one packet from link to link."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace

from labkit import runtimes, show
from labkit.course.stores import Stores
from labkit.course.targets import HasPid, Target, target
from labkit.errors import LabError
from labkit.kernel import network
from labkit.kernel.network import NetworkNamespace, places
from labkit.kernel.network import capture as capturing
from labkit.kernel.network import follow as following
from labkit.kernel.network.capture import Capture, Frame
from labkit.kernel.network.path import Hop, PacketPath
from labkit.kernel.state import NetworkState
from labkit.kernel.xray.containers import containers
from labkit.kernel.xray.machine import Machine
from labkit.kernel.xray.network import docker_proxy
from labkit.show import View

Source = Target | NetworkNamespace | None
"""Who sends a packet: a named network namespace or a thing that `xray` takes; None is the host."""


class FollowedPacket:
    """What came of a packet that was followed; True as a condition if it was answered and nothing is wrong.

    Attributes:
        path: the record.
        view: how it is shown.
    """

    def __init__(self, record: PacketPath, view: View) -> None:
        self.path, self.view = record, view

    @property
    def answered(self) -> bool:
        """Whether the sender got an answer that says yes."""
        return self.path.answered

    @property
    def fault(self) -> str:
        """What is wrong, in one or two words, such as "bridge down"; "" where nothing is."""
        return self.path.fault

    @property
    def where(self) -> str:
        """Where it stops, such as "br0 in host"; "" where nothing is wrong."""
        return self.path.where

    @property
    def cause(self) -> str:
        """What was measured there, in a sentence; "" where nothing is wrong."""
        return self.path.cause

    @property
    def hops(self) -> tuple[Hop, ...]:
        """Where it was seen, there and back."""
        return self.path.hops

    @property
    def links(self) -> tuple[str, ...]:
        """The links at which it was seen on its way there, such as "br0 in host"."""
        return tuple(f"{hop.ifname} in {hop.title}" for hop in self.path.request if hop.ifname)

    def addresses(self) -> tuple[str, ...]:
        """Return what its addresses were on the way there, "SOURCE > DESTINATION", each once."""
        return tuple(dict.fromkeys(f"{hop.source} > {hop.destination}" for hop in self.path.request))

    def __bool__(self) -> bool:
        return bool(self.path)

    def __str__(self) -> str:
        return self.view.text

    __repr__ = __str__

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return dict(self.view._repr_mimebundle_())


class Seen:
    """The frames that were captured, shown as a table.

    Attributes:
        capture: the record.
    """

    def __init__(self, capture: Capture) -> None:
        self.capture = capture

    @property
    def frames(self) -> tuple[Frame, ...]:
        """All of them, by time."""
        return self.capture.frames

    @property
    def view(self) -> View:
        """A row a frame of IPv4 or ARP."""
        return self.of("vxlan", "tcp", "udp", "icmp", "ip", "arp")

    def of(self, *protocols: str) -> View:
        """Show the frames of some protocols alone: "arp", "icmp", "tcp", "udp", "vxlan"."""
        return show.frames_view(self.capture.of(*protocols))

    def told(self, *protocols: str) -> tuple[str, ...]:
        """Return what the frames say, in words, each once; of some protocols alone, or of all."""
        frames = self.capture.of(*protocols) if protocols else self.frames
        return tuple(dict.fromkeys(frame.packet.told for frame in frames))

    def __str__(self) -> str:
        return self.view.text

    __repr__ = __str__

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return dict(self.view._repr_mimebundle_())


class Packets(Stores):
    """What a lab can tell of packets."""

    def follow(self, destination: str, source: Source = None, *, rules: bool = True) -> FollowedPacket:
        """Send a packet, follow it and its answer from link to link, and where it stops measure why. Nothing is changed by that.

        Shell: labkit follow DESTINATION --from SOURCE

        Args:
            destination: "192.168.1.2" sends an echo request, "127.0.0.1:8080" opens a connection and closes it.
            source: a network namespace or its name, a container, a process; None is the host.
            rules: show the rules that it met as they are listed; else only what they do, which is the same everywhere.

        Raises:
            LabError: no IPv4 address, or nothing is called as the source.
        """
        return follow(destination, source, self.started, rules=rules)

    @contextmanager
    def capture(self, *ifnames: str, netns: Source = None) -> Iterator[Seen]:
        """Capture frames while a block runs: `with lab.capture("br0") as seen:`, then `seen` is their table.

        Shell: tcpdump -i IFNAME

        Args:
            ifnames: links; all of the namespace by default.
            netns: where: as for `follow`.

        Raises:
            LabError: nothing is called as the namespace, or it has no such link.
        """
        title, where = _place(netns, self.started, Machine)
        there = {link.ifname for link in network.links(where)}
        for ifname in ifnames:
            if ifname not in there:
                raise LabError(f"{title} has no link {ifname}", cause=f"it has {', '.join(sorted(there))}")
        with capturing.Capture({title: places.place(where).path}, ifnames) as captured:
            yield Seen(captured)


def follow(destination: str, source: Source = None, started: Mapping[str, HasPid] | None = None, *, rules: bool = True) -> FollowedPacket:
    """Follow a packet, as `Packets.follow`.

    Args:
        destination: whom it is sent to.
        source: who sends it.
        started: the processes of a lab.
        rules: show the rules as they are listed.
    """
    following.parse(destination)
    machine = Machine()
    _, where = _place(source, started or {}, lambda: machine)
    titles = _titles(machine)
    found = following.follow(destination, where, titles=titles, relays=_relays(machine), typed=source if isinstance(source, str) else "")
    return FollowedPacket(found, show.path_view(found, _networks(found, titles), rules=rules))


def _place(source: Source, started: Mapping[str, HasPid], machine: object) -> tuple[str, NetworkNamespace | str | int | None]:
    """Return how a network namespace is called, and where it is: a name of one comes before that of a container."""
    if source is None or source == "host":
        return "host", None
    if isinstance(source, NetworkNamespace):
        return source.name, source
    if isinstance(source, str) and source in network.names():
        return source, source
    name, pid = target(source, started, machine() if callable(machine) else Machine())
    return name, pid


def _titles(machine: Machine) -> dict[int, str]:
    """Return what the network namespaces of containers are called, by their number; those with a name under /run/netns keep it."""
    host = os.stat("/proc/self/ns/net").st_ino
    named = {os.stat(NetworkNamespace(name).path).st_ino for name in network.names()}
    titles: dict[int, str] = {}
    known = [(each.pid, each.name) for each in runtimes.containers() if each.pid]
    for pid, name in [*known, *((each.pid, each.names[0]) for each in containers(machine) if each.names)]:
        with suppress(OSError):
            inode = os.stat(f"/proc/{pid}/ns/net").st_ino
            if inode not in named and inode != host:
                titles.setdefault(inode, name)
    return titles


def _relays(machine: Machine) -> list[following.Relay]:
    found = [(machine.inode(member.pid, "net"), docker_proxy(member)) for member in machine.called("docker-proxy")]
    return [(inode, mapping) for inode, mapping in found if inode and mapping]


def _networks(found: PacketPath, titles: Mapping[int, str]) -> list[NetworkState]:
    """Return what the picture shows: of the namespaces on the way, the links on the way, their bridges and their other ends."""
    states = network.states(rules=False)
    called = {state.name: titles.get(state.inode, state.name) for state in states}
    visited = {hop.title for hop in found.hops} | {name for name in called.values() if found.where.endswith(f" in {name}")}
    passed = {(hop.title, hop.ifname) for hop in found.hops}
    chosen = []
    for state in states:
        if (name := called[state.name]) in visited:
            links = [replace(link, peer=(called[link.peer[0]], link.peer[1]) if link.peer else None) for link in state.links]
            masters = {link.master for link in links if (name, link.ifname) in passed}
            kept = tuple(
                link
                for link in links
                if (name, link.ifname) in passed
                or link.ifname in masters
                or (link.peer and link.peer[0] in visited)
                or found.where == f"{link.ifname} in {name}"
            )
            routes = tuple(route for route in state.routes if route.ifname in {link.ifname for link in kept})
            chosen.append(replace(state, name=name, links=kept, routes=routes))
    return chosen


