"""Containers with an affair of their own: process 1 of each stands for all that runs in it.

When a system comes up, and as long as it runs, its init starts and ends services with namespaces of their own: whose
coming and going is the system's own affair, and different each time. Likewise in a container that an engine's shim watches
over: its first process was started by a daemon, in no cgroup of a lab, and is all the same what a student asked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from labkit import ledger
from labkit.kernel.snapshot import noise
from labkit.kernel.state import ProcessState

Pid = int


class Systems:
    """The labs' processes of one snapshot, with each system in a container reduced to its process 1.

    Attributes:
        lab: pid to process, of those that are a lab's and can be news.
        inits: the pids among them that are process 1 of a system.
        names: what those are called: as the container.
        engines: the pids of those that the shim of an engine has started, also where the shim has ended.
    """

    def __init__(self, processes: Mapping[Pid, ProcessState]) -> None:
        self._all = processes
        ours = {pid: each for pid, each in processes.items() if noise.is_lab_process(each)}
        shims = {pid for pid, each in processes.items() if each.comm in noise.SHIMS}
        kept = {pid for pid, each in processes.items() if any(map(noise.KEPT_BY_AN_ENGINE.search, each.cgroups.values()))}
        orphans = {pid for pid in kept if processes[pid].ppid not in kept and processes[pid].state not in noise.ENDED}
        watched = {pid for pid, each in processes.items() if each.ppid in shims and not noise.cleans_up(each)}
        self.engines = frozenset(pid for pid in watched | orphans if processes[pid].comm not in noise.SHIMS)
        ours |= {pid: processes[pid] for pid in self.engines}
        names = {pid: name for pid, each in processes.items() if self._is_init(each) and (name := self._name(each, ours))}
        self.inits = frozenset(pid for pid in names if not names.keys() & set(self._ancestors(pid)))
        self.names = {pid: names[pid] for pid in self.inits}
        watching = {pid for init in self.inits for pid in self._ancestors(init) if ours.get(pid) and ours[pid].comm in noise.MONITORS}
        inits = {pid: processes[pid] for pid in self.inits}
        self.lab = {pid: each for pid, each in (ours | inits).items() if pid not in watching | shims and not self._is_inside(pid)}

    def _is_init(self, each: ProcessState) -> bool:
        """Whether it is an init, and number 1 of its PID namespace: its parent is in another."""
        parent = self._all.get(each.ppid)
        if parent is None:
            return False
        spaces = {process.namespaces.get("pid") for process in (each, parent)}
        begins = each.comm == parent.comm and each.comm in noise.MONITORS  # a child of its monitor that has yet to execute its init
        return (begins or each.comm in noise.INITS) and len(spaces) == 2 and None not in spaces

    def _name(self, init: ProcessState, ours: Mapping[Pid, ProcessState]) -> str:
        """Return the name of the container of an init, "" if it is no lab's."""
        found = next(filter(None, map(noise.PAYLOAD.search, init.cgroups.values())), None)
        called = found.group(1) if found else ""
        parent = ours.get(init.ppid)
        if init.pid in ours or parent:
            return (parent.name if parent else "") or init.name or called or init.comm
        return called if called in {entry.key.get("name") for entry in ledger.live() if entry.kind.endswith(" claim")} else ""

    def _is_inside(self, pid: Pid) -> bool:
        return any(ancestor in self.inits for ancestor in self._ancestors(pid))

    def _ancestors(self, pid: Pid) -> list[Pid]:
        found: list[Pid] = []
        while (each := self._all.get(pid)) and each.ppid not in (pid, *found):
            pid = each.ppid
            found.append(pid)
        return found
