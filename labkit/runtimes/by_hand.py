"""runc as a person types it in a lab: its state and its cgroups are the lab's, so that what is started by hand goes with the lab.

A small program of the same name stands before the machine's in PATH. It moves into a cgroup of the lab, since runc makes those of a
container beside its own, and tells runc where to keep what it knows. See: runc(8), cgroups(7)
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.kernel import commands, trees
from labkit.kernel.cgroups import controllers, delegation, hierarchies, members
from labkit.kernel.processes import ending
from labkit.runtimes import lifecycle

PROGRAM = "runc"

_KIND = "runc by hand"
_CLAIM = "runc by hand claim"
_EVERYBODY = Path("/run/runc")
"""Where runc keeps its containers if nobody tells it otherwise."""

_HYBRID = Path("/sys/fs/cgroup/unified")
"""Where runc looks for v2 beside v1. There alone it does not begin at its own cgroup, but at the mount point."""

_DOOR = """#!/bin/sh -e
# runc, with its state in this lab, and with cgroups of the lab for a container that names none
for cgroup in {cgroups}; do echo $$ > "$cgroup"/cgroup.procs; done
{command}
"""


def state(directory: Path) -> Path:
    """Return where runc keeps its containers in a lab."""
    return directory / "runc"


def path(directory: Path) -> list[str]:
    """Return what comes first in PATH in a lab: nothing where neither runc nor rkt is typed."""
    own = directory / "bin"
    return [str(own)] if any((own / program).is_file() for program in (PROGRAM, "rkt")) else []


def first(directory: Path, name: str) -> int | None:
    """Return the first process of a container that was started in a lab, or in a terminal beside it; None where it has ended.

    Args:
        directory: of the lab.
        name: of the container.

    Raises:
        LabError: runc has no such container.
    """
    for root in (state(directory), _EVERYBODY):
        with suppress(OSError, ValueError):
            said = json.loads((root / name / "state.json").read_text())
            pid, start = said["init_process_pid"], said["init_process_start"]
            return pid if ending.known(pid) == (pid, start) and members.stat_fields(pid)[:1] not in ([], ["Z"]) else None
    raise LabError(f"runc has no container {name}")


def claim(name: str) -> None:
    """Take a name for this lab that a person will give a container of runc by hand; in a lab of its own state it is free."""
    lifecycle.homes()
    ledger.intend(_CLAIM, name=name)


def is_claimed() -> bool:
    """Return whether the lab that owns what is made has runc typed in it."""
    return any(entry.kind == _CLAIM for entry in ledger.live(ledger.owner()))


def make(directory: Path) -> None:
    """Make what stands before runc in a lab: housekeeping, kept out of the trace.

    Args:
        directory: of the lab. `runc.env` there has PATH for a terminal.

    Raises:
        UnsupportedError: there is no runc.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise commands.missing(PROGRAM)
    with trace.silent():
        places = {hierarchy.path: _place(hierarchy.path) for hierarchy in hierarchies().mounted if not hierarchy.own}
        ledger.made(ledger.intend(_KIND, directory=str(directory)))
        door = trees.make_tree(directory / "bin") / PROGRAM
        command = f'exec {shlex.join([program, "--root", str(state(directory))])} "$@"'
        if hierarchies().mode == "hybrid" and _HYBRID in places:
            script = f"{shlex.join(['mount', '--bind', str(places[_HYBRID]), str(_HYBRID)])}; {command}"
            command = f'exec unshare --mount sh -ec {shlex.quote(script)} sh "$@"'
        door.write_text(_DOOR.format(cgroups=shlex.join(map(str, places.values())), command=command))
        door.chmod(0o755)
        (directory / "runc.env").write_text(f'export PATH={shlex.quote(str(door.parent))}:"$PATH"\n')


def _place(root: Path) -> Path:
    """Return the cgroup in which runc itself runs, so that its containers come to be at runc/NAME in the lab's part of the hierarchy.

    In v1 they come below it. Where there is v2 alone they come beside it, and get every controller.
    """
    home = delegation.home_in(root)
    group = home / PROGRAM
    delegation.make_directory(group)
    if hierarchies().mode != "v2":
        return group
    controllers.enable(group, controllers.words(home, "cgroup.subtree_control"))
    delegation.make_directory(group / ".typed")
    return group / ".typed"


def _elsewhere(directory: Path) -> Iterator[str]:
    """Yield the containers of bundles in a directory that were started with everybody's state."""
    for file in _EVERYBODY.glob("*/state.json"):
        with suppress(OSError, ValueError):
            labels = json.loads(file.read_text())["config"]["labels"] or []
            bundles = [Path(label.removeprefix("bundle=")) for label in labels if label.startswith("bundle=")]
            if any(bundle.is_relative_to(directory) for bundle in bundles):
                yield file.parent.name


@ledger.undoes(_KIND)
def _undo(entry: ledger.Entry) -> None:
    """Remove what was started in a terminal that knew nothing of the lab; the rest goes with the lab's cgroups and files.

    Raises:
        LabError: runc does not remove it.
    """
    directory = Path(os.path.realpath(entry.key["directory"]))
    for name in _elsewhere(directory):
        done = commands.run([PROGRAM, "delete", "--force", name], check=False, timeout=30)
        if (_EVERYBODY / name).exists():
            raise LabError(f"runc does not remove {name}", cause=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else None)


@ledger.undoes(_CLAIM)
def _undo_claim(entry: ledger.Entry) -> None:
    """Leave it to the lab's directory and cgroups: the name is taken nowhere else."""
