"""The process connector: a netlink socket into which the kernel puts each fork, exec, change of name and exit of this machine.

The first PID, user and network namespaces alone have it; before Linux 6.6 it asks for CAP_NET_ADMIN.
See: Documentation/driver-api/connector.rst, linux/cn_proc.h, linux/connector.h
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from labkit.errors import SyscallError, UnsupportedError

NONE, FORK, EXEC, COMM, EXIT = 0, 0x1, 0x2, 0x200, 0x80000000
"""PROC_EVENT_*; NONE is the answer to somebody's order."""

QUEUE = 16 << 20
"""Bytes that the kernel may keep for us: some ten thousand events."""

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_LISTEN, _IGNORE = 1, 2
_NLMSG_DONE = 3
_SO_RCVBUFFORCE = 33
_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_FIRST = {"pid": 4026531836, "user": 4026531837}  # inodes of the first namespaces: elsewhere the kernel does not answer
_ANSWER = 1.0  # seconds
_NO_CPU = 0xFFFFFFFF  # of an answer, in older kernels


class Message(NamedTuple):
    """One event as it comes.

    Attributes:
        what: PROC_EVENT_*.
        cpu: on which it was; None where the number is not one of those that a CPU counts up.
        number: each CPU counts its own.
        acknowledged: of an answer, one more than the number of the order.
        at: nanoseconds of the monotonic clock.
        body: what follows, by `what`.
    """

    what: int
    cpu: int | None
    number: int
    acknowledged: int
    at: int
    body: bytes


def message(data: bytes) -> Message:
    """Take a datagram of the connector apart."""
    _, _, number, acknowledged, _, _ = _MESSAGE.unpack_from(data, _HEADER.size)
    begin = _HEADER.size + _MESSAGE.size
    what, cpu, at = _EVENT.unpack_from(data, begin)
    return Message(what, None if cpu == _NO_CPU else cpu, number, acknowledged, at, data[begin + _EVENT.size :])


@contextmanager
def opened() -> Iterator[socket.socket]:
    """Open the process connector and let the kernel confirm that it tells us.

    Raises:
        UnsupportedError: it does not.
        SyscallError: EPERM without CAP_NET_ADMIN.
    """
    with _connected() as connector:
        _order(connector, _LISTEN)
        try:
            _confirm(connector)
            yield connector
        finally:
            with suppress(OSError):
                _order(connector, _IGNORE)


def _connected() -> socket.socket:
    try:
        connector = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_CONNECTOR)
    except OSError as error:
        raise UnsupportedError("the process connector", errno.errorcode.get(error.errno or 0, "?") + " of socket(NETLINK_CONNECTOR)",
                               remedy="boot a kernel with CONFIG_CONNECTOR and CONFIG_PROC_EVENTS") from error  # fmt: skip
    try:
        with suppress(OSError):  # the usual size does for what a lab starts
            connector.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, QUEUE)
        connector.bind((0, _CN_IDX_PROC))
    except OSError as error:
        connector.close()
        raise SyscallError("bind", error.errno or 0, ("NETLINK_CONNECTOR", "CN_IDX_PROC"), see="netlink(7)") from error
    return connector


def _order(connector: socket.socket, operation: int) -> None:
    body = _MESSAGE.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, os.getpid(), 4, 0) + struct.pack("=I", operation)
    try:
        connector.send(_HEADER.pack(_HEADER.size + len(body), _NLMSG_DONE, 0, 0, 0) + body)
    except ConnectionRefusedError as error:
        raise _silent("ECONNREFUSED: this network namespace has none", None) from error


def _confirm(connector: socket.socket) -> None:
    """Wait for the kernel's answer: outside of the first namespaces there is none."""
    deadline = time.monotonic() + _ANSWER
    ready = select.poll()  # select(2) knows no descriptor above 1023, and what a lab has open of cgroups goes beyond
    ready.register(connector, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and ready.poll(left * 1000):
        answer = message(connector.recv(4096))
        if answer.what == NONE and answer.acknowledged == os.getpid() + 1:
            if number := struct.unpack_from("=I", answer.body)[0]:
                raise SyscallError("send", number, ("NETLINK_CONNECTOR", "PROC_CN_MCAST_LISTEN"), see="netlink(7)")
            return
    elsewhere = [kind for kind, inode in _FIRST.items() if os.stat(f"/proc/self/ns/{kind}").st_ino != inode]
    found = [f"this {kind} namespace is not the first" for kind in elsewhere]
    raise _silent("no answer of the kernel", " and ".join(found) or None)


def _silent(found: str, cause: str | None) -> UnsupportedError:
    error = UnsupportedError("the process connector, which only the first namespaces have", found, remedy="run it outside of a container")
    error.cause = cause
    return error
