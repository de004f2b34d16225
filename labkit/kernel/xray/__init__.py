"""X-ray of a process: everything that confines it, from /proc, cgroupfs, mountinfo and netlink alone.

Whatever runtime made a container, the kernel knows only these facts; no runtime is asked. See: proc(5), namespaces(7)
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.xray.cgroups import cgroups_of
from labkit.kernel.xray.machine import Machine, attempt
from labkit.kernel.xray.membership import hostname, id_maps, memberships
from labkit.kernel.xray.network import network_of
from labkit.kernel.xray.parts import Part, parts
from labkit.kernel.xray.records import Cgroups, IdMaps, Member, NotRead, Xray
from labkit.kernel.xray.root import root_of
from labkit.kernel.xray.security import security_of
from labkit.kernel.xray.tree import signs, tree_of

__all__ = ["Machine", "NotRead", "Part", "Xray", "parts", "xray", "xrays"]


def xray(pid: int, name: str = "", *, machine: Machine | None = None) -> Xray:
    """Read everything that confines one process; what may not be read says so, the rest is there.

    Args:
        pid: any process or thread; the first one of a container tells most.
        name: how it was asked for.
        machine: what was read for another X-ray already.

    Raises:
        LabError: there is no such process, /proc hides it, or it ended while it was read.
    """
    machine = machine or Machine()
    begun = _begin(pid, machine)
    found = _read(begun, name or str(pid), machine)
    if not _still(begun, machine):
        raise LabError(f"process {pid} ({begun.comm}) ended while it was read", remedy="the facts would not belong together: none is shown")
    return found


def xrays(targets: Sequence[tuple[str, int]], *, machine: Machine | None = None) -> tuple[Xray, ...]:
    """Read several processes; what they have in common is read once.

    Args:
        targets: (name, pid) of each.
        machine: what was read already.

    Raises:
        LabError: as `xray`.
    """
    machine = machine or Machine()
    machine.prepare([pid for _, pid in targets])
    return tuple(xray(pid, name, machine=machine) for name, pid in targets)


def _begin(pid: int, machine: Machine) -> Member:
    try:
        return machine.member(pid)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise _absent(pid, machine) from error
    except OSError as error:
        remedy = f"sudo labkit xray {pid}" if os.geteuid() else None
        why = errno.errorcode.get(error.errno or 0, "")
        raise LabError(f"process {pid} is not readable: {why}", cause=_hides(machine), remedy=remedy) from error


def _absent(pid: int, machine: Machine) -> LabError:
    """Return the error for a process that procfs does not show: it is not there, or it is hidden (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return LabError(f"there is no process {pid}")
    except OverflowError:
        return LabError(f"there is no process {pid}", cause="no pid is that large")
    except PermissionError:
        pass
    if Path(f"{machine.proc}/{pid}").exists():
        return LabError(f"process {pid} ended while it was read")
    return LabError(f"process {pid} is there, but {machine.proc} does not show it", cause=_hides(machine), remedy=f"sudo labkit xray {pid}")


def _hides(machine: Machine) -> str | None:
    options = next((each.super_options for each in reversed(machine.mounts) if each.mountpoint == machine.proc), ())
    found = [option for option in options if option.startswith("hidepid=")]
    return f"{machine.proc} is mounted with {found[0]}" if found else None


def _still(begun: Member, machine: Machine) -> bool:
    try:
        now = machine.member(begun.pid)
    except OSError:
        return False
    return now.start == begun.start and (now.kind == "zombie") == (begun.kind == "zombie")


def _read(member: Member, name: str, machine: Machine) -> Xray:
    pid, base = member.pid, f"{machine.proc}/{member.pid}"
    mounts = attempt(f"{base}/mountinfo", lambda: mountinfo(pid, Path(machine.proc)))
    maps = attempt(f"{base}/uid_map", lambda: id_maps(pid, machine))
    cgroups = attempt(f"{base}/cgroup", lambda: cgroups_of(pid, machine))
    tree = tree_of(member, maps if isinstance(maps, IdMaps) else None, machine)
    first = tree.members[0] if tree.by == "pid namespace" else member
    return Xray(
        name=name,
        process=next(each for each in tree.members if each.pid == pid),
        reference=machine.reference,
        hostname=attempt(f"{base}/ns/uts", lambda: hostname(pid, machine)),
        namespaces=attempt(f"{base}/ns", lambda: memberships(member, machine)),
        cgroups=cgroups,
        root=attempt(f"{base}/root", lambda: root_of(pid, () if isinstance(mounts, NotRead) else mounts, machine)),
        mounts=mounts,
        network=attempt(f"{base}/ns/net", lambda: network_of(pid, machine)),
        maps=maps,
        security=attempt(f"{base}/status", lambda: security_of(pid, machine)),
        tree=tree,
        signs=signs(first, _paths(cgroups), tree.outside, machine),
        parent=machine.members.get(member.ppid) if member.kind == "zombie" else None,
    )


def _paths(cgroups: Cgroups | NotRead) -> Iterable[str]:
    return () if isinstance(cgroups, NotRead) else (place.path for place in cgroups.places)
