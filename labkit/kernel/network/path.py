"""The path of one packet: where it was seen, in the order of time, and what its addresses were there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labkit.kernel.network.capture import Frame
from labkit.kernel.network.frames import Packet
from labkit.kernel.network.probe import Probe


@dataclass(frozen=True)
class Hop:
    """One place at which the packet was seen.

    Attributes:
        netns: name of the network namespace.
        title: how that is called: the name of a container, if one is known.
        ifname: the link.
        outgoing: whether the packet left by it; else it came in.
        source: its address there.
        destination: its address there, with the port of TCP.
        vni: the number of the VXLAN that it was carried in; None outside of one.
        met: what it met in the packet filter after this, as (hook, rule or policy).
        then: what else happened to it, such as a program that took it; "".
    """

    netns: str
    title: str
    ifname: str
    outgoing: bool
    source: str
    destination: str
    vni: int | None = None
    met: tuple[tuple[str, str], ...] = ()
    then: str = ""


@dataclass(frozen=True)
class PacketPath:
    """What came of a packet that was followed.

    Attributes:
        protocol: "tcp" or "icmp".
        origin: the namespace that sent it, as it is called.
        destination: whom it was sent to, with the port of TCP.
        request: where it was seen on its way there.
        answer: where its answer was seen on its way back.
        answered: whether the sender got an answer that says yes.
        fault: what is wrong, in one or two words that are always the same, such as "link down"; "" where nothing is.
        where: the link and the namespace at which it stops; "" where nothing is wrong.
        cause: what was measured there, in a sentence; "" where nothing is wrong.
    """

    protocol: str
    origin: str
    destination: str
    request: tuple[Hop, ...] = ()
    answer: tuple[Hop, ...] = ()
    answered: bool = False
    fault: str = ""
    where: str = ""
    cause: str = ""

    def __bool__(self) -> bool:
        return self.answered and not self.fault

    @property
    def hops(self) -> tuple[Hop, ...]:
        """There and back."""
        return self.request + self.answer

    @property
    def verdict(self) -> str:
        """What came of it, in one line."""
        if not self.fault:
            return "answered" if self.answered else "no answer, and nothing was found that keeps one back"
        return f"{'answered, and yet ' if self.answered else ''}{self.fault}: {self.where}" if self.where else self.fault


@dataclass(frozen=True)
class Trail:
    """The frames in which a packet was seen: of each place the first, by time."""

    frames: tuple[Frame, ...]
    packets: tuple[Packet, ...]
    """Of each frame, the packet itself: inside of a VXLAN, the inner one."""

    def __bool__(self) -> bool:
        return bool(self.frames)

    @property
    def last(self) -> Frame:
        """Where it was seen last."""
        return self.frames[-1]


def trail(frames: Iterable[Frame], is_it: Callable[[Packet], bool]) -> Trail:
    """Return where a packet was seen.

    Args:
        frames: by time.
        is_it: tells the packet from others.
    """
    found: dict[tuple[str, str, bool], tuple[Frame, Packet]] = {}
    for frame in frames:
        for packet in frame.packet.all():
            if is_it(packet):
                found.setdefault((frame.netns, frame.ifname, frame.outgoing), (frame, packet))
    return Trail(tuple(frame for frame, _ in found.values()), tuple(packet for _, packet in found.values()))


def hops(seen: Trail, title: Callable[[str], str]) -> list[Hop]:
    """Return the places of a trail."""
    return [_hop(frame, packet, title(frame.netns)) for frame, packet in zip(seen.frames, seen.packets, strict=True)]


def _hop(frame: Frame, packet: Packet, title: str) -> Hop:
    outer = frame.packet.vxlan
    source, destination = ends(packet)
    vni = outer.vni if outer is not None and packet is not frame.packet else None
    return Hop(frame.netns, title, frame.ifname, frame.outgoing, source, destination, vni)


def ends(packet: Packet) -> tuple[str, str]:
    """Return the addresses of a packet, each with its port where that is not one chosen by chance."""
    if packet.ip is None:
        return "", ""
    if packet.tcp is None:
        return packet.ip.source, packet.ip.destination
    if "ACK" in packet.tcp.flags:  # the answer: the port of the service is its source
        return f"{packet.ip.source}:{packet.tcp.source}", packet.ip.destination
    return packet.ip.source, f"{packet.ip.destination}:{packet.tcp.destination}"


def told(probe: Probe) -> str:
    """Return whom a probe was sent to."""
    return f"{probe.destination}:{probe.port}" if probe.protocol == "tcp" else probe.destination
