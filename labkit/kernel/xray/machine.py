"""What every X-ray needs of the machine, read once for all of them, and only when the first one needs it."""

from __future__ import annotations

import errno as errno_names
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from labkit.errors import LabError
from labkit.kernel import namespaces
from labkit.kernel.cgroups.hierarchy import Hierarchies, hierarchies
from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.network import nat
from labkit.kernel.network import reading as networks
from labkit.kernel.network.nat import NatRules
from labkit.kernel.state import MountState, NamespaceState, NetworkState
from labkit.kernel.xray.records import Member, NotRead

_Fact = TypeVar("_Fact")
_NOWHERE = Path(os.devnull)


def attempt(what: str, read: Callable[[], _Fact]) -> _Fact | NotRead:
    """Return what `read` returns, or the errno of what it could not read."""
    try:
        return read()
    except OSError as error:
        return NotRead(_name(error), str(getattr(error, "filename", None) or what))
    except LabError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):
            raise
        return NotRead(_name(cause), str(cause.filename or what))


def _name(error: OSError) -> str:
    return errno_names.errorcode.get(error.errno or 0, "an unknown error")


def read(path: str) -> str:
    """Return the text of a file of procfs."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def same_file(one: str, other: str) -> bool | None:
    """Whether two paths lead to the same file; None where one of them may not be followed."""
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except OSError:
        return None


class Members(Mapping[int, Member]):
    """Every process of a machine by its pid, read when it is asked for; one that has ended by then is not there.

    Args:
        machine: where they run.
        known: those that were read before, and are as they were.
    """

    def __init__(self, machine: Machine, known: Mapping[int, Member] = MappingProxyType({})) -> None:
        self._machine = machine
        self._read: dict[int, Member | None] = dict(known)

    def __getitem__(self, pid: int) -> Member:
        if pid not in self._read:
            try:
                self._read[pid] = self._machine.member(pid)
            except (OSError, ValueError, KeyError):
                self._read[pid] = None
        member = self._read[pid]
        if member is None:
            raise KeyError(pid)
        return member

    def __contains__(self, pid: object) -> bool:
        return isinstance(pid, int) and self.get(pid) is not None

    def __iter__(self) -> Iterator[int]:
        return (pid for pid in self._machine.pids if pid in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Machine:
    """Keep what X-rays of this machine have in common.

    Args:
        proc: where procfs is mounted.
        root: where the file tree begins that mountinfo speaks of; another one for a recorded machine.
    """

    def __init__(self, proc: str | Path = "/proc", root: str | Path = "/") -> None:
        self.proc = str(proc)
        self.root = str(root)
        self._networks: dict[int, NetworkState] = {}
        self._whole = False
        self._nat: dict[int, NatRules] = {}
        self._inhabitants: dict[str, dict[int, list[int]]] = {}

    @cached_property
    def reference(self) -> int:
        """The process whose namespaces count as the host's: 1, or this one where those of 1 may not be read."""
        return 1 if self._namespaces(1) else os.getpid()

    @cached_property
    def reference_namespaces(self) -> dict[str, int]:
        """Kind to inode of the reference."""
        return self._namespaces(self.reference)

    def _namespaces(self, pid: int) -> dict[str, int]:
        try:
            return namespaces.of(pid, self.proc)
        except LabError:
            return {}

    @cached_property
    def pids(self) -> tuple[int, ...]:
        """Every process in sight, ascending."""
        return tuple(sorted(int(name) for name in os.listdir(self.proc) if name.isdigit()))

    @cached_property
    def members(self) -> Members:
        """The processes by pid, each read when it is asked for."""
        return Members(self)

    def member(self, pid: int) -> Member:
        """Read one process or thread.

        Raises:
            OSError: ENOENT or ESRCH, it is not, or no longer, there.
        """
        base = f"{self.proc}/{pid}"
        stat = read(f"{base}/stat")
        status = fields(read(f"{base}/status"))
        argv = read(f"{base}/cmdline").rstrip("\0")
        words = stat[stat.rindex(")") + 2 :].split()
        return Member(
            pid=pid,
            ppid=int(words[1]),
            pids=tuple(map(int, status.get("NSpid", str(pid)).split())),
            uid=int(status["Uid"].split()[1]),
            comm=stat[stat.index("(") + 1 : stat.rindex(")")],
            argv=tuple(argv.split("\0")) if argv else (),
            state=words[0],
            start=int(words[19]),
            flags=int(words[6]),
            tgid=int(status.get("Tgid", pid)),
        )

    def inode(self, pid: int, kind: str) -> int | None:
        """Return the namespace of one kind that a process is in, or None where that may not be read."""
        return self._namespaces(pid).get(kind)

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """Parent to children."""
        found: dict[int, list[int]] = {}
        for pid, (_, ppid) in self._stats.items():
            found.setdefault(ppid, []).append(pid)
        return found

    @cached_property
    def _stats(self) -> dict[int, tuple[str, int]]:
        """Name and parent of every process: the one small file that is read of all of them."""
        found = {}
        for pid in self.pids:
            try:
                stat = read(f"{self.proc}/{pid}/stat")
            except OSError:
                continue  # it ended meanwhile
            end = stat.rindex(")")
            found[pid] = (stat[stat.index("(") + 1 : end], int(stat[end + 2 :].split(None, 2)[1]))
        return found

    def called(self, *names: str) -> Iterator[Member]:
        """Yield the processes of these names."""
        for pid, (comm, _) in self._stats.items():
            if comm in names and pid in self.members:
                yield self.members[pid]

    def inhabitants(self, kind: str) -> dict[int, list[int]]:
        """Return who is in each namespace of a kind: inode to pids, ascending; what may not be read is left out."""
        if kind not in self._inhabitants:
            found: dict[int, list[int]] = {}
            for pid in self.pids:
                try:
                    link = os.readlink(f"{self.proc}/{pid}/ns/{namespaces.KINDS[kind].file}")
                except OSError:
                    continue
                found.setdefault(int(link.split("[")[1][:-1]), []).append(pid)
            self._inhabitants[kind] = found
        return self._inhabitants[kind]

    def ancestors(self, pid: int) -> Iterator[Member]:
        """Yield the parents of a process, the nearest first."""
        seen = {pid}
        above = self.members[pid].ppid if pid in self.members else 0
        while above in self.members and above not in seen:
            seen.add(above)
            yield self.members[above]
            above = self.members[above].ppid

    @cached_property
    def hierarchies(self) -> Hierarchies:
        """The cgroup hierarchies in the reader's sight."""
        return hierarchies(Path(self.proc), Path(self.root))

    @cached_property
    def mounts(self) -> tuple[MountState, ...]:
        """What the reader sees mounted."""
        return mountinfo(proc=Path(self.proc))

    @cached_property
    def capabilities(self) -> int:
        """The number of the last capability that this kernel knows."""
        return int(read(f"{self.proc}/sys/kernel/cap_last_cap"))

    @cached_property
    def netns_names(self) -> dict[int, str]:
        """Inode to name of the network namespaces that have one; "host" is the reference's."""
        run = Path(networks.NETNS_RUN)
        device = os.stat(f"{self.proc}/self/ns/net").st_dev
        names = sorted(os.listdir(run), reverse=True) if run.is_dir() else []
        found = {networks.namespace_inode(f"{run}/{name}", device): name for name in names}
        return {**found, self.reference_namespaces.get("net", 0): networks.HOST}

    def netns_name(self, inode: int) -> str:
        """Return how a network namespace is called."""
        return self.netns_names.get(inode, f"net:[{inode}]")

    def prepare(self, pids: Iterable[int]) -> None:
        """Read the network namespaces of all these processes, and the host's, in one go."""
        found: dict[int, int] = {}
        for pid in (*pids, self.reference):
            inode = self._namespaces(pid).get("net")
            if inode is not None:
                found.setdefault(inode, pid)
        wanted = [NamespaceState("net", inode, (pid,)) for inode, pid in found.items()]
        self._take(networks.states(wanted, proc=Path(self.proc), run=_NOWHERE, rules=False, patience=0))

    def network(self, pid: int) -> NetworkState | None:
        """Return the network namespace that a process is in, with the other end of each veth; None if it may not be entered."""
        inode = self._namespaces(pid).get("net", 0)
        if inode not in self._networks:
            self.prepare([pid])
        found = self._networks.get(inode)
        if found is not None and not self._whole and any(link.kind == "veth" and link.peer is None for link in found.links):
            self._whole = True  # the other end is neither in the host's nor in one that was asked for
            self._take(networks.states(proc=Path(self.proc), rules=False, patience=0))
        return self._networks.get(inode)

    def _take(self, found: Iterable[NetworkState]) -> None:
        self._networks |= {network.inode: network for network in found}

    def network_named(self, name: str) -> NetworkState | None:
        """Return a network namespace that was read, by the name that the other end of a veth has for it."""
        return next((network for network in self._networks.values() if network.name == name), None)

    def nat(self, inode: int) -> NatRules:
        """Return the rules of a network namespace that change addresses."""
        if inode not in self._nat:
            holders = self.inhabitants("net").get(inode)
            path = f"{self.proc}/{holders[0]}/ns/net" if holders else f"{networks.NETNS_RUN}/{self.netns_name(inode)}"
            self._nat[inode] = nat.read(None if inode == os.stat(f"{self.proc}/self/ns/net").st_ino else path)
        return self._nat[inode]


def fields(status: str) -> dict[str, str]:
    """Return the lines of /proc/PID/status by their names."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())}
