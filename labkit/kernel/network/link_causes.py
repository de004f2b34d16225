"""Why a frame does not come from one link to the next: links that are down, ports not plugged in, neighbours that do not answer."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.kernel.network.capture import Frame
from labkit.kernel.network.frames import Packet
from labkit.kernel.network.path import trail
from labkit.kernel.network.topology import End, Topology, carries

NO_NEIGHBOUR = "no neighbour"


@dataclass(frozen=True)
class Stop:
    """Where a packet stops, and why.

    Attributes:
        fault: one or two words that are always the same.
        where: the link or chain and the namespace.
        cause: what was measured, in a sentence.
    """

    fault: str
    where: str
    cause: str


def down(topology: Topology, end: End) -> Stop | None:
    """Return that a link is down or has no carrier; None where neither is so."""
    called, what = topology.called(end), "bridge" if end.link.kind == "bridge" else "link"
    if not end.link.up:
        return Stop(f"{what} down", called, f"{what} {called} is down")
    other = topology.peer(end)
    if other is not None:  # what the kernel says of its carrier follows by and by
        why = f"link {topology.called(other)} is down, so its other end {called} has no carrier"
        return None if other.link.up else Stop("link down", topology.called(other), why)
    if end.link.kind == "bridge":
        return without_ports(topology, end)
    return None if carries(end.link) else Stop("no carrier", called, f"link {called} is up without a carrier")


def without_ports(topology: Topology, bridge: End) -> Stop | None:
    """Return why a bridge carries nothing, by its ports; None where one of them could."""
    called, ports = topology.called(bridge), topology.ports(bridge)
    if not ports:
        return Stop("not plugged in", called, f"bridge {called} has no ports: nothing is plugged into it")
    found = [down(topology, port) for port in ports]
    return found[0] if all(found) else None


def after(topology: Topology, last: Frame, target: str) -> Stop | None:
    """Return why a frame for `target` was seen at a link and not at the next; None where the link leads on as it should.

    Args:
        topology: the links.
        last: where it was seen last: it left there, or came in at a port of a bridge.
        target: the address that the frame is for, on this link.
    """
    end = topology.end(last.netns, last.ifname)
    if end is None:
        return Stop("link gone", f"{last.ifname} in {topology.title(last.netns)}", f"link {last.ifname} has gone meanwhile")
    bridge = end if end.link.kind == "bridge" else topology.bridge_of(end)
    if last.outgoing and end.link.kind != "bridge":
        other = topology.peer(end)
        if other is not None and (found := down(topology, other)):
            return found
    return _across(topology, bridge, target) if bridge else None


def _across(topology: Topology, bridge: End, target: str) -> Stop | None:
    """Return why a bridge does not bring a frame to the link that has an address."""
    if not bridge.link.up:
        return down(topology, bridge)
    for owner in topology.owners(target):
        if owner == bridge:
            continue
        found = down(topology, owner) or _unplugged(topology, bridge, owner)
        if found:
            return found
    return without_ports(topology, bridge)


def _unplugged(topology: Topology, bridge: End, owner: End) -> Stop | None:
    port = topology.peer(owner)
    if port is None or port.netns != bridge.netns:
        return None
    if port.link.master != bridge.link.ifname:
        where = f"into {port.link.master}" if port.link.master else "into no bridge"
        why = f"{topology.called(port)}, the other end of {topology.called(owner)}, is plugged {where}, and not into {bridge.link.ifname}"
        return Stop("not plugged in", topology.called(port), why)
    return down(topology, port)


def unanswered(topology: Topology, frames: tuple[Frame, ...], netns: str, ifname: str, address: str,
               *, gateway: bool) -> Stop | None:  # fmt: skip
    """Return why a namespace gets no MAC address for a neighbour; None where it did not ask, or was answered.

    Args:
        topology: the links.
        frames: all that was seen.
        netns: who asks.
        ifname: by which link.
        address: for whom.
        gateway: whether it is the next router.
    """

    def is_question(packet: Packet) -> bool:
        return packet.arp is not None and packet.arp.operation == "request" and packet.arp.target == address

    def is_reply(packet: Packet) -> bool:
        return packet.arp is not None and packet.arp.operation == "reply" and packet.arp.sender == address

    asked = [frame for frame in trail(frames, is_question).frames if frame]
    replies = trail(frames, is_reply)
    if not any((frame.netns, frame.ifname, frame.outgoing) == (netns, ifname, True) for frame in asked):
        return None
    if any((frame.netns, frame.ifname, frame.outgoing) == (netns, ifname, False) for frame in replies.frames):
        return None
    if replies:
        return after(topology, replies.last, _asker(topology, netns, ifname))
    return _silent(topology, asked, netns, ifname, address, gateway=gateway)


def _silent(topology: Topology, asked: list[Frame], netns: str, ifname: str, address: str, *, gateway: bool) -> Stop:
    owners = topology.owners(address)
    for frame in reversed(asked):
        if any((frame.netns, frame.ifname) == (owner.netns, owner.link.ifname) for owner in owners):
            break  # it was heard by whom it was for
        if (frame.outgoing or topology.end(frame.netns, frame.ifname)) and owners and (found := after(topology, frame, address)):
            return found
    if not owners and (found := _cut_off(topology, asked)):
        return found
    where = f"{ifname} in {topology.title(netns)}"
    if gateway and not owners:
        why = f"the route of {topology.title(netns)} goes by {address}, and nobody on {where} answers for that address"
        return Stop("wrong gateway", where, why)
    heard = [end for frame in asked if not frame.outgoing and (end := topology.end(frame.netns, frame.ifname)) and end.link.addresses]
    others = ", ".join(dict.fromkeys(f"{topology.called(end)} has {end.link.addresses[0]}" for end in heard))
    why = f"nobody on {where} answers for {address}" + (f"; {others}" if others else "")
    return Stop(NO_NEIGHBOUR, where, why)


def _cut_off(topology: Topology, asked: list[Frame]) -> Stop | None:
    """Return what keeps a question for an address that nobody in sight has from getting far."""
    last = asked[-1]
    end = topology.end(last.netns, last.ifname)
    if end is None:
        return None
    if last.outgoing and end.link.kind == "veth":
        other = topology.peer(end)
        return down(topology, other) if other else None
    bridge = end if end.link.kind == "bridge" else topology.bridge_of(end)
    if bridge is None:
        return None
    if not bridge.link.up:
        return down(topology, bridge)
    return without_ports(topology, bridge)


def _asker(topology: Topology, netns: str, ifname: str) -> str:
    end = topology.end(netns, ifname)
    addresses = [text.split("/")[0] for text in (end.link.addresses if end else ()) if ":" not in text]
    return addresses[0] if addresses else ""


def duplicate(topology: Topology, frames: tuple[Frame, ...], netns: str, ifname: str, address: str) -> Stop | None:
    """Return that several answered for one address on a link."""
    macs = {
        frame.packet.arp.sender_mac
        for frame in frames
        if (frame.netns, frame.ifname, frame.outgoing) == (netns, ifname, False)
        and frame.packet.arp
        and frame.packet.arp.operation == "reply"
        and frame.packet.arp.sender == address
    }
    if len(macs) < 2:
        return None
    having = [topology.called(end) for end in topology.ends() if end.link.mac in macs]
    where = f"{ifname} in {topology.title(netns)}"
    why = f"{len(macs)} MAC addresses answer for {address}" + (f": those of {' and '.join(sorted(having))}" if having else "")
    return Stop("duplicate address", where, why)
