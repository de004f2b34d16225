"""The root directory of a process: on which mount it lies, of which layers that is made, and where the host sees it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel.mounts.table import mount_id, mountinfo
from labkit.kernel.overlay import layers
from labkit.kernel.state import MountState
from labkit.kernel.xray.machine import Machine, same_file
from labkit.kernel.xray.records import Root


def root_of(pid: int, mounts: Iterable[MountState], machine: Machine) -> Root:
    """Return the root directory of a process.

    Args:
        pid: the process.
        mounts: what it sees mounted.
        machine: where it runs.

    Raises:
        OSError: its root directory may not be looked at.
    """
    base = f"{machine.proc}/{pid}"
    link = os.readlink(f"{base}/root")
    mount = _mount(pid, link, tuple(mounts), machine)
    lower, upper, work = layers(mount) if mount and mount.fstype == "overlay" else ([], "", "")
    return Root(
        link=link,
        same=same_file(f"{base}/root/.", f"{machine.proc}/{machine.reference}/root/."),
        mount=mount,
        on_host=_on_host(pid, link, mount, machine),
        lowerdir=tuple(map(_resolved, lower)),
        upperdir=_resolved(upper),
        workdir=_resolved(work),
    )


def _mount(pid: int, link: str, mounts: tuple[MountState, ...], machine: Machine) -> MountState | None:
    """Return the mount on which the root directory lies.

    A process that is in a chroot is not told of the mount that its root is only a directory of: its neighbours in the mount
    namespace are asked for that.
    """
    try:
        number = mount_id(f"{machine.proc}/{pid}/root/.")
    except (OSError, StopIteration):
        number = None
    neighbour = next(_neighbours(pid, link, machine), None)
    for mount in (*mounts, *(_seen(neighbour, machine) if neighbour else ())):
        if mount.id == number or (number is None and mount.mountpoint == "/"):
            return mount
    return None


def _neighbours(pid: int, link: str, machine: Machine) -> Iterator[int]:
    if link != "/":
        for pids in machine.inhabitants("mount").values():
            if pid in pids:
                yield from (other for other in pids if other != pid and _reads(f"{machine.proc}/{other}/root") == "/")


def _seen(pid: int, machine: Machine) -> tuple[MountState, ...]:
    try:
        return mountinfo(pid, Path(machine.proc))
    except LabError:
        return ()


def _reads(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _on_host(pid: int, link: str, mount: MountState | None, machine: Machine) -> str | None:
    """Return a path by which the reader comes to the same directory, checked by device and inode."""
    candidates = [link] if link != "/" else []
    if mount is not None:
        below = "" if link == "/" else os.path.relpath(link, mount.mountpoint)
        candidates += [os.path.normpath(os.path.join(path, below)) for path in places(mount, machine.mounts)]
    return next((path for path in candidates if same_file(f"{machine.proc}/{pid}/root/.", path)), None)


def places(mount: MountState, mounts: Iterable[MountState]) -> list[str]:
    """Return where other mounts show the directory that a mount has as its root: bind mounts have a source only so."""
    found = []
    for other in mounts:
        if other.device == mount.device and f"{mount.root}/".startswith(f"{other.root.rstrip('/')}/"):
            found.append(os.path.normpath(f"{other.mountpoint}/{mount.root[len(other.root.rstrip('/')) :]}"))
    return found


def _resolved(path: str) -> str:
    """Resolve symlinks, as docker has in its lowerdir; what is not there for the reader stays as the kernel has it."""
    return os.path.realpath(path) if os.path.isabs(path) and os.path.exists(path) else path
