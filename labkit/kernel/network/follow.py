"""Follow one packet: send it, see where it comes by, and where it stops measure why. Nothing in the network is changed by that.

Captures and counters alone are read. The packet is real: a connection that is opened and closed, or an echo request. Afterwards
each neighbour on the way is asked for its address, and large echo requests are sent where both ends are in sight.
"""

from __future__ import annotations

import ipaddress
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from labkit import trace
from labkit.errors import LabError
from labkit.kernel.network import causes, netlink, probe, rules, segments
from labkit.kernel.network.capture import Capture, Frame
from labkit.kernel.network.case import Case, without_copies
from labkit.kernel.network.link_causes import Stop
from labkit.kernel.network.namespace import HOST_NET
from labkit.kernel.network.nat import PortMapping
from labkit.kernel.network.path import Hop, PacketPath, told, trail
from labkit.kernel.network.places import Netns, place
from labkit.kernel.network.probe import Probe
from labkit.kernel.network.rules import RuleSet
from labkit.kernel.network.topology import Topology

Relay = tuple[int, PortMapping]
"""The number of a network namespace, and what a program in it takes and where it leads that."""


def follow(destination: str, netns: Netns = None, *, titles: Mapping[int, str] | None = None, relays: Sequence[Relay] = (),
           patience: float = probe.PATIENCE, typed: str = "") -> PacketPath:  # fmt: skip
    """Send a packet and follow it and its answer through all network namespaces of the machine.

    Args:
        destination: "192.168.1.2" sends an echo request, "127.0.0.1:8080" opens a connection.
        netns: where from.
        titles: what namespaces are called, by their number, such as the names of containers.
        relays: programs that take connections and open others instead, such as docker-proxy, each with the number of its namespace.
        patience: seconds for the answer.
        typed: how a person calls where it comes from; by default as ip(8) does.

    Raises:
        LabError: no address, or no such namespace.
        SyscallError: EPERM without CAP_NET_RAW and CAP_SYS_ADMIN.

    See: packet(7), nft(8)
    """
    address, port = parse(destination)
    where = place(netns)
    where.check_there()
    topology = Topology(titles)
    origin = topology.netns_at(os.stat(where.path or HOST_NET).st_ino)
    trace.record(f"labkit follow {destination}" + (f" --from {shlex.quote(typed) if typed else where.word}" if where.path else ""))
    before = _rules(topology)
    with Capture(topology.paths) as capture:
        sent = _send(topology.paths[origin], address, port, patience)
        relay = _relay(relays, sent, capture.frames, topology, origin)
        second = _await_second(capture, relay, patience) if relay else None
        topology = Topology(titles)  # as it is now: also what came meanwhile
        case = _case(topology, sent, origin, capture.frames, before)
        cases = [case, *([_case(topology, second, second_origin(capture.frames, second), capture.frames, before)] if second else [])]
        stop = _judge(cases, capture)
    return _path(cases, stop, relay)


def parse(destination: str) -> tuple[str, int]:
    """Return address and port, 0 for none, of "ADDRESS" or "ADDRESS:PORT".

    Raises:
        LabError: it is neither.
    """
    name, colon, port = destination.partition(":")
    address = "127.0.0.1" if name == "localhost" else name
    remedy = "write it as 192.168.1.2 or 127.0.0.1:8080"
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise LabError(f"{destination!r} cannot be followed", cause=f"{name!r} is no IPv4 address", remedy=remedy) from None
    if colon and not (port.isdecimal() and 0 < int(port) < 65536):
        raise LabError(f"{destination!r} cannot be followed", cause=f"{port!r} is no port", remedy=remedy)
    return address, int(port or 0)


def _send(path: str | None, address: str, port: int, patience: float) -> Probe:
    return probe.tcp(path, address, port, patience) if port else probe.echo(path, address, patience=patience)


def _rules(topology: Topology) -> dict[str, RuleSet]:
    names = list(topology.paths)
    found = netlink.through([topology.paths[name] for name in names], lambda _: rules.read_here())
    return {name: one or RuleSet() for name, one in zip(names, found, strict=True)}


