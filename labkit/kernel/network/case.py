"""What is known of one packet that was followed, before anybody says why it stopped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from labkit.kernel.network import rules
from labkit.kernel.network.capture import Frame
from labkit.kernel.network.path import Hop, Trail, hops
from labkit.kernel.network.probe import Probe
from labkit.kernel.network.rules import Met, Passing, RuleSet
from labkit.kernel.network.topology import End, Topology

_DNAT = re.compile(r"\bdnat(?: ip)? to ([\d.]+)(?::(\d+))?")


def without_copies(topology: Topology, seen: Trail) -> Trail:
    """Return a trail without the copies that a bridge sends to all of its ports: they come in for another MAC address, and end there."""
    ends = [topology.end(frame.netns, frame.ifname) for frame in seen.frames]
    copies = [end for frame, end in zip(seen.frames, ends, strict=True) if frame.foreign and end and not topology.bridge_of(end)]
    kept = [number for number, end in enumerate(ends) if end is None or (end not in copies and topology.peer(end) not in copies)]
    return Trail(tuple(seen.frames[number] for number in kept), tuple(seen.packets[number] for number in kept))


@dataclass(frozen=True)
class Case:
    """One packet and its answer, with all that was captured and counted meanwhile.

    Attributes:
        topology: the namespaces, as they were afterwards.
        probe: what was sent.
        origin: name of the namespace that sent it.
        frames: all that was seen, by time.
        before: the rules of each namespace before it.
        after: the rules of each namespace after it.
        request: where it was seen.
        answer: where its answer was seen.
    """

    topology: Topology
    probe: Probe
    origin: str
    frames: tuple[Frame, ...]
    before: Mapping[str, RuleSet]
    after: Mapping[str, RuleSet]
    request: Trail
    answer: Trail
    _met: dict[tuple[str, str, Passing], Met] = field(default_factory=dict, compare=False)

    def met(self, netns: str, hook: str, passing: Passing) -> Met:
        """Return what a packet met at a hook of a namespace."""
        key = (netns, hook, passing)
        if key not in self._met:
            none = RuleSet()
            self._met[key] = rules.met(hook, passing, self.before.get(netns, none), self.after.get(netns, none))
        return self._met[key]

    def seen_rules(self) -> list[tuple[tuple[str, str, Passing], Met]]:
        """Return what was asked for with `met` until now: (namespace, hook, packet) and what it met."""
        return list(self._met.items())

    def end(self, frame: Frame) -> End | None:
        """Return the link at which a frame was seen."""
        return self.topology.end(frame.netns, frame.ifname)

    def is_port(self, frame: Frame) -> bool:
        """Whether a frame was seen at a port of a bridge: there nobody looks at addresses of IP."""
        end = self.end(frame)
        return end is not None and self.topology.bridge_of(end) is not None

    def passing(self, seen: Trail, number: int) -> Passing:
        """Return a packet as rules know it where it came into a namespace, or, for -1, where it was sent."""
        answer = seen is self.answer
        if number < 0:
            probe = self.probe
            if not answer:
                return Passing("", "", probe.source, probe.destination, probe.protocol, probe.port)
            source, destination = self.reversed_ends()
            return Passing("", "", source, destination, probe.protocol, answer=True)
        packet = seen.packets[self.entry(seen, number)]
        source, destination = (packet.ip.source, packet.ip.destination) if packet.ip else ("", "")
        port = 0 if answer or packet.tcp is None else packet.tcp.destination
        return Passing(seen.frames[number].ifname, "", source, destination, self.probe.protocol, port, answer)

    def entry(self, seen: Trail, number: int) -> int:
        """Return the place at which the packet came into the namespace where it is at `number`."""
        frames = seen.frames
        while number and frames[number - 1].netns == frames[number].netns and not frames[number - 1].outgoing:
            number -= 1
        return number

    def reversed_ends(self) -> tuple[str, str]:
        """Return whom the answer is from, and whom it is for, where it is sent: as the request arrived there."""
        packet = self.request.packets[-1] if self.request else None
        if packet is None or packet.ip is None:
            return self.probe.destination, self.probe.source
        return packet.ip.destination, packet.ip.source

    def before_translation(self, netns: str) -> str:
        """Return the source that the request had where it came into a namespace: to that one the answer goes from there."""
        for number, frame in enumerate(self.request.frames):
            packet = self.request.packets[number]
            if frame.netns == netns and not frame.outgoing and packet.ip:
                return packet.ip.source
        return self.probe.source

    def routed_to(self, seen: Trail, number: int) -> tuple[str, int]:
        """Return the destination, and the port, by which a namespace routes a packet that came in: after DNAT there, if there was any."""
        passing, netns = self.passing(seen, number), seen.frames[number].netns
        if passing.answer:
            origin = self.before_translation(netns)
            return (origin if self.topology.has(netns, passing.destination) else passing.destination), 0
        return self._translated(netns, "prerouting", passing)

    def _translated(self, netns: str, hook: str, passing: Passing) -> tuple[str, int]:
        for rule in self.met(netns, hook, passing).rules:
            if match := _DNAT.search(rule.verdict):
                return match[1], int(match[2] or passing.port)
        return passing.destination, passing.port

    def sent_to(self) -> tuple[str, int]:
        """Return the destination, and the port, by which the sender routes the packet: after DNAT there, if there was any."""
        passing = self.passing(self.request, -1)
        way = self.topology.way(self.origin, passing.destination)
        return self._translated(self.origin, "output", replace(passing, oifname=way.ifname))

    def told(self, seen: Trail) -> list[Hop]:
        """Return the hops of a trail, each with what the packet met after it."""
        found = hops(seen, self.topology.title)
        return [replace(hop, met=tuple(self._after(seen, number))) for number, hop in enumerate(found)]

    def sent(self, seen: Trail) -> Hop:
        """Return where it was sent, as the program has sent it, with what it met before the first link."""
        passing = self.passing(seen, -1)
        netns = self.origin if seen is self.request else self.request.last.netns
        port = f":{passing.port}" if passing.port else ""
        first = seen.frames[0] if seen and seen.frames[0].netns == netns else None
        leaving = replace(passing, oifname=first.ifname if first else self.topology.way(netns, passing.destination).ifname)
        met = [(hook, text) for hook in ("output", "postrouting") for text in self._texts(netns, hook, leaving)]
        title = self.topology.title(netns)
        return Hop(netns, title, "", outgoing=True, source=passing.source, destination=passing.destination + port, met=tuple(met))

    def _after(self, seen: Trail, number: int) -> list[tuple[str, str]]:
        """Return what a packet met after it came in at a place."""
        frame = seen.frames[number]
        if frame.outgoing or self.is_port(frame):
            return []
        passing = self.passing(seen, number)
        later = seen.frames[number + 1] if number + 1 < len(seen.frames) else None
        found = [("prerouting", passing)]
        if later and later.netns == frame.netns and later.outgoing:
            packet = seen.packets[number + 1]
            leaving = replace(passing, oifname=later.ifname, destination=packet.ip.destination if packet.ip else "",
                              port=packet.tcp.destination if packet.tcp and not passing.answer else 0)  # fmt: skip
            found += [("forward", leaving), ("postrouting", replace(leaving, iifname=""))]
        elif self.topology.has(frame.netns, passing.destination):
            found.append(("input", passing))
        return [(hook, text) for hook, one in found for text in self._texts(frame.netns, hook, one)]

    def _texts(self, netns: str, hook: str, passing: Passing) -> list[str]:
        met = self.met(netns, hook, passing)
        return [rule.text for rule in met.rules] + ([met.dropped] if met.dropped.startswith("policy") else [])
