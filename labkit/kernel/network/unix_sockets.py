"""Unix sockets: who listens where, and who is connected to whom. See: unix(7), sock_diag(7)."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from labkit.kernel.network.netlink import NetlinkSocket, attributes

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_UDIAG_SHOW_NAME, _UDIAG_SHOW_PEER, _EVERY_STATE = 0x1, 0x4, 0xFFFFFFFF
_UNIX_DIAG_NAME, _UNIX_DIAG_PEER = 0, 2
_TCP_LISTEN = 10  # unix sockets have the states of TCP
_REQUEST = struct.Struct("=BBHIIIII")
_ANSWER = struct.Struct("=BBBBI8x")


@dataclass(frozen=True)
class UnixSocket:
    """One end, as the kernel tells of it.

    Attributes:
        inode: its number, as in `/proc/PID/fd`.
        address: the path that it is bound to, an abstract name with a leading "@", or "".
        listens: whether it waits for connections.
        peer: inode of the other end of a connection; 0 where there is none.
    """

    inode: int
    address: str
    listens: bool
    peer: int


def unix_sockets() -> tuple[UnixSocket, ...]:
    """Return every unix socket of this network namespace.

    Shell: ss --unix --all

    Raises:
        SyscallError: the kernel's errno.
    """
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, _EVERY_STATE, 0, _UDIAG_SHOW_NAME | _UDIAG_SHOW_PEER, 0, 0)
    with NetlinkSocket(_NETLINK_SOCK_DIAG) as netlink:
        return tuple(map(_parse, netlink.dump(_SOCK_DIAG_BY_FAMILY, body)))


def _parse(message: bytes) -> UnixSocket:
    _, _, state, _, inode = _ANSWER.unpack_from(message)
    found = attributes(message, _ANSWER.size)
    name = found.get(_UNIX_DIAG_NAME, b"")
    address = f"@{os.fsdecode(name[1:])}" if name.startswith(b"\0") else os.fsdecode(name.rstrip(b"\0"))
    peer = int.from_bytes(found.get(_UNIX_DIAG_PEER, b""), sys.byteorder)
    return UnixSocket(inode, address, state == _TCP_LISTEN, peer)


def holders(pids: Iterable[int], proc: str = "/proc") -> Mapping[int, tuple[int, ...]]:
    """Return which of these processes hold which socket: inode to pids, ascending.

    A process that has ended, or that may not be looked into, holds none.
    """
    found: dict[int, set[int]] = {}
    for pid in pids:
        for descriptor in _descriptors(f"{proc}/{pid}/fd"):
            if descriptor.startswith("socket:["):
                found.setdefault(int(descriptor[8:-1]), set()).add(pid)
    return {inode: tuple(sorted(pids)) for inode, pids in found.items()}


def _descriptors(directory: str) -> list[str]:
    links = []
    with suppress(OSError):
        for name in os.listdir(directory):
            with suppress(OSError):
                links.append(os.readlink(f"{directory}/{name}"))
    return links
