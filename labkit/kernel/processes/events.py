"""Who starts whom: each fork, exec, change of name and exit on this machine, as the kernel's process connector tells them.

The kernel puts each event into the socket before the process goes on, so that what has happened when the record is closed
stands in it. What was executed it does not tell: that is read from /proc at once, and of a process that is gone by then
there is nothing to read.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from labkit.kernel.processes import connector
from labkit.kernel.processes.calls import Call, Calls

What = Literal["fork", "exec", "comm", "exit", "call"]


@dataclass(frozen=True)
class Event:
    """One thing that a process did.

    Attributes:
        what: "fork", "exec", "comm" (it gave itself a name), "exit"; "call": it was seen connected to a daemon that began to fork.
        at: seconds since the record began, by the kernel's clock.
        pid: who did it; of a fork, who is the parent of the new process: with CLONE_PARENT that is the caller's parent.
        child: of a fork, the new process; of a call, the daemon.
        comm: its name: of exec the one after it, of comm the new one; "" where it was gone before it could be read.
        argv: its command line, of a fork the child's; empty where it was gone before it could be read.
        exe: of exec, the program's file as /proc/PID/exe has it, or "".
        status: of exit, as in subprocess: negative for a signal.
        address: of a call, the path of the daemon's socket.
    """

    what: What
    at: float
    pid: int
    child: int = 0
    comm: str = ""
    argv: tuple[str, ...] = ()
    exe: str = ""
    status: int = 0
    address: str = ""


@dataclass
class Record:
    """What happened; whole once the block that made it has ended.

    Attributes:
        roots: the processes that it is about, by name: those asked for and what they had started before, and the daemons.
        events: theirs and their descendants', in the kernel's order.
        lost: how many events of the whole machine the kernel had to drop, at least; any of them could belong here.
    """

    roots: dict[int, str] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    lost: int = 0

    @property
    def unread(self) -> int:
        """How many programs were gone before their command line could be read."""
        return sum(1 for event in self.events if event.what == "exec" and not event.argv)


@contextmanager
def execs(of: Iterable[int] = (), *, daemons: Iterable[int] = (), shims: Iterable[int] = ()) -> Iterator[Record]:
    """Record what processes start while the block runs.

    Shell:
        forkstat -e fork,exec,comm,exit

    Args:
        of: with their descendants; this process by default.
        daemons: others, whose new children belong to it where a client was seen connected to them: what is asked of a daemon it starts.
        shims: what daemons have started earlier: they are asked, and report to their daemon, which is no call.

    Raises:
        UnsupportedError: the kernel tells nothing here, with the cause where it was measured.
        SyscallError: EPERM without CAP_NET_ADMIN.
    """
    given, record = tuple(of) or (os.getpid(),), Record()
    serving = frozenset((*daemons, *shims))
    with connector.opened() as opened:
        record.roots = {pid: _comm(pid) for pid in (*_with_descendants(given), *serving)}
        listener = _Listener(opened, Calls(set(record.roots), serving, frozenset(shims)))
        begin = time.monotonic_ns()
        listener.start()
        try:
            yield record
        finally:
            calls = listener.stop()
            asked = set(record.roots) - serving | {call.daemon for call in calls}
            every = [Event("call", call.at, call.pid, call.daemon, address=call.address) for call in calls] + listener.events
            relative = (replace(event, at=(event.at - begin) / 1e9) for event in sorted(every, key=lambda event: event.at))
            record.events, record.lost = tuple(_of_family(relative, asked)), listener.lost


class _Listener:
    """A thread that takes the events from the socket, and looks at once at what was executed."""

    def __init__(self, opened: socket.socket, calls: Calls) -> None:
        self.events: list[Event] = []
        self._missing, self._dropped = 0, False
        self._socket = opened
        self._calls = calls
        self._numbers: dict[int, int] = {}
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="process connector", daemon=True)

    @property
    def lost(self) -> int:
        """How many events did not come, at least; each CPU counts its own."""
        return max(self._missing, int(self._dropped))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[Call]:
        """End it once what has happened up to now is read, and return who called whom."""
        os.close(self._woken)
        self._thread.join()
        os.close(self._wake)
        return self._calls.ended()

    def _run(self) -> None:
        with suppress(OSError):  # before what was executed has ended; it sleeps until there is an event
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(self._wake, select.POLLHUP)
        over = False
        while not over:
            over = any(descriptor == self._wake for descriptor, _ in waiting.poll())
            self._drain()

    def _drain(self) -> None:
        while True:
            try:
                self._take(connector.message(self._socket.recv(4096, socket.MSG_DONTWAIT)))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
                self._dropped = True  # how many, the numbers of the next ones tell

    def _take(self, message: connector.Message) -> None:
        if message.cpu is not None:
            self._missing += (message.number - self._numbers.get(message.cpu, message.number - 1) - 1) & 0xFFFFFFFF
            self._numbers[message.cpu] = message.number
        event = _parse(message)
        if event:
            self.events.append(event)
            if event.what == "fork":
                self._calls.forked(event.pid, event.child, int(event.at))


def _parse(message: connector.Message) -> Event | None:
    """Return an event of a process; those of threads, and other kinds, are None."""
    one, group, two, three = struct.unpack_from("=IIII", message.body)
    if message.what == connector.FORK:
        return Event("fork", message.at, group, two, argv=_argv(two)) if two == three else None
    if one != group:
        return None
    if message.what == connector.EXEC:
        return _executed(one, message.at)
    if message.what == connector.COMM:
        comm = message.body[8:24].partition(b"\0")[0].decode(errors="replace")
        return Event("comm", message.at, one, comm=comm, argv=_argv(one))
    return Event("exit", message.at, one, status=_status(two)) if message.what == connector.EXIT else None


def _status(code: int) -> int:
    return -(code & 0x7F) if code & 0x7F else code >> 8 & 0xFF


def _executed(pid: int, at: int) -> Event:
    argv, exe = _argv(pid), ""
    with suppress(OSError):
        exe = os.readlink(f"/proc/{pid}/exe")
    return Event("exec", at, pid, comm=_comm(pid), argv=argv, exe=exe)


def _argv(pid: int) -> tuple[str, ...]:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        text = file.read()
        return tuple(text.removesuffix("\0").split("\0")) if text else ()
    return ()


def _comm(pid: int) -> str:
    with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")
    return ""


def _with_descendants(pids: Iterable[int]) -> list[int]:
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found = list(pids)
    for pid in found:  # it grows while it is gone through
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found


def _of_family(events: Iterable[Event], family: set[int]) -> Iterator[Event]:
    """Yield the events of these processes and of what they start; a number that is free again belongs to nobody."""
    for event in events:
        if event.pid not in family:
            continue
        yield event
        if event.what == "fork":
            family.add(event.child)
        elif event.what == "exit":
            family.discard(event.pid)
