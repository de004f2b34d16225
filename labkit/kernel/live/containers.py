"""Containers of every runtime, found as an X-ray finds them: by PID namespaces, cgroup paths and command lines. No engine is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from labkit.kernel.live.frame import Contained, Member
from labkit.kernel.xray import records as xray
from labkit.kernel.xray.containers import Found, containers
from labkit.kernel.xray.machine import Machine, Members

_NAMED = re.compile(r"docker|libpod|crio|containerd|lxc|machine|garden|kubepods|buildah|nerdctl|/lab-|/rkt-")
"""What is in the path of every cgroup that names a container; any other process is in one only by its PID namespace."""


class Containers:
    """The containers.

    Args:
        cgroups: called with a pid, returns the paths of its cgroups.
    """

    def __init__(self, cgroups: Callable[[int], tuple[str, ...]]) -> None:
        self._cgroups = cgroups
        self._candidates: tuple[tuple[object, ...], ...] = ()
        self._members: dict[int, xray.Member] = {}
        self.rows: MappingProxyType[str, Contained] = MappingProxyType({})

    def refresh(self, processes: Mapping[str, Member]) -> bool:
        """Look again where a process that may be in a container came or went; return whether anything that is shown changed."""
        own = (row for row in processes.values() if row.own)  # a process that shares all namespaces with process 1 is in no container
        candidates = [row for row in own if "pid" in row.own or any(map(_NAMED.search, self._cgroups(row.pid)))]
        known = tuple((row.pid, row.comm, row.own, self._cgroups(row.pid)) for row in candidates)
        if known == self._candidates:
            return False
        by_pid = {row.pid: row for row in candidates}
        machine = Machine()
        machine.pids = tuple(sorted(by_pid))  # its containers are looked for among these
        before = {row[0]: row[1] for row in self._candidates}
        same = {pid for pid, row in by_pid.items() if before.get(pid) == row.comm}
        machine.members = Members(machine, {pid: one for pid, one in self._members.items() if pid in same})
        rows = {str(one.pid): self._row(one, by_pid[one.pid]) for one in containers(machine) if one.pid in by_pid}
        self._candidates, self._members = known, {pid: machine.members[pid] for pid in by_pid if pid in machine.members}
        kept = {key: old if (old := self.rows.get(key)) == row else row for key, row in rows.items()}
        if kept == dict(self.rows):
            return False
        self.rows = MappingProxyType(kept)
        return True

    def _row(self, one: Found, row: Member) -> Contained:
        paths = self._cgroups(one.pid)
        return Contained(one.pid, one.names[0] if one.names else "", one.comm, max(paths, key=len, default=""), row.own)
