"""cgroup.subtree_control of v2: which controllers the children of a cgroup have. See: cgroups(7), cgroup-v2.rst.

What the lab switches on in a cgroup that is not its own, the root of the hierarchy, goes into the ledger: it is
switched off again at the end, unless somebody else has come to use it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import SyscallError, UnsupportedError
from labkit.kernel.cgroups import members
from labkit.kernel.cgroups.hierarchy import ALIASES
from labkit.kernel.cgroups.interface import parse

_FILE = "cgroup.subtree_control"
_SETTABLE = (".max", ".high", ".low", ".min", ".weight", ".cpus", ".mems", ".idle", ".burst", ".group")
_DEFAULTS: tuple[object, ...] = ("", 0, 100, "max", "max 100000", "default 100", {})


def words(directory: Path, file: str) -> tuple[str, ...]:
    """Return the controllers that cgroup.controllers or cgroup.subtree_control of a cgroup names."""
    return tuple(members.read(directory / file).split())


def enable(directory: Path, controllers: Iterable[str]) -> None:
    """Give the children of a v2 cgroup these controllers.

    Shell: echo +memory +pids > cgroup.subtree_control

    Raises:
        UnsupportedError: the cgroup does not have the controller itself.
        SyscallError: EBUSY where processes sit in the cgroup: only the root may have both them and controllers for its children.
    """
    wanted = [controller for controller in controllers if controller not in words(directory, _FILE)]
    offered = words(directory, "cgroup.controllers")
    for controller in wanted:
        if controller not in offered:
            found = f"{', '.join(offered) or 'none'} in {directory}/cgroup.controllers"
            above = words(directory.parent, "cgroup.controllers")
            remedy = "enable it in the parent first" if controller in above else None
            raise UnsupportedError(f"the {controller} controller of v2", found, remedy=remedy)
    if wanted:
        _write(directory, " ".join(f"+{controller}" for controller in wanted))


def disable(directory: Path, controllers: Iterable[str]) -> None:
    """Take these controllers from the children of a v2 cgroup.

    Shell: echo -memory > cgroup.subtree_control

    Raises:
        SyscallError: EBUSY where a child gives the controller on to its own children.
    """
    there = [controller for controller in controllers if controller in words(directory, _FILE)]
    if there:
        _write(directory, " ".join(f"-{controller}" for controller in there))


def _write(directory: Path, text: str) -> None:
    path = directory / _FILE
    try:
        members.write(path, text)
    except SyscallError as error:
        cause, remedy = _why(directory, text, error.errno or 0)
        raise SyscallError("write", error.errno or 0, [f'"{path}"', f'"{text}"'], cause=cause, remedy=remedy, see="cgroups(7)") from error
    trace.record(f"echo {text} > {path}", writes=[(str(path), text)])


def _why(directory: Path, text: str, number: int) -> tuple[str | None, str | None]:
    if number != errno.EBUSY:
        return None, None
    if text.startswith("-"):
        holders = _children_with(directory, text[1:].split()[0])
        return (f"given on by {', '.join(child.name for child in holders)}", "disable it there first") if holders else (None, None)
    inside = members.pids(directory)
    cause = f"processes are in the cgroup itself: {members.describe(inside)}" if inside else None
    return cause, "move them into a child first" if inside else None


def _children_with(directory: Path, controller: str) -> list[Path]:
    return [child for child in sorted(directory.iterdir()) if child.is_dir() and controller in words(child, _FILE)]


def enable_for_lab(root: Path, home: Path, controllers: Iterable[str]) -> None:
    """Give the lab's cgroups these controllers: from the root of the hierarchy to the lab's home, from there to its children."""
    offered = words(root, "cgroup.controllers")
    wanted = [controller if controller in offered else ALIASES.get(controller, controller) for controller in controllers]
    for controller in wanted:
        key = {"path": str(root), "controller": controller}
        already = controller in words(root, _FILE)
        if not already or ledger.find("cgroup-subtree-control", **key):
            if ledger.find("cgroup-subtree-control", **key, owner=ledger.owner()):
                enable(root, [controller])
                continue
            with ledger.making("cgroup-subtree-control", **key, owner=ledger.owner()) as entry:
                enable(root, [controller])
                entry.identity.update(enabled=controller)
    enable(home, wanted)


@ledger.undoes("cgroup-subtree-control")
def _undo(entry: ledger.Entry) -> None:
    root, controller = Path(entry.key["path"]), entry.key["controller"]
    if controller not in words(root, _FILE) or _wanted_by_another_lab(entry):
        return
    holders = _children_with(root, controller)
    ours = {live.key["path"] for live in ledger.live() if live.kind == "cgroup"}
    if any(str(holder) in ours for holder in holders):
        raise SyscallError("write", errno.EBUSY, [f'"{root / _FILE}"', f'"-{controller}"'], cause=f"given on by {holders[0].name}")
    if not holders and not _is_set(root, controller):
        members.write(root / _FILE, f"-{controller}")


def _wanted_by_another_lab(entry: ledger.Entry) -> bool:
    same = [other for other in ledger.live() if other.kind == entry.kind and other.id != entry.id]
    return any(other.key["path"] == entry.key["path"] and other.key["controller"] == entry.key["controller"] for other in same)


def _is_set(root: Path, controller: str) -> bool:
    """Whether somebody has set a limit of this controller in a child of the root since: then it is in use."""
    limits = [file for child in root.iterdir() if child.is_dir() for file in child.glob(f"{controller}.*") if file.name.endswith(_SETTABLE)]
    return any(parse(file.name, members.read(file)) not in _DEFAULTS for file in limits)
