"""Capture frames in network namespaces by packet sockets, with the time at which the kernel saw each. See: packet(7), tcpdump(8)."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from labkit.kernel.network import netlink
from labkit.kernel.network.frames import Packet, decode

_ETH_P_ALL = 0x0003
_PACKET_OTHERHOST, _PACKET_OUTGOING = 3, 4
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPING = 37
_RX_SOFTWARE, _SOFTWARE = 1 << 3, 1 << 4
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER = 8 << 20
_LARGEST = 1 << 17
_STAMP_SECONDS = 2.0
_TIMES = struct.Struct("=6q")


@dataclass(frozen=True)
class Frame:
    """One frame where it was seen.

    Attributes:
        netns: of the network namespace, as the capture was told to call it.
        ifname: of the link.
        time: nanoseconds since the epoch, by the kernel, on the clock of the machine.
        outgoing: whether it left by the link; else it came in.
        foreign: whether it came in for another MAC address than the link's.
        length: bytes.
        packet: what it says.
    """

    netns: str
    ifname: str
    time: int
    outgoing: bool
    foreign: bool
    length: int
    packet: Packet


class Capture:
    """Packet sockets in several network namespaces: what was seen since `start`, in the order of time.

    A packet socket gets each frame twice where it passes two links, and changes nothing about it. The sockets are closed at the
    end of the block: an open one would keep its namespace alive.

    Args:
        places: name of a namespace to its file; None for the file of the one that this process is in.
        ifnames: only these links; none for all of a namespace.
    """

    def __init__(self, places: Mapping[str, str | None], ifnames: Sequence[str] = ()) -> None:
        self.places = dict(places)
        self.ifnames = tuple(ifnames)
        self.lost = 0
        self._frames: list[Frame] = []
        self._sockets: list[tuple[str, socket.socket]] = []

    def __enter__(self) -> Capture:
        try:
            for name, path in self.places.items():
                for ifname in self.ifnames or ("",):
                    self._sockets.append((name, netlink.within(path, partial(_open, ifname))))
            _await_stamps()
        except BaseException:
            self._close()
            raise
        self._read()  # what came before the kernel put times on frames
        self._frames.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._read()
        self._close()

    @property
    def frames(self) -> tuple[Frame, ...]:
        """What was seen until now, by time."""
        self._read()
        return tuple(sorted(self._frames, key=lambda frame: frame.time))

    def of(self, *protocols: str) -> tuple[Frame, ...]:
        """Return the frames of some protocols: "arp", "icmp", "tcp", "udp", "vxlan"."""
        return tuple(frame for frame in self.frames if frame.packet.protocol in protocols)

    def _read(self) -> None:
        for name, one in self._sockets:
            while frame := _received(name, one):
                self._frames.append(frame)

    def _close(self) -> None:
        for _, one in self._sockets:
            with suppress(OSError):
                self.lost += struct.unpack("=II", one.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
            one.close()
        self._sockets.clear()


def _open(ifname: str) -> socket.socket:
    """Open a packet socket in the namespace of this thread.

    Raises:
        OSError: ENODEV where there is no such link.
    """
    every = 0 if ifname else socket.htons(_ETH_P_ALL)  # of all links of the namespace from the first moment, or of none until it is bound
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, every)
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
        if ifname:
            one.bind((ifname, _ETH_P_ALL))
    except BaseException:
        one.close()
        raise
    return one


def _received(name: str, one: socket.socket) -> Frame | None:
    """Return the next frame that is there; None without one."""
    try:
        data, ancillary, _, address = one.recvmsg(_LARGEST, 512)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.ENETDOWN:
            raise
        return _received(name, one)  # told once when a link goes down; what came before is still there
    ifname, kind = address[0], address[2]
    when = _stamp(ancillary) or time.time_ns()
    return Frame(name, ifname, when, kind == _PACKET_OUTGOING, kind == _PACKET_OTHERHOST, len(data), decode(data))


def _stamp(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPING) and len(data) >= _TIMES.size:
            seconds, nanoseconds, *_ = _TIMES.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return 0


def _await_stamps() -> None:
    """Wait until the kernel puts the time on each frame: it begins in a work queue, some frames after it was asked to.

    Without an address of loopback to try it with, nothing is waited for: then frames bear the time at which they were read.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _RX_SOFTWARE | _SOFTWARE)
        one.settimeout(_STAMP_SECONDS)
        one.bind(("127.0.0.1", 0))
        deadline = time.monotonic() + _STAMP_SECONDS
        while time.monotonic() < deadline:
            one.sendto(b"", one.getsockname())
            if _stamp(one.recvmsg(1, 512)[1]):
                return
