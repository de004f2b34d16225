"""All of the kernel's state that the labs speak of, at one instant, read only; and the difference of two such instants.

It is taken before and after every cell, so it must be cheap: each fact is read once. Who is in which namespace and in
which cgroup is known from those, so that of a process that is not a lab's one small file is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from labkit.errors import LabError
from labkit.kernel import processes
from labkit.kernel.cgroups import reading as cgroup_states
from labkit.kernel.cgroups.delegation import TRACKERS
from labkit.kernel.cgroups.hierarchy import Hierarchies
from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.namespaces import inventory, process
from labkit.kernel.network import reading as network_state
from labkit.kernel.snapshot import noise
from labkit.kernel.snapshot.difference import diff
from labkit.kernel.state import CgroupState, NamespaceState, ProcessState, Snapshot

__all__ = ["diff", "snapshot"]


def snapshot(proc: str | Path = "/proc", *, here: Hierarchies | None = None) -> Snapshot:
    """Read namespaces, cgroups with what is set in them, mounts, networks and processes.

    A process that is in no cgroup of a lab comes without its command line and its inner pid. What ends while it is
    read is left out.

    Args:
        proc: where procfs is mounted.
        here: the cgroup hierarchies; those of this machine if left out.
    """
    namespaces = inventory(proc)
    cgroups = cgroup_states.states(here)
    return Snapshot(
        namespaces=namespaces,
        cgroups=cgroups,
        mounts=mountinfo(proc=Path(proc)),
        networks=network_state.states(namespaces, proc=Path(proc)),
        processes=tuple(_with_pods_named(list(_processes(str(proc), namespaces, cgroups)))),
    )


def _processes(proc: str, namespaces: Iterable[NamespaceState], cgroups: Iterable[CgroupState]) -> Iterator[ProcessState]:
    kinds: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for namespace in namespaces:
        for pid in namespace.pids:
            kinds[pid][namespace.kind] = namespace.inode
    paths: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for cgroup in cgroups:
        for pid in cgroup.pids:
            paths[pid][cgroup.hierarchy] = cgroup.path
    names = processes.names()
    for pid in sorted(paths.keys() | kinds.keys()):
        if pid in names or any(noise.LAB_CGROUP.search(path) for path in paths[pid].values()):
            found = _lab_process(proc, pid, names.get(pid) or _name_of_tracker(paths[pid]))
        else:
            found = _other_process(proc, pid, kinds[pid], paths[pid])
        if found is not None:
            yield found


def _with_pods_named(found: Sequence[ProcessState]) -> Iterator[ProcessState]:
    """Give the processes of a pod the name of who runs it: in v2 they have left the place by which a lab knows them for the pod's."""
    by_pid = {each.pid: each for each in found}
    for each in found:
        yield replace(each, name=_inherited(each, by_pid)) if noise.is_of_a_pod(each) and not each.name else each


def _inherited(child: ProcessState, by_pid: Mapping[int, ProcessState]) -> str:
    """Return the name of the nearest ancestor that has one."""
    above: ProcessState | None = child
    while above and not above.name:
        above = by_pid.get(above.ppid)
    return above.name if above else ""


def _lab_process(proc: str, pid: int, name: str) -> ProcessState | None:
    try:
        return process(pid, proc, name=name)
    except LabError:
        return None  # ended meanwhile


def _name_of_tracker(cgroups: Mapping[str, str]) -> str:
    """Return the name under which a lab keeps a process, also where another notebook process started it."""
    before, found, name = cgroups.get("", "").partition(f"/{TRACKERS}/")
    name = name.partition("/")[0]
    return name if found and noise.LAB_CGROUP.search(before) and not noise.NAMELESS_TRACKER.fullmatch(name) else ""


def _other_process(proc: str, pid: int, namespaces: Mapping[str, int], cgroups: Mapping[str, str]) -> ProcessState | None:
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None  # ended meanwhile
    end = stat.rindex(b")")
    words = stat[end + 2 :].split(None, 20)
    return ProcessState(
        pid=pid,
        ppid=int(words[1]),
        comm=stat[stat.index(b"(") + 1 : end].decode(errors="replace"),
        state=words[0].decode(),
        start=int(words[19]),
        pid_inside=pid,
        namespaces=MappingProxyType(namespaces),
        cgroups=MappingProxyType(cgroups),
    )
