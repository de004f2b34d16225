"""The cgroups of a pod: one for all of it, below that one for each app and one for stage 1, with the limits that isolators ask for.

They lie in the lab's part of each hierarchy. Where systemd runs this process as a unit of machine.slice, and cgroups are v2's alone,
they lie in the unit's cgroup: its limits hold for the pod, and what is left of the pod ends with the unit. In v2 a cgroup that
hands controllers down has no processes of its own: all of a pod's are in leaves, and this process leaves its unit's cgroup for one.
See: cgroups(7), "No internal processes" rule; systemd.resource-control(5)
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.kernel.cgroups import Cgroup, controllers, hierarchies, members, subtree
from labkit.kernel.cgroups.delegation import make_directory
from labkit.kernel.cgroups.interface import weight_of

if TYPE_CHECKING:
    from labkit.appc.isolators import Limits
    from labkit.appc.pod import Pod

STAGE1 = "_stage1"
"""The cgroup beside those of the apps in which process 1 and the keepers are."""

SUPERVISOR = "supervisor"
"""The cgroup beside that of the pod, in a unit's, in which the supervisor is."""

_COUNTED = ("cpu", "memory", "pids")
_PERIOD = 100_000  # microseconds
_UNIT = re.compile(r"/machine\.slice/(?:[^/]+\.slice/)*[^/]+\.(?:service|scope)")


def create(pod: Pod, limits: Mapping[str, Limits]) -> Cgroup:
    """Make the cgroups of a pod, with their limits; its file `subcgroup` says where, before.

    Args:
        pod: is about to run.
        limits: of each of its apps; "" is the pod itself.

    Raises:
        UnsupportedError: this machine does not have the controller for a limit.
    """
    wanted = {controller for one in limits.values() for controller in _controllers(one)}
    wanted |= {name for name in _COUNTED if hierarchies().version_of(name)}
    name, unit = f"rkt-{pod.uuid}", own_unit()
    pod.write("subcgroup", f"{unit}/{subtree()}/{name}\n".lstrip("/"))
    group = _in_unit(unit, name, sorted(wanted)) if unit else Cgroup.create(name, sorted(wanted))
    group.child(STAGE1)
    each = {app: group.child(app) if app else group for app in limits}
    if unified := [name for name in sorted(wanted) if hierarchies().version_of(name) == 2]:
        group.enable(*unified)
    for app, one in each.items():
        _apply(one, limits[app])
    return group


def of(pod: Pod) -> Cgroup | None:
    """Return the cgroup of a pod, whichever lab ran it; None where it has none (any more)."""
    place = (pod.read("subcgroup") or "").strip()
    found = {hierarchy: hierarchy.path / place for hierarchy in hierarchies().mounted} if place else {}
    there = {name: path for hierarchy, path in found.items() if path.is_dir() for name in hierarchy.controllers or ("",)}
    return Cgroup(place.rpartition("/")[2], there) if there else None


def remove(pod: Pod) -> None:
    """Kill what is left of a pod, and remove its cgroups; where there are none, nothing is done."""
    group = of(pod)
    if group is not None:
        group.remove()


def shown(app: Cgroup) -> list[list[str]]:
    """Return the mounts, (place, file system, options) each, by which an app sees its own cgroup."""
    found = []
    for directory in app.directories:
        hierarchy = hierarchies().of(directory)
        if hierarchy is None:
            continue
        if hierarchy.version == 2:
            found.append(["/sys/fs/cgroup" if len(app.directories) == 1 else "/sys/fs/cgroup/unified", "cgroup2", ""])
        elif not hierarchy.name.startswith("name="):
            found.append([f"/sys/fs/cgroup/{hierarchy.name}", "cgroup", hierarchy.name])
    return found


def own_unit() -> str:
    """Return the cgroup of the unit below machine.slice that this process is; "" where it is none.

    A unit in which others run, too, counts as none: controllers cannot be handed down from where they are.
    """
    place, root = members.memberships(os.getpid()).get("", ""), hierarchies().unified
    if root is None or hierarchies().mode != "v2" or not _UNIT.fullmatch(place):
        return ""
    return place if members.pids(root / place.lstrip("/")) == [os.getpid()] else ""


def _in_unit(unit: str, name: str, wanted: Sequence[str]) -> Cgroup:
    """Make a cgroup in that of a unit, and hand controllers down to it, from the root on; this process goes into a leaf first."""
    root = hierarchies().unified
    assert root is not None
    above = [root]
    for part in (*Path(unit.lstrip("/")).parts, subtree()):
        above.append(above[-1] / part)
    home = above[-1]
    for directory in (home, home / SUPERVISOR, home / name):
        make_directory(directory)
    members.write(home / SUPERVISOR / "cgroup.procs", str(os.getpid()))
    controllers.enable_for_lab(above[0], above[1], wanted)
    for directory in above[2:]:
        controllers.enable(directory, wanted)
    return Cgroup(name, {"": home / name})


def _controllers(limits: Limits) -> list[str]:
    return [*(["memory"] if limits.memory is not None else []), *(["cpu"] if limits.cpu is not None or limits.cpu_shares else [])]


def _apply(group: Cgroup, limits: Limits) -> None:
    if limits.memory is not None:
        group["memory.max"] = limits.memory
        with suppress(LabError):  # a kernel that does not count swap
            group["memory.swap.max"] = 0
    if limits.cpu is not None:
        group["cpu.max"] = f"{max(1000, math.ceil(limits.cpu * _PERIOD))} {_PERIOD}"
    if limits.cpu_shares is not None:
        v1 = hierarchies().version_of("cpu") == 1
        group["cpu.shares" if v1 else "cpu.weight"] = limits.cpu_shares if v1 else weight_of(limits.cpu_shares)