def _relay(relays: Sequence[Relay], sent: Probe, frames: tuple[Frame, ...], topology: Topology, origin: str) -> PortMapping | None:
    """Return the program that took a connection: one that listens where it was seen last, on the address and port that it had there."""
    known = sent.seen(frames, origin)
    seen = without_copies(topology, trail(frames, known.is_request))
    if sent.outcome or not seen or seen.packets[-1].tcp is None or seen.packets[-1].ip is None:
        return None
    inode = topology.states[seen.last.netns].inode
    address, port = seen.packets[-1].ip.destination, seen.packets[-1].tcp.destination
    for where, one in relays:
        if where == inode and one.port == str(port) and one.address in (address, "0.0.0.0", ""):  # noqa: S104
            return one
    return None


def _await_second(capture: Capture, relay: PortMapping, patience: float) -> Probe | None:
    """Wait for the connection that a relay opens, until it is answered."""
    deadline = time.monotonic() + patience
    while True:
        frames = capture.frames
        found = _second(frames, relay)
        answer = trail(frames, found.is_answer) if found else None
        if found and answer and not answer.last.outgoing and answer.last.netns == second_origin(frames, found):
            reset = any(packet.tcp and "RST" in packet.tcp.flags for packet in answer.packets)
            return replace(found, outcome=causes.REFUSED if reset else 0)
        if time.monotonic() > deadline:
            return replace(found, outcome=causes.SILENT) if found else None
        time.sleep(0.01)


def _second(frames: Sequence[Frame], relay: PortMapping) -> Probe | None:
    for frame in frames:
        ip, tcp = frame.packet.ip, frame.packet.tcp
        if not frame.outgoing or ip is None or tcp is None or tcp.flags != ("SYN",):
            continue
        if (ip.destination, str(tcp.destination)) == (relay.to_address, relay.to_port):
            return Probe("tcp", ip.source, tcp.source, ip.destination, tcp.destination, sequence=tcp.sequence)
    return None


def second_origin(frames: Sequence[Frame], second: Probe) -> str:
    """Return the namespace in which a connection was seen first."""
    return trail(frames, second.is_request).frames[0].netns


def _case(topology: Topology, sent: Probe, origin: str, frames: tuple[Frame, ...], before: Mapping[str, RuleSet]) -> Case:
    known = sent.seen(frames, origin) if sent.sequence is None else sent
    request, answer = (without_copies(topology, trail(frames, is_it)) for is_it in (known.is_request, known.is_answer))
    return Case(topology, known, origin, frames, before, _rules(topology), request, answer)


def _judge(cases: Sequence[Case], capture: Capture) -> Stop | None:
    """Return what is wrong: addresses that two have, then what keeps an answer back, then what only large packets meet."""
    for case in cases:
        if found := segments.duplicates(case, capture):
            return found
    for case in cases:
        if case.probe.outcome:
            return causes.of(case)
    return next((found for case in cases if (found := segments.too_large(case, capture))), None)


def _path(cases: Sequence[Case], stop: Stop | None, relay: PortMapping | None) -> PacketPath:
    first = cases[0]
    request: list[Hop] = []
    answer: list[Hop] = []
    for case in cases:
        request += [case.sent(case.request), *case.told(case.request)]
        answer = [*case.told(case.answer), *answer]
    if relay and len(cases) > 1:
        taken = len(first.request.frames)
        by = relay.by.partition(" ")[0]
        request[taken] = replace(request[taken], then=f"{by} takes the connection, and opens one of its own")
    return PacketPath(
        protocol=first.probe.protocol,
        origin=first.topology.title(first.origin),
        destination=told(first.probe),
        request=tuple(request),
        answer=tuple(answer),
        answered=not any(case.probe.outcome for case in cases),
        fault=stop.fault if stop else "",
        where=stop.where if stop else "",
        cause=stop.cause if stop else "",
    )
