"""The verbs of a lab that look at what containers keep where: from mountinfo, in them and here, and from what disks have in use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from labkit import show
from labkit.course.targets import Target
from labkit.course.views import Views
from labkit.errors import LabError
from labkit.kernel import disks, extents, mounts
from labkit.kernel.mounts.origin import origin, upperdir
from labkit.kernel.state import MountState
from labkit.runtimes import docker_engine
from labkit.show import View
from labkit.show.text import short_ids

LARGE = 32 * 2**20
"""How many bytes the large file of the image has whose layers are measured."""

_IN_MEMORY = ("tmpfs", "ramfs")
_COUNTS = ("no", "one", "two", "three", "four", "five")
_LITTLE = 0.2  # of a large file: what a driver notes down, and the pages of a snapshot's tree


class VolumeViews(Views):
    """What a lab can show of volumes."""

    def mounted(self, thing: Target, *places: str) -> View:
        """Tabulate mounts of a container beside those of this machine: what each shows, and where that lies out here.

        Shell: cat /proc/PID/mountinfo /proc/self/mountinfo

        Args:
            thing: as for `xray`.
            places: where they are mounted in the container; its root by default.

        Raises:
            LabError: nothing is called so, it has ended, or nothing is mounted at a place.
        """
        machine, name, pid = self._read(thing)
        inside, here = mounts.mountinfo(pid, Path(machine.proc)), mounts.mountinfo(proc=Path(machine.proc))
        rows = []
        for place in places or ("/",):
            mount = mounts.at(place, among=inside)
            if mount is None:
                raise LabError(f"{name} has nothing mounted at {place}")
            kind, lies = _what(mount, origin(mount, here))
            rows.append((place, kind, "ro" if "ro" in mount.options else "rw", short_ids(self.short(lies))))
        return show.table((f"in {name}", "what it is", "may", "where that lies out here"), rows)

    def used(self, *engines: str) -> dict[str, int]:
        """Return the bytes that engines have in use on their disks.

        Shell: sync -f $LAB/ENGINE/root; df $LAB/ENGINE/root

        Args:
            engines: called after their storage drivers.
        """
        return {engine: disks.used(self.directory / engine / "root") for engine in engines}

    def growth(self, before: Mapping[str, int]) -> View:
        """Tabulate by how much the disks of engines have grown: in whole files of the size of the image's large one.

        Args:
            before: what `used` has returned.
        """
        return show.table(("engine", "its disk grew by"), self.grown(before).items())

    def grown(self, before: Mapping[str, int]) -> dict[str, str]:
        """Return what `growth` tabulates.

        Args:
            before: what `used` has returned.
        """
        return {engine: _files((now - before[engine]) / LARGE) for engine, now in self.used(*before).items()}

    def roots(self, container: str, path: str, *engines: str) -> View:
        """Tabulate what the root of a container is in each of several engines, and whose blocks a file in it has.

        Shell: cat /proc/PID/mountinfo; filefrag -v /proc/PID/root/PATH

        Args:
            container: which every engine has.
            path: of the file, such as "/big".
            engines: called after their storage drivers.

        Raises:
            LabError: an engine has no such container, or it does not run.
        """
        here = mounts.mountinfo()
        rows = []
        for engine in engines:
            pid = docker_engine.pid(engine, container)
            mount = root_of(pid)
            lies = upperdir(mount) or origin(mount, here) or "nowhere"
            rows.append((engine, mount.fstype, short_ids(lies.removeprefix(f"{self.directory}/{engine}/root/")), blocks(pid, path)))
        return show.table(("engine", "root", "below $LAB/ENGINE/root", f"blocks of {path}"), rows)


def root_of(pid: int) -> MountState:
    """Return the mount that is the root of a process.

    Raises:
        LabError: it has ended.
    """
    mount = mounts.at("/", among=mounts.mountinfo(pid))
    if mount is None:
        raise LabError(f"process {pid} has no root")
    return mount


def blocks(pid: int, path: str) -> str:
    """Say whose blocks a file is made of that a container sees: by the upper directory, or by extents that a snapshot shares.

    Raises:
        OSError: ENOENT, it has no such file.
    """
    mount, seen = root_of(pid), Path(f"/proc/{pid}/root{path}")
    above = upperdir(mount)
    if above is not None:
        return "a copy" if Path(f"{above}{path}").exists() else "the image's"
    part = extents.shared(seen)
    if part > 1 - _LITTLE:
        return "the image's" if part == 1 else "the image's, but for some"
    return "a copy"


def _files(ratio: float) -> str:
    if abs(ratio) < _LITTLE:
        return "next to nothing"
    whole = round(abs(ratio))
    words = f"{_COUNTS[whole] if whole < len(_COUNTS) else whole} whole file{'s' * (whole != 1)}"
    return words if ratio > 0 else f"it shrank by {words}"


def _what(mount: MountState, there: str | None) -> tuple[str, str]:
    """Return what a mount is, and where its files are."""
    if mount.fstype == "overlay":
        return "layers", f"{upperdir(mount) or 'nowhere'}, and those below it"
    if mount.fstype in _IN_MEMORY and there is None:
        return "memory", "nowhere"
    return ("directory", there) if there else (mount.fstype, "nowhere")
