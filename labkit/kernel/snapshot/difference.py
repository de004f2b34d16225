"""What changed between two snapshots: whole things that appeared or went, and values of what stayed.

Each function compares one kind of thing and gives its changes; what is no news is left out by the rules of `noise`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from labkit import ledger
from labkit.kernel.snapshot import noise
from labkit.kernel.snapshot.changes import values, whole
from labkit.kernel.snapshot.labels import Labels
from labkit.kernel.snapshot.network import networks
from labkit.kernel.state import CgroupState, Change, Difference, MountState, NamespaceState, ProcessState, Snapshot


def diff(before: Snapshot, after: Snapshot) -> Difference:
    """Return what changed from one snapshot to a later one, sorted by kind and name, and nothing else."""
    labels = Labels(before, after)
    changes = [
        *_processes(labels),
        *_namespaces(before, after, labels),
        *_cgroups(before, after),
        *_mounts(before, after),
        *networks(before, after, labels),
    ]
    ordered = sorted(changes, key=lambda change: (change.kind, change.name, change.attribute, change.before or "", change.after or ""))
    return Difference(
        appeared=tuple(change for change in ordered if not change.attribute and change.before is None),
        went=tuple(change for change in ordered if not change.attribute and change.after is None),
        changed=tuple(change for change in ordered if change.attribute),
    )


# processes and namespaces


def _processes(labels: Labels) -> Iterator[Change]:
    before, after = labels.before, labels.after
    yield from whole("process", before, after, labels.name, labels.describe)
    for key in before.keys() & after.keys():
        if key not in labels.systems:  # it places itself and others as it comes up
            yield from values("process", labels.name(key), _process_values(before[key]), _process_values(after[key]))


def _process_values(process: ProcessState) -> dict[str, str]:
    found = {f"cgroup {hierarchy or 'cgroup2'}": path for hierarchy, path in process.cgroups.items()}
    found |= {f"namespace {kind}": str(inode) for kind, inode in process.namespaces.items()}
    return {**found, "state": "stopped" if process.state in noise.STOPPED else "running"}


def _namespaces(before: Snapshot, after: Snapshot, labels: Labels) -> Iterator[Change]:
    def shown(namespaces: Iterable[NamespaceState]) -> dict[tuple[str, int], NamespaceState]:
        usual = (each for each in namespaces if not (each.kind in noise.BY_DEFAULT_OF_THE_ENGINE and labels.is_of_engine(each.pids)))
        told = (each for each in usual if not labels.is_of_typed(each.pids))
        named = {(each.kind, each.inode): each for each in told if not _is_named_netns(each)}
        return {key: each for key, each in named.items() if each.path or labels.of(each.pids)}

    again = _given_again(before, after)
    there_before = {(each.kind, each.inode) for each in before.namespaces} - again
    there_after = {(each.kind, each.inode) for each in after.namespaces} - again
    for each in shown(before.namespaces).values():
        if (each.kind, each.inode) not in there_after:
            yield Change("namespace", labels.namespace(each), "", f"{each.kind}:[{each.inode}]", None)
    for each in shown(after.namespaces).values():
        if (each.kind, each.inode) not in there_before:
            yield Change("namespace", labels.namespace(each), "", None, f"{each.kind}:[{each.inode}]")


def _given_again(before: Snapshot, after: Snapshot) -> set[tuple[str, int]]:
    """Return the numbers that another namespace has got meanwhile: everybody in the former one has ended, and no file held it."""
    living = {(each.pid, each.start) for each in after.processes}
    ended = {each.pid for each in before.processes if (each.pid, each.start) not in living}
    was = {(each.kind, each.inode): each for each in before.namespaces if each.pids and not each.path and ended.issuperset(each.pids)}
    return {(each.kind, each.inode) for each in after.namespaces if each.pids and not each.path} & was.keys()


def _is_named_netns(namespace: NamespaceState) -> bool:
    path = namespace.path if namespace.kind == "net" else None
    return path is not None and bool(noise.NETNS.search(path) or noise.NETNS_OF_AN_ENGINE.search(path))


# cgroups


def _cgroups(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    old, new = _shown_cgroups(before), _shown_cgroups(after)
    for change in whole("cgroup", old, new, _cgroup_name, _describe_cgroup):
        path = change.name.partition(":")[2]
        if not noise.CGROUP_HOME.search(path) and not noise.BY_HAND.search(path):
            yield change
    for key in old.keys() & new.keys():
        if old[key].values != new[key].values:
            yield from values("cgroup", _cgroup_name(key), _shown_values(old[key]), _shown_values(new[key]))


def _shown_cgroups(snapshot: Snapshot) -> dict[tuple[str, str], CgroupState]:
    return {(each.hierarchy, each.path): each for each in snapshot.cgroups if not noise.CGROUPS.search(each.path)}


def _cgroup_name(key: tuple[str, str]) -> str:
    return f"{key[0] or 'cgroup2'}:{key[1]}"


def _shown_values(cgroup: CgroupState) -> dict[str, str]:
    shown = {file: value for file, value in cgroup.values.items() if not noise.CGROUP_FILES.search(file)}
    if not noise.LAB_CGROUP.search(cgroup.path):
        shown.pop(noise.HANDED_DOWN, None)
    return shown


def _describe_cgroup(cgroup: CgroupState) -> str:
    defaults = noise.CGROUP_DEFAULTS
    found = _shown_values(cgroup).items()
    return ", ".join(f"{file}={value}" for file, value in sorted(found) if file in defaults and value != defaults[file])


# mounts


def _mounts(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    old, new = _shown_mounts(before), _shown_mounts(after)
    replaced = {key for key in old.keys() & new.keys() if _what_is_mounted(old[key]) != _what_is_mounted(new[key])}
    for key in replaced:
        yield Change("mount", key[0], "", _describe_mount(old[key]), None)
        yield Change("mount", key[0], "", None, _describe_mount(new[key]))
    yield from whole("mount", old, new, lambda key: key[0], _describe_mount)
    for key in (old.keys() & new.keys()) - replaced:
        yield from values("mount", key[0], _mount_values(old[key]), _mount_values(new[key]))


def _shown_mounts(snapshot: Snapshot) -> dict[tuple[str, int], MountState]:
    state = str(ledger.state())
    depth: Counter[str] = Counter()  # several mounts can be stacked on one directory
    shown = {}
    for mount in snapshot.mounts:
        depth[mount.mountpoint] += 1
        if not noise.is_housekeeping_mount(mount, state):
            shown[mount.mountpoint, depth[mount.mountpoint]] = mount
    return shown


def _what_is_mounted(mount: MountState) -> tuple[str, str, str, str]:
    device = "" if mount.device.startswith(noise.ANONYMOUS) else mount.device
    return mount.fstype, device, mount.root, mount.source


def _mount_values(mount: MountState) -> dict[str, str]:
    told = (option for option in mount.super_options if option not in noise.MOUNTED_FIRST)
    return {"options": ",".join(mount.options), "super_options": ",".join(told), "propagation": mount.propagation}


def _describe_mount(mount: MountState) -> str:
    below = f" {mount.root}" if mount.root != "/" else ""
    readonly = ", ro" if "ro" in mount.options else ""
    return f"{mount.fstype} {mount.source}{below}{readonly}" if mount.source != mount.fstype else f"{mount.fstype}{below}{readonly}"
