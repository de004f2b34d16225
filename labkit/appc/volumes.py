"""Volumes: directories of the host, and empty ones that live as long as the pod, at the mount points of the apps.

See:
    appc spec ace.md, "Volume Setup"
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.appc.app import MountPoint
    from labkit.appc.pod import Pod
    from labkit.appc.pod_manifest import Mount, PodManifest, RuntimeApp, Volume

KEPT = "sharedVolumes"
"""The directory of a pod in which its empty volumes lie."""


@dataclass(frozen=True)
class Bound:
    """One volume at one place of one app.

    Attributes:
        name: of the volume.
        source: the file or directory on the host.
        target: where the app sees it.
        read_only: whether it may write there.
        recursive: whether what is mounted below the source is seen, too.
    """

    name: str
    source: str
    target: str
    read_only: bool = False
    recursive: bool = True


def bound(pod: Pod, manifest: PodManifest, app: RuntimeApp) -> tuple[Bound, ...]:
    """Return what is mounted for an app, the upper places first: its mounts, then those mount points that no mount names.

    A mount point is served by the volume of its name. Where there is none, it gets an empty volume; `warnings` tells of it.

    Raises:
        LabError: a mount names a volume that the pod does not have, or one is to be the root.
    """
    volumes = {volume.name: volume for volume in manifest.volumes}
    points = {_place(point.path): point for point in (app.app.mount_points if app.app else ())}
    found: dict[str, Bound] = {}
    for mount in app.mounts:
        target = _place(mount.path)
        found[target] = _bound(pod, _volume(mount, volumes), target, points.get(target))
    for target, point in points.items():
        if target not in found:
            found[target] = _bound(pod, volumes.get(point.name), target, point)
    return tuple(sorted(found.values(), key=lambda one: one.target.count("/")))


def warnings(manifest: PodManifest) -> tuple[str, ...]:
    """Return what `rkt run` says of the mount points for which nobody has named a volume."""
    said = []
    names = {volume.name for volume in manifest.volumes}
    for app in manifest.apps:
        mounted = {_place(mount.path) for mount in app.mounts}
        for point in app.app.mount_points if app.app else ():
            if point.name not in names and _place(point.path) not in mounted:
                said.append(
                    f'stage1: warning: no volume specified for mount point "{point.name}", implicitly creating an "empty" volume. '
                    "This volume will be removed when the pod is garbage-collected."
                )
    return tuple(dict.fromkeys(said))


def make_empty(pod: Pod, manifest: PodManifest) -> None:
    """Make the empty volumes of a pod, those that no one has named included, each once: it is there already where a pod is run again."""
    volumes = {volume.name: volume for volume in manifest.volumes}
    for app in manifest.apps:
        for one in bound(pod, manifest, app):
            volume, place = volumes.get(one.name), pod.directory / KEPT / one.name
            if (volume is not None and volume.kind != "empty") or place.is_dir():
                continue
            place.mkdir(parents=True)
            place.chmod(_mode(volume))
            os.chown(place, (volume.uid if volume else None) or 0, (volume.gid if volume else None) or 0)


def _place(path: str) -> str:
    """Return a place in the root in one way of writing it.

    Raises:
        LabError: it is the root itself.
    """
    place = posixpath.normpath(f"/{path.lstrip('/')}")
    if place == "/":
        raise LabError(f"stage1: {path or 'no path'} is no place for a volume: it is the root of the app")
    return place


def _volume(mount: Mount, volumes: dict[str, Volume]) -> Volume:
    volume = mount.app_volume or volumes.get(mount.volume)
    if volume is None:
        raise LabError(f'stage1: no volume "{mount.volume}" for the mount at {mount.path}')
    return volume


def _bound(pod: Pod, volume: Volume | None, target: str, point: MountPoint | None) -> Bound:
    """Put a volume at a place; no volume is an empty one by the name of the mount point."""
    read_only = bool(point and point.read_only)
    if volume is None or volume.kind == "empty":
        name = volume.name if volume else point.name if point else ""
        return Bound(name, str(pod.directory / KEPT / name), target, read_only or bool(volume and volume.read_only), recursive=False)
    recursive = True if volume.recursive is None else volume.recursive
    return Bound(volume.name, _host(volume), target, read_only or bool(volume.read_only), recursive)


def _host(volume: Volume) -> str:
    """Return the source of a volume of kind host.

    Raises:
        LabError: it is not there, or a symbolic link: it would be another's to say what the pod sees.
    """
    if not os.path.lexists(volume.source):
        raise LabError(f'stage1: volume "{volume.name}": stat {volume.source}: no such file or directory')
    if os.path.islink(volume.source):
        leads = f"it leads to {os.readlink(volume.source)}"
        raise LabError(f'stage1: volume "{volume.name}": {volume.source} is a symbolic link', cause=leads)
    return os.path.normpath(volume.source)


def _mode(volume: Volume | None) -> int:
    mode = volume.mode if volume else None
    return 0o755 if mode is None else mode if isinstance(mode, int) else int(mode, 8)
