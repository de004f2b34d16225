"""Names for people: which processes of two snapshots are news, and what each of them, and its namespaces, is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from labkit.kernel.snapshot import noise
from labkit.kernel.snapshot.systems import Systems
from labkit.kernel.state import NamespaceState, NetworkState, ProcessState, Snapshot

Key = tuple[int, int]
"""PID and start: one process for ever."""


class Labels:
    """The lab's processes in two snapshots, each with a name.

    A process that only follows its parent (same lab name, cgroups and namespaces) is left out: a loop of `date` and
    `sleep` starts one every second, and its shell says all there is to say.

    Attributes:
        before: the processes that are news, as the earlier snapshot has them.
        after: the same as the later one has them.
        systems: those that are process 1 of a system in a container.
        netns: names of the network namespaces under /run/netns.
    """

    def __init__(self, before: Snapshot, after: Snapshot) -> None:
        was, now = _living(before), _living(after)
        old, new = Systems(was), Systems(now)
        leaders = _leaders(old) | _leaders(new)
        self.before = {(each.pid, each.start): each for each in was.values() if (each.pid, each.start) in leaders}
        self.after = {(each.pid, each.start): each for each in now.values() if (each.pid, each.start) in leaders}
        names = {each.name for each in (*before.networks, *after.networks)}
        self.netns = {name for name in names if name != "host" and not name.startswith("net:[")}
        self.systems = {(pid, systems.lab[pid].start) for systems in (old, new) for pid in systems.inits}
        self._typed = {each.pid for each in (*was.values(), *now.values()) if is_typed(each)}
        self._engines = old.engines | new.engines
        self._names = {**_named(self.before, old.names), **_named(self.after, new.names)}
        self._by_pid = {**_by_pid(old, self._names), **_by_pid(new, self._names)}
        self._net_of = {each.inode: self._holder(each) for each in (*before.namespaces, *after.namespaces) if each.kind == "net"}
        self._usual = _usual_namespaces(now.values())

    def name(self, key: Key) -> str:
        """Return what a process is called: its lab name, else its comm; numbered where several have the same."""
        return self._names[key]

    def of(self, pids: Iterable[int]) -> str:
        """Return the name of the lab's first process among these, or ""."""
        return next((self._by_pid[pid] for pid in sorted(pids) if pid in self._by_pid), "")

    def is_of_typed(self, pids: Iterable[int]) -> bool:
        """Whether all of these are what a person typed as runc."""
        return bool(set(pids)) and self._typed.issuperset(pids)

    def is_of_engine(self, pids: Iterable[int]) -> bool:
        """Whether one of these was started by the shim of an engine."""
        return not self._engines.isdisjoint(pids)

    def namespace(self, namespace: NamespaceState) -> str:
        """Return what a namespace is called: "uts of clock", or "uts at /run/uts" where a file holds it."""
        holder = self.of(namespace.pids)
        return f"{namespace.kind} of {holder}" if holder else f"{namespace.kind} at {namespace.path}"

    def network(self, network: NetworkState) -> str:
        """Return what a network namespace is called, or "" if neither a name nor a process of the lab holds it."""
        if not network.name.startswith("net:["):
            return network.name
        holder = self._net_of.get(network.inode, "")
        return f"net of {holder}" if holder else ""

    def _holder(self, net: NamespaceState) -> str:
        """Return who holds a network namespace; "" where a system does: what it sets up there is its own affair."""
        inits = {pid for pid, _ in self.systems}
        return "" if inits.intersection(net.pids) else self.of(net.pids)

    def describe(self, process: ProcessState) -> str:
        """Return a process in a few words: its pid, the lab's cgroups that it is in, the namespaces that are not the machine's."""
        places = sorted((hierarchy, path) for hierarchy, path in process.cgroups.items() if noise.LAB_CGROUP.search(path))
        shown = [(hierarchy, path) for hierarchy, path in places if not noise.CGROUPS.search(path) and not noise.BY_HAND.search(path)]
        cgroups = [f"{hierarchy or 'cgroup2'}:{path}" for hierarchy, path in shown]
        own = sorted(kind for kind, inode in process.namespaces.items() if inode != self._usual.get(kind))
        if is_typed(process):
            own = []
        if self.is_of_engine([process.pid]):
            own = [kind for kind in own if kind not in noise.BY_DEFAULT_OF_THE_ENGINE]
        parts = [f"pid {process.pid}", f"cgroup {' '.join(cgroups)}" if cgroups else "", f"namespaces {' '.join(own)}" if own else ""]
        return ", ".join(part for part in parts if part)


def is_typed(process: ProcessState) -> bool:
    """Whether it is a runc that a person typed: the namespace that it may have for its view of the cgroups is the lab's own affair."""
    return any(map(noise.TYPED.search, process.cgroups.values()))


def _living(snapshot: Snapshot) -> dict[int, ProcessState]:
    return {each.pid: each for each in snapshot.processes if each.state not in noise.ENDED}


def _leaders(systems: Systems) -> set[Key]:
    lab = systems.lab
    eldest: dict[str, ProcessState] = {}
    for each in sorted(lab.values(), key=lambda each: (each.start, each.pid)):
        eldest.setdefault(each.name, each)

    def is_leader(each: ProcessState) -> bool:
        if each.pid in systems.inits:
            return True
        if each.ppid in lab:
            return not _follows(each, lab[each.ppid])
        first = eldest[each.name]  # whose parent is gone follows the first of its name
        return not each.name or first is each or not _follows(each, first)

    return {(each.pid, each.start) for each in lab.values() if is_leader(each)}


def _follows(child: ProcessState, parent: ProcessState) -> bool:
    same_name = child.name in ("", parent.name)
    return same_name and child.cgroups == parent.cgroups and child.namespaces == parent.namespaces


def _named(processes: dict[Key, ProcessState], systems: Mapping[int, str]) -> dict[Key, str]:
    names: dict[Key, str] = {}
    seen: Counter[str] = Counter()
    for key in sorted(processes, key=lambda key: (key[1], key[0])):
        name = systems.get(key[0]) or processes[key].name or processes[key].comm
        seen[name] += 1
        names[key] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _by_pid(systems: Systems, names: dict[Key, str]) -> dict[int, str]:
    by_pid = {pid: names[pid, each.start] for pid, each in systems.lab.items() if (pid, each.start) in names}
    parents = {pid: each.ppid for pid, each in systems.lab.items()}
    for pid in parents:
        ancestor = pid
        while ancestor not in by_pid and ancestor in parents:
            ancestor = parents[ancestor]
        if ancestor in by_pid:
            by_pid[pid] = by_pid[ancestor]
    return by_pid


def _usual_namespaces(processes: Iterable[ProcessState]) -> dict[str, int]:
    counts: dict[str, Counter[int]] = {}
    for process in processes:
        for kind, inode in process.namespaces.items():
            counts.setdefault(kind, Counter())[inode] += 1
    return {kind: counter.most_common(1)[0][0] for kind, counter in counts.items()}
