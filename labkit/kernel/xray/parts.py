"""Who keeps a container: the process that watches over it, the daemon that commands that one, and so on up to the client.

Read from two things alone: who is whose parent, and who is connected to whose unix socket. No engine is asked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from labkit.errors import LabError
from labkit.kernel.network.unix_sockets import UnixSocket, holders, unix_sockets
from labkit.kernel.xray.machine import Machine
from labkit.kernel.xray.records import Member

_PASSED_OVER = ("/dev/", "/proc/", "/sys/", "/tmp/", "/memfd:", "/anon")  # noqa: S108 - compared, nothing is made there
_TOP = 3  # parts of a path, such as /var/lib/docker, below which files belong to one program


@dataclass(frozen=True)
class Part:
    """A process that has to do with a container.

    Attributes:
        member: the process.
        tie: "first process", "parent" of the one below, or "client": it is connected to a socket of the one below.
        to: pid of the one below; None for the first process.
        at: the address of that socket; "" without one.
        listens: the addresses at which it waits for others itself.
        directory: its working directory; "" where that is the root or not readable.
        keeps: the directories in which it holds files open for writing.
    """

    member: Member
    tie: str
    to: int | None
    at: str
    listens: tuple[str, ...]
    directory: str
    keeps: tuple[str, ...]


class _Sockets:
    """The unix sockets of a machine and the processes behind them."""

    def __init__(self, machine: Machine) -> None:
        self.by_inode = {each.inode: each for each in unix_sockets()}
        self.holders: Mapping[int, tuple[int, ...]] = holders(machine.pids, machine.proc)

    def listening(self, pid: int) -> tuple[str, ...]:
        mine = (each.address for each in self.by_inode.values() if each.listens and each.address and pid in self._of(each))
        return tuple(sorted(mine, key=lambda address: (len(address), address)))

    def clients(self, pid: int) -> Iterator[tuple[int, str]]:
        """Yield those that are connected to a process, and the address at which it waited for them."""
        for end in self.by_inode.values():
            if end.peer and end.address and pid in self._of(end):
                for client in self.holders.get(end.peer, ()):
                    if client != pid:
                        yield client, end.address

    def _of(self, end: UnixSocket) -> tuple[int, ...]:
        return self.holders.get(end.inode, ())


def parts(pid: int, machine: Machine | None = None) -> tuple[Part, ...]:
    """Return who keeps a container alive and who commands those, the highest first and its first process last.

    Shell:
        ps -o ppid= PID; ss --unix --processes

    Args:
        pid: the container's first process.
        machine: where it runs.

    Raises:
        LabError: there is no such process.
        SyscallError: the kernel does not tell of sockets.

    See: unix(7), sock_diag(7), proc_pid_fd(5)
    """
    machine = machine or Machine()
    first = machine.members.get(pid)
    if first is None:
        raise LabError(f"there is no process {pid}")
    sockets = _Sockets(machine)
    found = [_part(first, "first process", None, "", sockets, machine)]
    own = {os.getpid(), machine.reference, *(each.pid for each in machine.ancestors(os.getpid()))}
    for parent in machine.ancestors(pid):
        if parent.pid in own:
            break
        found.append(_part(parent, "parent", found[-1].member.pid, "", sockets, machine))
    for part in found[1:]:
        found += _commanders(part, {*own, *(each.member.pid for each in found)}, sockets, machine)
    return tuple(reversed(found))


def _commanders(below: Part, known: set[int], sockets: _Sockets, machine: Machine) -> Iterator[Part]:
    """Yield the clients of a process, theirs after them."""
    for pid, address in sorted(sockets.clients(below.member.pid)):
        member = machine.members.get(pid)
        if member is None or pid in known or _reports_to(member, below, sockets):
            continue
        known.add(pid)
        part = _part(member, "client", below.member.pid, address, sockets, machine)
        yield part
        yield from _commanders(part, known, sockets, machine)


def _reports_to(member: Member, other: Part, sockets: _Sockets) -> bool:
    """Whether a client is below the one that it is connected to, as a shim that sends its events to containerd.

    The two are connected both ways then, and the client was started with the other's address.
    """
    both_ways = any(client == other.member.pid for client, _ in sockets.clients(member.pid))
    return both_ways and any(address in member.argv for address in other.listens)


def _part(member: Member, tie: str, to: int | None, at: str, sockets: _Sockets, machine: Machine) -> Part:
    directory = ""
    with suppress(OSError):
        directory = os.readlink(f"{machine.proc}/{member.pid}/cwd").removesuffix("/")
    keeps = tuple(_common(_written(f"{machine.proc}/{member.pid}/fd"))) if to is not None else ()
    return Part(member, tie, to, at, sockets.listening(member.pid), directory if to is not None else "", keeps)


def _written(directory: str) -> Iterator[str]:
    """Yield the directories of the files that a process holds open for writing."""
    with suppress(OSError):
        for name in os.listdir(directory):
            with suppress(OSError):
                path = os.readlink(f"{directory}/{name}")
                writes = os.lstat(f"{directory}/{name}").st_mode & stat.S_IWUSR
                if writes and path.startswith("/") and not path.startswith(_PASSED_OVER) and not path.endswith((".log", ")")):
                    yield os.path.dirname(path)


def _common(directories: Iterable[str]) -> list[str]:
    """Return the directories above all of these, one for each place such as /var/lib/docker."""
    places: dict[tuple[str, ...], list[str]] = {}
    for directory in directories:
        places.setdefault(tuple(directory.split("/")[: _TOP + 1]), []).append(directory)
    return sorted(os.path.commonpath(each) for each in places.values())
