"""Which mounts are the lab's: told by mount id, device and type from others on the same directory, and detached alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence

from labkit import ledger
from labkit.errors import LabError, SyscallError
from labkit.kernel import syscalls
from labkit.kernel.mounts.table import at, at_or_below, children, is_mounted_on, mountinfo
from labkit.kernel.state import MountState


def describe(mount: MountState) -> str:
    """Write a mount in a few words: `/mnt (tmpfs tmpfs)`."""
    return f"{mount.mountpoint} ({mount.fstype} {mount.source})"


def is_ours(mount: MountState) -> bool:
    """Return whether the ledger holds a mount for this lab: made by it, or in a directory whose mounts it claimed."""
    claims = [entry.key["directory"] for entry in ledger.live(ledger.owner()) if entry.kind == "mounts below"]
    claimed = any(f"{mount.mountpoint}/".startswith(f"{directory}/") for directory in claims)
    return claimed or entry_of(mount) is not None


def claim(directory: str | os.PathLike[str]) -> ledger.Entry:
    """Let every mount that is made in a directory be the lab's, whoever makes it: what a student types there is undone too.

    Raises:
        LabError: something is mounted there already.
    """
    where = os.path.realpath(directory)
    known = [entry for entry in ledger.live(ledger.owner()) if entry.kind == "mounts below" and entry.key["directory"] == where]
    if not known and (there := at_or_below(where)):
        raise LabError(f"{describe(there[0])} is mounted in {where}", remedy=f"umount {there[0].mountpoint}")
    return known[-1] if known else ledger.intend("mounts below", directory=where)


def entries(target: str) -> list[ledger.Entry]:
    """Return what the ledger holds for this lab as mounted on a directory, the latest last."""
    return [entry for entry in ledger.live(ledger.owner()) if entry.kind == "mount" and entry.key["target"] == target]


def entry_of(mount: MountState) -> ledger.Entry | None:
    """Return the ledger's entry of a mount, or None where it is not this lab's."""
    found = [entry for entry in entries(mount.mountpoint) if _is_the_one(entry, mount)]
    return found[-1] if found else None


def must_be_free(target: str, line: str, alike: Callable[[MountState], bool]) -> MountState | None:
    """Return the lab's mount that is on `target` already and is what `line` would make, or None where there is none.

    Args:
        target: where.
        line: the shell line that makes the mount.
        alike: tells whether a mount that the lab did not make by itself is what `line` would make.

    Raises:
        LabError: something else is mounted there.
    """
    there = at(target) if is_mounted_on(target) else None
    if there is None:
        return None
    if not is_ours(there):
        raise LabError(f"{target} is a mount point already: {there.fstype} {there.source}", remedy="choose another directory")
    entry = entry_of(there)
    if entry.identity["line"] == line if entry and entry.identity else alike(there):
        return there
    raise LabError(f"{target} has another mount of the lab: {there.fstype} {there.source}", remedy=f"unmount it first: umount {target}")


def ours_or_refuse(target: str, among: Sequence[MountState] | None = None) -> MountState:
    """Return the topmost mount on `target`; `among` are mounts read already.

    Raises:
        LabError: there is none, or it is not the lab's.
    """
    there = at(target, among=among)
    if there is None:
        raise LabError(f"{target} is not a mount point")
    if not is_ours(there):
        raise LabError(f"{describe(there)} is no mount of the lab and stays as it is")
    return there


def refuse_strangers(mount: MountState) -> None:
    """Refuse where something that is not the lab's is mounted below a mount.

    Raises:
        LabError: names it.
    """
    entry = entry_of(mount)
    for child in children(mount):
        if not is_ours(child) and not _came_along(child, mount, entry):
            why = f"{describe(child)} is mounted below {mount.mountpoint} and is not the lab's"
            raise LabError(why, remedy=f"umount {child.mountpoint}")


def identify(entry: ledger.Entry, target: str, line: str, *, bind: bool = False) -> MountState:
    """Note in an entry how the mount that was just made is recognised, and return the mount.

    Raises:
        LabError: it is not in mountinfo.
    """
    everything = mountinfo()
    made = at(target, among=everything)
    if made is None:
        raise LabError(f"{line}: nothing is mounted on {target}")
    below = [child.id for child in children(made, among=everything)]
    entry.identity.update(id=made.id, device=made.device, fstype=made.fstype, line=line, bind=bind, below=below)
    return made


def detach(mount: MountState, entry: ledger.Entry | None, flags: int = 0, among: Iterable[MountState] | None = None) -> None:
    """Detach one mount, with what came along when it was made; in no other place anything is detached.

    Args:
        mount: which.
        entry: the ledger's, if there is one.
        flags: of umount2(2).
        among: what is mounted everywhere, if that was just read.

    Raises:
        LabError: something else is mounted below it.
        SyscallError: EBUSY.
    """
    below = children(mount, among=among)
    for child in below:
        if not _came_along(child, mount, entry):
            raise LabError(f"{describe(child)} is mounted below {mount.mountpoint}", remedy=f"first umount {child.mountpoint}")
    if below:  # private first: detaching a copy would else detach the original in its peer group
        syscalls.mount(None, mount.mountpoint, None, syscalls.MS_PRIVATE | syscalls.MS_REC)
    for child in reversed(below):
        syscalls.umount2(child.mountpoint, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)
    syscalls.umount2(mount.mountpoint, syscalls.UMOUNT_NOFOLLOW | flags)


def detach_below(directory: str) -> None:
    """Detach everything that is mounted on a directory or in it, whoever mounted it, and nothing anywhere else.

    Private first: in a peer group, detaching what is mounted below a recursive bind mount of /sys detaches it from
    /sys too.
    """
    found = at_or_below(directory)
    for mount in found:
        syscalls.mount(None, mount.mountpoint, None, syscalls.MS_PRIVATE)
    for mount in reversed(found):
        syscalls.umount2(mount.mountpoint, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)


def _came_along(child: MountState, mount: MountState, entry: ledger.Entry | None) -> bool:
    """Return whether a mount below was copied with a recursive bind, or came by propagation from its original elsewhere."""
    if entry is not None and child.id in entry.identity.get("below", ()):
        return True
    inside = {mount.id, *(other.id for other in children(mount))}
    groups = {word.split(":")[1] for word in child.optional if ":" in word}
    elsewhere = [word for other in mountinfo() if other.id not in inside for word in other.optional]
    return any(f"shared:{group}" in elsewhere for group in groups)


def _is_the_one(entry: ledger.Entry, mount: MountState) -> bool:
    """Return whether a mount is that of the entry; an entry whose maker died, or a claim, has no identity and takes what is there."""
    identity = entry.identity
    return not identity or (identity["id"], identity["device"], identity["fstype"]) == (mount.id, mount.device, mount.fstype)


@ledger.undoes("mounts below")
def _undo_claim(entry: ledger.Entry) -> None:
    detach_below(entry.key["directory"])


@ledger.undoes("mount")
def _undo(entry: ledger.Entry) -> None:
    """Detach the mount, at once or, where a process still uses it, for that process when it leaves."""
    while (there := at(entry.key["target"])) is not None:
        if not _is_the_one(entry, there):
            if any(_is_the_one(entry, mount) for mount in mountinfo() if mount.mountpoint == there.mountpoint):
                raise LabError(f"{describe(there)} lies over a mount of the lab", remedy=f"umount {there.mountpoint}")
            return
        try:
            detach(there, entry)
        except SyscallError as error:
            if error.errno != errno.EBUSY:
                raise
            detach(there, entry, syscalls.MNT_DETACH)
