"""What is mounted: /proc/PID/mountinfo read whole, and which processes hold a mount. See: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import SyscallError
from labkit.kernel.state import MountState

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Holder:
    """A process that keeps a mount from being detached.

    Attributes:
        pid: its number.
        comm: its name.
        how: "cwd", "root", "fd 3" or "map".
    """

    pid: int
    comm: str
    how: str

    def __str__(self) -> str:
        return f"{self.comm} (pid {self.pid}, {self.how})"


def mountinfo(pid: int | str = "self", proc: Path = Path("/proc")) -> tuple[MountState, ...]:
    """Return every mount that a process sees, in the kernel's order: a mount comes after the one it sits on.

    Shell:
        cat /proc/PID/mountinfo

    Args:
        pid: whose mount namespace.
        proc: where proc is mounted.

    Raises:
        SyscallError: ENOENT, there is no such process; EACCES.
    """
    path = Path(proc) / str(pid) / "mountinfo"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SyscallError("open", error.errno or 0, [f'"{path}"', "O_RDONLY"], see="proc_pid_mountinfo(5)") from error
    return tuple(_parse(line) for line in content.split(b"\n") if line)


def at(target: str | Path, proc: Path = Path("/proc"), among: Sequence[MountState] | None = None) -> MountState | None:
    """Return the topmost mount on a directory, or None where nothing is mounted on it; `among` are mounts read already."""
    everything = mountinfo(proc=proc) if among is None else among
    return next((mount for mount in reversed(everything) if mount.mountpoint == str(target)), None)


def is_mounted_on(target: str | Path) -> bool:
    """Whether a path leads onto a mount of its own. Costs much less than reading what is mounted everywhere.

    A mount that another one hides, further up, is not seen: the path does not lead to it.
    """
    try:
        return os.path.dirname(target) == str(target) or mount_id(target) != mount_id(os.path.dirname(target) or ".")
    except OSError:
        return at(target) is not None


def at_or_below(directory: str | Path, proc: Path = Path("/proc")) -> tuple[MountState, ...]:
    """Return the mounts on a directory and on anything in it, in the kernel's order."""
    inside = str(directory).rstrip("/") + "/"
    return tuple(mount for mount in mountinfo(proc=proc) if f"{mount.mountpoint}/".startswith(inside))


def children(mount: MountState, proc: Path = Path("/proc"), among: Iterable[MountState] | None = None) -> tuple[MountState, ...]:
    """Return the mounts that sit on `mount`, and on those, in the kernel's order; `among` are mounts read already."""
    ids, found = {mount.id}, []
    for other in mountinfo(proc=proc) if among is None else among:
        if other.parent in ids and other.id != mount.id:
            ids.add(other.id)
            found.append(other)
    return tuple(found)


def mount_id(path: str | Path) -> int:
    """Return the id of the mount that a path lies on; a symlink at its end is not followed.

    See: proc_pid_fdinfo(5)
    """
    return _mount_id(path, os.O_NOFOLLOW)


def mount_id_of(descriptor: int) -> int:
    """Return the id of the mount that an open file lies on."""
    return _mnt_id(f"/proc/self/fdinfo/{descriptor}")


def holders(mount: MountState, proc: Path = Path("/proc")) -> tuple[Holder, ...]:
    """Return the processes that use a mount: working directory, root, open file or mapping in it; each once.

    The kernel tells by mount id, so a process that sees the same directory by another mount is not taken for one.
    """
    found = []
    for name in os.listdir(proc):
        if name.isdigit():
            try:
                how = next(_uses(f"{proc}/{name}", mount), None)
                if how:
                    found.append(Holder(int(name), Path(f"{proc}/{name}/comm").read_text().strip(), how))
            except OSError:
                continue  # it ended meanwhile
    return tuple(sorted(found, key=lambda holder: holder.pid))


def _parse(line: bytes) -> MountState:
    words = line.split(b" ")  # one blank each: an empty source is an empty word
    dash = words.index(b"-", 6)
    fstype, source, super_options = words[dash + 1 : dash + 4]
    return MountState(
        id=int(words[0]),
        parent=int(words[1]),
        device=words[2].decode(),
        root=_text(words[3]),
        mountpoint=_text(words[4]),
        options=_options(words[5]),
        optional=tuple(word.decode() for word in words[6:dash]),
        fstype=_text(fstype),
        source=_text(source),
        super_options=_options(super_options),
    )


def _text(word: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), word))


def _options(word: bytes) -> tuple[str, ...]:
    return tuple(_text(option) for option in word.split(b",") if option)  # split first: a comma in a value is written as \054


def _uses(process: str, mount: MountState) -> Iterator[str]:
    for link in ("cwd", "root"):
        if _is_in(f"{process}/{link}", mount) and _mount_id(f"{process}/{link}") == mount.id:
            yield link
    for fd in os.listdir(f"{process}/fd"):
        if _is_in(f"{process}/fd/{fd}", mount) and _mnt_id(f"{process}/fdinfo/{fd}") == mount.id:
            yield f"fd {fd}"
    inside = os.fsencode(mount.mountpoint)
    with open(f"{process}/maps", "rb") as maps:
        for line in maps:
            if inside in line and _mount_id(f"{process}/map_files/{_range(line)}") == mount.id:
                yield "map"


def _is_in(link: str, mount: MountState) -> bool:
    try:
        return f"{os.readlink(link)}/".startswith(mount.mountpoint.rstrip("/") + "/")
    except OSError:
        return False


def _mount_id(path: str | Path, flags: int = 0) -> int:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | flags)
    try:
        return mount_id_of(descriptor)
    finally:
        os.close(descriptor)


def _mnt_id(fdinfo: str) -> int:
    with open(fdinfo) as file:
        return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))


def _range(line: bytes) -> str:
    """Return a mapping's address range as map_files names it: without leading zeros."""
    return "-".join(f"{int(end, 16):x}" for end in line.split(b" ")[0].split(b"-"))
