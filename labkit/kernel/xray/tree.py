"""Which processes belong together, who watches over them from outside, and what traces tell of who made them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal

from labkit.kernel import namespaces
from labkit.kernel.xray.machine import Machine, read, same_file
from labkit.kernel.xray.membership import inside, parent_namespace
from labkit.kernel.xray.records import IdMaps, Member, Sign, Tree

MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container", "/run/host/container-manager")
"""Files that a program which starts containers leaves in them."""

_SAYS = re.compile(
    r"docker|libpod|crio|containerd|kubepods|buildah|lxc|lxd|incus|machine\.slice|payload|nspawn|/rkt-|/lab-[\d.]+/|[0-9a-f]{64}",
    re.IGNORECASE,
)
_LONGEST = 400


def tree_of(member: Member, maps: IdMaps | None, machine: Machine) -> Tree:
    """Return the processes that belong to the same container as this one, and their parents outside.

    Those of its PID namespace, and of the ones below it; where that is the reference's, those of its cgroup, where it is
    not the reader's or the root; else the process and what it has started.
    """
    by, pids = _chosen(member, machine)
    rows = maps.uid if maps else ()
    depth = len(member.pids) - 1 if by == "pid namespace" else None
    chosen = {pid: _inside(machine.members[pid], depth, rows) for pid in sorted(pids) if pid in machine.members}
    chosen.setdefault(member.pid, _inside(member, depth, rows))
    first = min(chosen.values(), key=lambda each: (each.start, each.pid))
    outside = tuple(each for each in machine.ancestors(first.pid) if each.pid not in chosen)
    return Tree(by, tuple(chosen[pid] for pid in sorted(chosen)), outside)


def _inside(member: Member, depth: int | None, rows: tuple[tuple[int, int, int], ...]) -> Member:
    number = member.pids[depth] if depth is not None and depth < len(member.pids) else None
    return replace(member, inside=number, uid_inside=inside(member.uid, rows))


def _chosen(member: Member, machine: Machine) -> tuple[Literal["pid namespace", "cgroup", "descendants"], set[int]]:
    own = machine.inode(member.pid, "pid")
    if own is not None and own != machine.reference_namespaces.get("pid"):
        return "pid namespace", set(_in_pid_namespace(own, machine))
    path = _cgroup(member.pid, machine)
    if path not in ("", "/", *(_cgroup(pid, machine) for pid in (os.getpid(), os.getppid(), machine.reference))):
        together = {pid for pid in machine.pids if f"{_cgroup(pid, machine)}/".startswith(f"{path}/")}
        if member.pid in together:
            return "cgroup", together
    return "descendants", set(_descendants(member.pid, machine))


def _in_pid_namespace(inode: int, machine: Machine) -> Iterator[int]:
    above: dict[int, int | None] = {}
    for other, pids in machine.inhabitants("pid").items():
        if other == inode or inode in _lineage(other, pids[0], machine, above):
            yield from pids


def _lineage(inode: int, pid: int, machine: Machine, above: dict[int, int | None]) -> Iterator[int]:
    """Yield the PID namespaces above one; `above` keeps what was asked for already."""
    path = f"{machine.proc}/{pid}/ns/{namespaces.KINDS['pid'].file}"
    while True:
        if inode not in above:
            above[inode] = parent_namespace(path)
        parent = above[inode]
        if parent is None or parent == inode:
            return
        yield parent
        holders = machine.inhabitants("pid").get(parent)
        if not holders:
            return
        inode, path = parent, f"{machine.proc}/{holders[0]}/ns/pid"


def _descendants(pid: int, machine: Machine) -> Iterator[int]:
    queue = [pid]
    while queue:
        current = queue.pop()
        yield current
        queue += machine.children.get(current, [])


def _cgroup(pid: int, machine: Machine) -> str:
    """Return the path of a process that tells most: in v2, or where that is the root, the longest in v1."""
    try:
        paths = dict(line.split(":", 2)[1:] for line in read(f"{machine.proc}/{pid}/cgroup").splitlines())
    except OSError:
        return ""
    unified = paths.get("", "/")
    return unified if unified != "/" else max(paths.values(), key=len, default="/")


def signs(member: Member, cgroups: Iterable[str], outside: Iterable[Member], machine: Machine) -> tuple[Sign, ...]:
    """Return the traces that tell of who made a container, each as it was read; nothing is concluded from them.

    Args:
        member: its first process.
        cgroups: paths of its cgroups.
        outside: its parents outside.
        machine: where it runs.
    """
    found = [Sign("cgroup", path) for path in dict.fromkeys(cgroups) if _SAYS.search(path)]
    found += [Sign("environment", word) for word in _environment(member.pid, machine)]
    root = f"{machine.proc}/{member.pid}/root"
    if not same_file(f"{root}/.", f"{machine.proc}/{machine.reference}/root/."):
        found += [Sign("file", mark) for mark in MARKS if _is_in(root, mark)]
    found += [Sign("parent", f"{' '.join(each.argv)[:_LONGEST] or each.comm}") for each in list(outside)[:1]]
    return tuple(found)


def _is_in(root: str, path: str) -> bool:
    """Whether a file is below a root directory; a symlink on the way could lead out of it, so none is followed."""
    above = path.rpartition("/")[0]
    return os.path.lexists(root + path) and not any(os.path.islink(root + above[: match.end()]) for match in re.finditer(r"/[^/]+", above))


def _environment(pid: int, machine: Machine) -> list[str]:
    """Return what a process was started with for `container=`, the word by which programs tell an init where it runs."""
    try:
        return [word for word in read(f"{machine.proc}/{pid}/environ").split("\0") if word.startswith("container=")]
    except OSError:
        return []
