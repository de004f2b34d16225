"""Why the kernel refused a write to cgroupfs: the reasons that can be measured, and None for every other. See: cgroups(7)."""

from __future__ import annotations

import errno
from pathlib import Path

from labkit.errors import SyscallError
from labkit.kernel.cgroups import members

Why = tuple[str | None, str | None]
"""Cause and remedy."""

_PF_KTHREAD = 0x00200000
_LEAST_QUOTA_US = 1000
_NONE: Why = (None, None)


def explained(error: SyscallError, why: Why) -> SyscallError:
    """Return the same error with the cause and remedy that were measured."""
    cause, remedy = why
    return SyscallError(error.syscall, error.errno or 0, error.arguments, cause=cause, remedy=remedy, see="cgroups(7)")


def of_attach(directory: Path, pid: int, number: int) -> Why:
    """Return why a process could not be moved into a cgroup.

    Args:
        directory: the cgroup.
        pid: the process.
        number: the errno of the write to cgroup.procs.
    """
    fields = members.stat_fields(pid)
    if number == errno.ESRCH:
        return (f"no process has the pid {pid}", None) if not fields else (f"pid {pid} has ended", None) if fields[0] in "ZX" else _NONE
    if number == errno.EBUSY and (given := members.read(directory / "cgroup.subtree_control")):
        return f"{directory.name} gives {given} to its children, so only these may hold processes", "attach it to a child"
    if number == errno.EOPNOTSUPP and (kind := members.read(directory / "cgroup.type")):
        return f"its cgroup.type is {kind}", None
    if number == errno.ENOSPC:
        empty = [name for name in ("cpuset.cpus", "cpuset.mems") if (directory / name).exists() and not members.read(directory / name)]
        return (f"{' and '.join(empty)} of {directory.name} {'is' if len(empty) == 1 else 'are'} empty", "set it first") if empty else _NONE
    if number == errno.EINVAL and fields and int(fields[6]) & _PF_KTHREAD:
        return f"pid {pid} is a kernel thread", None
    return _NONE


def of_write(directory: Path, file: str, text: str, number: int) -> Why:
    """Return why an interface file did not take a value.

    Args:
        directory: the cgroup.
        file: the interface file, as this machine has it.
        text: what was written.
        number: the errno.
    """
    if number == errno.EBUSY and file.startswith("memory.") and file.endswith("limit_in_bytes"):
        used = members.read(directory / file.replace("limit", "usage"))
        return f"{used} bytes are in use and could not be reclaimed", "set a higher limit or end a process"
    if number == errno.EINVAL and file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        memory, both = (members.read(directory / name) for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"))
        return f"memory and swap together are limited to {both}, memory alone to {memory}: the second may not be more", None
    if number == errno.EINVAL and file in ("cpu.cfs_quota_us", "cpu.max"):
        return _of_quota(directory, file, text)
    if number == errno.ENODEV and file.startswith(("io.", "blkio.")):
        return f"no block device has the number {text.split()[0]}", "see lsblk"
    return _NONE


def _of_quota(directory: Path, file: str, text: str) -> Why:
    quota = text.split()[0]
    if quota.isdecimal() and int(quota) < _LEAST_QUOTA_US:
        return f"a quota of {quota} us is less than {_LEAST_QUOTA_US}", None
    above = members.read(directory.parent / file)
    if above and not above.startswith(("max", "-1")):
        return f"the cgroup above it is limited to {above} itself", None
    return _NONE
