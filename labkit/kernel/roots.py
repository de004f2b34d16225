"""The root directory of a process, and whether it is the top of its mount namespace.

See: chroot(2), path_resolution(7)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from labkit.kernel import syscalls
from labkit.kernel.network.netlink import in_thread

Location = str | Path
_Identity = tuple[int, int]


def processes_in(root: Location, proc: Path = Path("/proc")) -> Iterator[int]:
    """Yield the processes whose `/` is this directory, by chroot(2) or by pivot_root(2).

    Shell: find -L /proc/[0-9]*/root -maxdepth 0 -samefile ROOT

    Args:
        root: the directory, as the caller sees it.
        proc: where procfs is mounted.
    """
    wanted = _identity(root)
    if wanted is not None:
        yield from (int(name) for name in os.listdir(proc) if name.isdigit() and _identity(proc / name / "root") == wanted)


def is_top(pid: int) -> bool:
    """Tell whether the root of a process is the top of its mount namespace: then no `..` leads out of it.

    A thread of ours enters the namespace, which puts the thread at its top, and looks there.

    Raises:
        SyscallError: EPERM without CAP_SYS_ADMIN.
        OSError: ENOENT or ESRCH of a process that is gone.

    See: setns(2), pivot_root(2)
    """
    own = os.stat(f"/proc/{pid}/root")
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return (own.st_dev, own.st_ino) == in_thread(lambda: _top(namespace))
    finally:
        os.close(namespace)


def mapped(pid: int) -> tuple[str, ...]:
    """Return the files that a process has mapped into its memory: its program, its loader and its libraries.

    See: proc_pid_maps(5)
    """
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return ()  # it has ended
    return tuple(dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if "/" in line))


def release(root: Location) -> str:
    """Return what a system calls itself, as its etc/os-release says, or "" where it has none.

    See: os-release(5)
    """
    try:
        lines = Path(root, "etc/os-release").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "")


def _top(namespace: int) -> _Identity:
    syscalls.unshare(syscalls.CLONE_FS)  # the root directory of this thread alone: setns refuses one that is shared
    syscalls.setns(namespace, syscalls.CLONE_NEWNS)
    status = os.stat("/")
    return status.st_dev, status.st_ino


def _identity(path: Location) -> _Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
