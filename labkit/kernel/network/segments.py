"""The segments of a path between two that look at addresses of IP: whether one alone has each address, and whether large packets pass."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from labkit.kernel.network import link_causes, probe
from labkit.kernel.network.capture import Capture
from labkit.kernel.network.case import Case
from labkit.kernel.network.link_causes import Stop
from labkit.kernel.network.path import Trail, trail
from labkit.kernel.network.topology import End, Topology

_VIRTUAL = ("veth", "bridge", "macvlan", "ipvlan", "vxlan", "vlan")
_REPLY_SECONDS = 0.25
_LARGE_SECONDS = 0.5


@dataclass(frozen=True)
class Segment:
    """From a link that leads to an address, to the link that has it."""

    start: End
    finish: End
    address: str
    back: str


def asks(case: Case) -> set[tuple[str, str, str]]:
    """Return for whom each namespace on the way has to know a MAC address: (namespace, link, address)."""
    topology, found = case.topology, set()
    for netns, address in _routed(case):
        way = topology.way(netns, address)
        end = topology.end(netns, way.ifname)
        if end and not way.local and end.link.kind in _VIRTUAL and end.link.up:
            found.add((netns, way.ifname, way.gateway or address))
    return found


def _routed(case: Case) -> Iterator[tuple[str, str]]:
    """Yield which namespaces send the packet, or its answer, to which address."""
    yield case.origin, case.probe.destination
    for number, frame in enumerate(case.request.frames):
        packet = case.request.packets[number]
        if case.is_port(frame) or packet.ip is None:
            continue
        if frame.outgoing:
            yield frame.netns, packet.ip.destination
        else:
            yield frame.netns, case.routed_to(case.request, number)[0]
            yield frame.netns, packet.ip.source


def duplicates(case: Case, capture: Capture) -> Stop | None:
    """Ask for each neighbour of the path, and return that several answered for one."""
    asked = asks(case)
    for netns, ifname, address in asked:
        probe.ask(case.topology.paths.get(netns), ifname, address)
    deadline = time.monotonic() + _REPLY_SECONDS
    while time.monotonic() < deadline:  # one that would answer second gives no sign before
        time.sleep(0.02)
    frames = capture.frames
    found = (link_causes.duplicate(case.topology, frames, *one) for one in sorted(asked))
    return next((stop for stop in found if stop), None)


def of(case: Case) -> list[Segment]:
    """Return the segments of a path whose both ends are in sight."""
    looking = [number for number, frame in enumerate(case.request.frames) if not case.is_port(frame)]
    found = []
    for one, other in pairwise(looking):
        start, finish = case.request.frames[one], case.request.frames[other]
        packet = case.request.packets[one]
        here, there = case.end(start), case.end(finish)
        if start.outgoing and not finish.outgoing and start.netns != finish.netns and here and there and packet.ip:
            address = case.topology.way(start.netns, packet.ip.destination).gateway or packet.ip.destination
            back = case.topology.way(finish.netns, packet.ip.source).gateway or packet.ip.source
            found.append(Segment(here, there, address, back))
    return [one for one in found if case.topology.has(one.finish.netns, one.address)]


def too_large(case: Case, capture: Capture) -> Stop | None:
    """Send packets as large as each end of each segment may send, and return where one is lost that must not be cut."""
    for one in of(case):
        for start, finish, address in ((one.start, one.finish, one.address), (one.finish, one.start, one.back)):
            if case.topology.has(finish.netns, address) and (stop := _lost(case.topology, capture, start, address)):
                return stop
    return None


def _lost(topology: Topology, capture: Capture, start: End, address: str) -> Stop | None:
    path, size = topology.paths.get(start.netns), start.link.mtu
    small = probe.echo(path, address, patience=_LARGE_SECONDS)
    if small.outcome:
        return None  # echo requests are kept back here: then a large one says nothing
    large = probe.echo(path, address, size, patience=_LARGE_SECONDS)
    if not large.outcome:
        return None
    frames = capture.frames
    there, lost = trail(frames, small.is_request), trail(frames, large.is_request)
    if len(lost.frames) == len(there.frames):  # the answer, which is as large
        there, lost = trail(frames, small.is_answer), trail(frames, large.is_answer)
    return _mtu(topology, size, there, lost)


def _mtu(topology: Topology, size: int, there: Trail, lost: Trail) -> Stop | None:
    if not lost or len(lost.frames) >= len(there.frames):
        return None
    last, never = lost.last, there.frames[len(lost.frames)]
    one, other = topology.end(last.netns, last.ifname), topology.end(never.netns, never.ifname)
    if one is None or other is None:
        return None
    why = f"a packet of {size} bytes that must not be cut was seen at {topology.called(one)} (mtu {one.link.mtu})"
    return Stop("wrong MTU", topology.called(other), f"{why}, and not at {topology.called(other)} (mtu {other.link.mtu}); small ones pass")
