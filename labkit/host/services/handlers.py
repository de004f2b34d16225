"""The low-level runtimes that containerd and dockerd are told of beside runc: a runtime handler is a name and a program.

See: containerd's CRI plugin, "Runtime classes"; dockerd(8), --add-runtime
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from labkit.host.services import files
from labkit.host.services.places import SYSTEMD, Places
from labkit.kernel.cgroups.hierarchy import hierarchies


def crun(places: Places) -> Path | None:
    """Return the program of the handler crun: crun itself, or what starts it on a machine that crun would refuse; None without crun."""
    program = shutil.which("crun")
    if program is None:
        return None
    return places.configuration / "crun" if _hidden(places) else Path(program)


def of_containerd(places: Places, cri: str) -> str:
    """Return the handlers of containerd's CRI as TOML: one that is named takes the place of all by default, so runc is named as well.

    Args:
        places: of this instance.
        cri: the table of the CRI plugin.
    """
    program = crun(places)
    names = {"runc": "runc", "crun": program} if program else {"runc": "runc"}
    return "".join(
        f'[{cri}.containerd.runtimes.{name}]\nruntime_type = "io.containerd.runc.v2"\n'
        f'[{cri}.containerd.runtimes.{name}.options]\nBinaryName = "{binary}"\n'
        for name, binary in names.items()
    )


def prepare(places: Places) -> bool:
    """Write what starts crun where it needs that; tell whether it changed."""
    program, hidden = shutil.which("crun"), _hidden(places)
    if program is None or hidden is None:
        return False
    return files.write(places.configuration / "crun", around(program, hidden), mode=0o755)


def around(program: str, hidden: Path) -> str:
    """Return a script that runs a program in a mount namespace of its own, in which nothing is seen of the hierarchy of v2.

    crun refuses a machine that has controllers in both versions of cgroups: there it works with v1 alone.
    """
    inside = shlex.quote(f'mount -t tmpfs none {shlex.quote(str(hidden))} && exec {shlex.quote(program)} "$@"')
    return f'#!/bin/sh\n{files.MARK}\nexec unshare --mount --propagation slave sh -c {inside} crun "$@"\n'


def _hidden(places: Places) -> Path | None:
    """Return the mount point of v2 on a machine that has controllers in both versions; of another machine nothing is known."""
    here = hierarchies()
    this = places.systemd == SYSTEMD.is_dir()
    return here.unified if this and here.mode == "hybrid" and here.v2_controllers else None
