"""The verbs of a lab that look at what containers keep where: from mountinfo, in the container and here."""

from __future__ import annotations

from labkit import show
from labkit.course.targets import Target
from labkit.course.views import Views
from labkit.errors import LabError
from labkit.kernel import mounts
from labkit.kernel.mounts.origin import origin, upperdir
from labkit.kernel.state import MountState
from labkit.show import View
from labkit.show.text import short_ids

_IN_MEMORY = ("tmpfs", "ramfs")


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
        inside, here = mounts.mountinfo(pid, machine.proc), mounts.mountinfo(proc=machine.proc)
        rows = []
        for place in places or ("/",):
            mount = mounts.at(place, among=inside)
            if mount is None:
                raise LabError(f"{name} has nothing mounted at {place}")
            kind, lies = _what(mount, origin(mount, here))
            rows.append((place, kind, "ro" if "ro" in mount.options else "rw", short_ids(self.short(lies))))
        return show.table((f"in {name}", "what it is", "may", "where that lies out here"), rows)


def _what(mount: MountState, there: str | None) -> tuple[str, str]:
    """Return what a mount is, and where its files are."""
    if mount.fstype == "overlay":
        return "layers", f"{upperdir(mount) or 'nowhere'}, and those below it"
    if mount.fstype in _IN_MEMORY and there is None:
        return "memory", "nowhere"
    return ("directory", there) if there else (mount.fstype, "nowhere")
