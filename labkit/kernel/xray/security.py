"""What a process may do: capabilities, seccomp, no_new_privs, its security module's label, resource limits."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType

from labkit.errors import LabError
from labkit.kernel import credentials
from labkit.kernel.xray.machine import Machine, attempt, fields, read
from labkit.kernel.xray.records import NotRead, Security

SECCOMP = ("disabled", "strict", "filter")
"""What the number in /proc/PID/status means. See: seccomp(2)."""

Rlimits = Mapping[str, tuple[int | None, int | None]]


def security_of(pid: int, machine: Machine) -> Security:
    """Return what a process may do.

    Shell:
        grep -E 'Cap|Seccomp|NoNewPrivs' /proc/PID/status; cat /proc/PID/attr/current /proc/PID/limits
    """
    status = fields(read(f"{machine.proc}/{pid}/status"))
    seccomp, filters, new_privs = (_number(status.get(name)) for name in ("Seccomp", "Seccomp_filters", "NoNewPrivs"))
    limits = _rlimits(pid, machine)
    usual = _rlimits(machine.reference, machine)
    return Security(
        ids=credentials.ids(pid, machine.proc),
        capabilities=MappingProxyType(credentials.capabilities(pid, machine.proc)),
        known=credentials.names_of((1 << machine.capabilities + 1) - 1),
        seccomp="" if seccomp is None else SECCOMP[seccomp],
        filters=filters,
        no_new_privs=None if new_privs is None else bool(new_privs),
        label=_label(pid, machine),
        rlimits=MappingProxyType(limits),
        rlimits_differ=tuple(name for name in limits if name in usual and limits[name] != usual[name]),
        oom_score_adj=_oom_score_adj(pid, machine),
    )


def _number(word: str | None) -> int | None:
    return int(word) if word else None


def _label(pid: int, machine: Machine) -> str | NotRead:
    path = f"{machine.proc}/{pid}/attr/current"
    label = attempt(path, lambda: read(path).strip("\0\n"))
    none = isinstance(label, NotRead) and label.errno in (errno.errorcode[errno.EINVAL], errno.errorcode[errno.ENOENT])
    return "" if none else label  # EINVAL: no module labels processes


def _rlimits(pid: int, machine: Machine) -> dict[str, tuple[int | None, int | None]]:
    try:
        return credentials.rlimits(pid, machine.proc)
    except LabError:
        return {}


def _oom_score_adj(pid: int, machine: Machine) -> int | None:
    try:
        return int(read(f"{machine.proc}/{pid}/oom_score_adj"))
    except (OSError, ValueError):
        return None
