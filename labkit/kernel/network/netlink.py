"""Netlink sockets: one request and its answer, dumps and their attributes. See: netlink(7), rtnetlink(7).

Plain blocking sockets, so that a notebook cell (whose thread runs an event loop) and any other thread can use them.
A socket holds the network namespace in which it was opened alive, links and all: so none is kept open.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from labkit.errors import LabError, SyscallError
from labkit.kernel import syscalls

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_ROOT_MATCH = 0x1, 0x4, 0x10, 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_GETNEIGH, RTM_GETNSID = 30, 90
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_SO_NETNS_COOKIE = 71
_ANSWER_SECONDS = 30.0
_DUMP_TRIES = 5
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

_names = {value: name for name, value in globals().items() if name.startswith("RTM_")}
_Result = TypeVar("_Result")


class NetlinkSocket:
    """A netlink socket in the network namespace of the thread that makes it; a context manager that closes it."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        self._socket.settimeout(_ANSWER_SECONDS)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def cookie(self) -> int:
        """Return the number of this network namespace that no other ever gets; 0 before Linux 5.14.

        An inode number is free for the next namespace as soon as its own is gone; a cookie is not.

        See: socket(7), SO_NETNS_COOKIE
        """
        try:
            return int(struct.unpack("=Q", self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
        except OSError:
            return 0

    def request(self, kind: int, body: bytes, flags: int = 0, arguments: tuple[str, ...] = ()) -> bytes:
        """Send one request and wait for its acknowledgement.

        Args:
            kind: RTM_*.
            body: what follows the header.
            flags: NLM_F_* beside NLM_F_REQUEST and NLM_F_ACK.
            arguments: the request as a person would write it, for the error.

        Returns:
            The body of the answer, empty where the kernel only acknowledges.

        Raises:
            SyscallError: the kernel's errno; its own words are the cause, where it gave any.
        """
        self._send(kind, body, flags | NLM_F_REQUEST | NLM_F_ACK)
        answer = b""
        while True:
            for kind_of_answer, flags_of_answer, payload in self._receive():
                if kind_of_answer != _NLMSG_ERROR:
                    answer = payload
                    continue
                _raise(kind, flags_of_answer, payload, arguments)
                return answer

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Ask for all objects of a kind; a dump that a change cut through is asked again.

        Returns:
            The body of each message.
        """
        for _ in range(_DUMP_TRIES):
            self._send(kind, body, NLM_F_REQUEST | NLM_F_ROOT_MATCH)
            answers, whole = self._collect(kind)
            if whole:
                break
        return answers

    def _collect(self, kind: int) -> tuple[list[bytes], bool]:
        answers: list[bytes] = []
        whole = True
        while True:
            for kind_of_answer, flags, payload in self._receive():
                whole = whole and not flags & NLM_F_DUMP_INTR
                if kind_of_answer == _NLMSG_DONE:
                    return answers, whole
                if kind_of_answer == _NLMSG_ERROR:
                    _raise(kind, flags, payload, ())
                answers.append(payload)

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _receive(self) -> list[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 16)
        messages, offset = [], 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if sequence == self._sequence:  # the rest of an answer that nobody waited for is passed over
                messages.append((kind, flags, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3
        return messages


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes (type to value) that begin at `offset`."""
    found = {}
    end = len(data) - 4
    while offset <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute as it stands in a message."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def name(kind: int) -> str:
    """Return the name of a message type, such as RTM_NEWLINK."""
    return _names.get(kind, f"netlink {kind}")


def within(path: str | None, function: Callable[[], _Result]) -> _Result:
    """Call a function inside a network namespace: in a thread that is made for it and ends there.

    A thread that entered a namespace never comes back to be used again, so none can be left in the wrong one.

    Args:
        path: the namespace's file; None calls the function here.
        function: what to do there; it must be short, for Ctrl-C waits for its end.

    Raises:
        LabError: there is no such file, or it is no network namespace (any more).

    See: setns(2)
    """
    if path is None:
        return function()

    def there() -> _Result:
        _enter(path)
        return function()

    return in_thread(there)


def through(paths: Iterable[str | None], function: Callable[[int], _Result]) -> list[_Result | None]:
    """Call a function in one network namespace after the other, all in one thread as in `within`.

    Args:
        paths: the namespaces' files; None for the one of this process.
        function: what to do there; it gets the place of the namespace in `paths`.

    Returns:
        What the function returned for each; None for a namespace that is not there any more, or not ours to enter.
    """

    def visit(number: int, path: str | None) -> _Result | None:
        try:
            if path is not None or not _at_home():  # without privileges not even the own namespace may be entered
                _enter(path or "/proc/self/ns/net")
            return function(number)
        except (LabError, OSError):
            if path is None:
                raise
            return None

    return in_thread(lambda: [visit(number, path) for number, path in enumerate(paths)])


def _at_home() -> bool:
    """Whether this thread is still in the network namespace of the process."""
    return os.readlink("/proc/thread-self/ns/net") == os.readlink("/proc/self/ns/net")


def in_thread(function: Callable[[], _Result]) -> _Result:
    """Call a function in a thread of its own, wait for its end, and return or raise what it did."""
    results: list[_Result] = []
    errors: list[BaseException] = []
    ended = threading.Event()  # join() takes a thread for ended when it is interrupted (bpo-45274)

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=call, name="network namespace", daemon=True)
    thread.start()
    interrupt: KeyboardInterrupt | None = None
    while not ended.is_set():
        try:
            ended.wait()
        except KeyboardInterrupt as error:  # half an operation would be unknown to the ledger
            interrupt = error
    thread.join()
    if interrupt:
        raise interrupt
    if errors:
        raise errors[0]
    return results[0]


def _enter(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise LabError(f"there is no network namespace {path}") from error
    except OSError as error:
        raise SyscallError("open", error.errno or 0, [f'"{path}"', "O_RDONLY"]) from error
    try:
        syscalls.setns(descriptor, syscalls.CLONE_NEWNET)
    finally:
        os.close(descriptor)


def _raise(kind: int, flags: int, payload: bytes, arguments: tuple[str, ...]) -> None:
    (code,) = struct.unpack_from("=i", payload)
    if code == 0:
        return
    why: dict[str, Any] = {"see": "rtnetlink(7)"}
    if flags & _NLM_F_ACK_TLVS:
        begin = 20 if flags & _NLM_F_CAPPED else 4 + ((_HEADER.unpack_from(payload, 4)[0] + 3) & ~3)
        words = attributes(payload, begin).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")
        why["cause"] = f"the kernel says: {words}" if words else None
    raise SyscallError(name(kind), -code, arguments, **why)
