"""Isolators, read: what they mean as limits, capabilities, a system call filter, a profile, kernel parameters.

What this machine or this executor cannot do is reported, never passed over in silence.

See:
    appc spec ace.md, "Isolators"
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.appc import isolator_values as names
from labkit.errors import LabError
from labkit.kernel import seccomp
from labkit.kernel.credentials import CAPABILITIES

if TYPE_CHECKING:
    from labkit.appc.isolator_values import Isolator
    from labkit.appc.pod_manifest import PodManifest

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FSETID FOWNER KILL MKNOD NET_RAW NET_BIND_SERVICE SETUID SETGID SETPCAP SETFCAP SYS_CHROOT"
    ).split()
)
"""What an app may have where its manifest says nothing."""

_NAMESPACED = re.compile(r"net\..+|kernel\.(sem|shm.*|msg.*)|fs\.mqueue\..+")
_NOT_ENFORCED = (names.BLOCK_BANDWIDTH, names.BLOCK_IOPS, names.NETWORK_BANDWIDTH)


@dataclass(frozen=True)
class Limits:
    """What a list of isolators asks for.

    Attributes:
        capabilities: mask of the bounding set.
        no_new_privileges: whether execve(2) may never give more.
        seccomp: a filter as the kernel takes it; b"" for none.
        oom_score_adj: or None.
        profile: what /proc/self/attr/exec is to be told; "" for nothing.
        memory: bytes, or None.
        cpu: processors, or None.
        cpu_shares: or None.
        sysctl: kernel parameter to value.
        reported: isolators that ask for something and get nothing, each with the reason.
    """

    capabilities: int = 0
    no_new_privileges: bool = False
    seccomp: bytes = b""
    oom_score_adj: int | None = None
    profile: str = ""
    memory: int | None = None
    cpu: Fraction | None = None
    cpu_shares: int | None = None
    sysctl: Mapping[str, str] = field(default_factory=dict)
    reported: tuple[str, ...] = ()


def limits(isolators: Iterable[Isolator], sys: Path = Path("/sys")) -> Limits:
    """Read a list of isolators.

    Args:
        isolators: of an app, or of the pod.
        sys: where sysfs is mounted.

    Raises:
        LabError: a name or a profile that this machine does not have; two isolators that exclude each other.
    """
    asked: dict[str, Any] = {one.name: one.value for one in isolators}
    reported = [f"isolator {name} is not enforced" for name in asked if name in _NOT_ENFORCED]
    reported += [f"isolator {name} is unknown, and ignored" for name in asked if name not in names.WELL_KNOWN]
    filtered, unknown = _filter(asked)
    reported += [f"isolator seccomp: no system call is called {name}" for name in unknown]
    if names.SELINUX_CONTEXT in asked and not (sys / "fs/selinux/enforce").exists():
        reported.append(f"isolator {names.SELINUX_CONTEXT} is not enforced: this machine has no SELinux")
    return Limits(
        capabilities=_capabilities(asked),
        no_new_privileges=bool(asked.get(names.NO_NEW_PRIVILEGES)),
        seccomp=filtered,
        oom_score_adj=asked.get(names.OOM_SCORE_ADJ),
        profile=_profile(asked, sys),
        memory=None if (memory := _limit(asked, names.MEMORY)) is None else math.ceil(memory),
        cpu=_limit(asked, names.CPU),
        cpu_shares=asked.get(names.CPU_SHARES),
        sysctl={name: str(value) for name, value in asked.get(names.SYSCTL, {}).items()},
        reported=tuple(reported),
    )


def of(manifest: PodManifest) -> dict[str, Limits]:
    """Return what the isolators of each app of a pod ask for, by its name; "" is the pod itself.

    Raises:
        LabError: as `limits`.
    """
    return {"": limits(manifest.isolators), **{app.name: limits(app.app.isolators if app.app else ()) for app in manifest.apps}}


def sysctl_files(sysctl: Mapping[str, str], *, own_network: bool) -> dict[str, str]:
    """Return the files of kernel parameters to write in the pod's namespaces.

    Raises:
        LabError: a parameter that would change the host.
    """
    for name in sysctl:
        if not _NAMESPACED.fullmatch(name) or "/" in name or ".." in name or (name.startswith("net.") and not own_network):
            raise LabError(f"stage1: isolator {names.SYSCTL}: {name} is the host's, not the pod's")
    return {f"/proc/sys/{name.replace('.', '/')}": value for name, value in sysctl.items()}


def _limit(asked: Mapping[str, Any], name: str) -> Fraction | None:
    value = asked.get(name)
    amount = value.get("limit") if value else None
    return None if amount is None else names.quantity(str(amount), name)


def _capabilities(asked: Mapping[str, Any]) -> int:
    retained, removed = (asked.get(name) for name in (names.CAPABILITIES_RETAIN, names.CAPABILITIES_REMOVE))
    if retained and removed:
        raise LabError(f"stage1: {names.CAPABILITIES_RETAIN} and {names.CAPABILITIES_REMOVE} exclude each other")
    kept = [_capability(name) for name in retained["set"]] if retained else list(DEFAULT_CAPABILITIES)
    gone = [_capability(name) for name in removed["set"]] if removed else []
    return sum(1 << CAPABILITIES.index(name) for name in set(kept) - set(gone))


def _capability(name: str) -> str:
    full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
    if full not in CAPABILITIES:
        raise LabError(f"stage1: no capability is called {name}", remedy="a name of capabilities(7), such as CAP_NET_ADMIN")
    return full


def _filter(asked: Mapping[str, Any]) -> tuple[bytes, tuple[str, ...]]:
    """Return the filter that the seccomp isolators mean, and the names in it that no architecture knows."""
    retained, removed = (asked.get(name) for name in (names.SECCOMP_RETAIN, names.SECCOMP_REMOVE))
    if retained and removed:
        raise LabError(f"stage1: {names.SECCOMP_RETAIN} and {names.SECCOMP_REMOVE} exclude each other")
    value = retained or removed
    if not value:
        return b"", ()
    calls = set(value["set"]) - {"@appc.io/empty"}
    if "@appc.io/all" in calls:
        if retained:
            return b"", ()
        calls = set(seccomp.numbers())
    if not calls and removed:
        return b"", ()
    return seccomp.program(calls, retain=bool(retained), errno=value.get("errno", "")), tuple(sorted(seccomp.unknown(calls)))


def _profile(asked: Mapping[str, Any], sys: Path) -> str:
    """Return what the kernel is told before execve(2), once it is sure that it knows the profile."""
    if names.APPARMOR_PROFILE in asked:
        name = asked[names.APPARMOR_PROFILE]["name"]
        try:
            loaded = (sys / "kernel/security/apparmor/profiles").read_text()
        except OSError:
            loaded = ""
        if name not in [line.rpartition(" (")[0] for line in loaded.splitlines()]:
            raise LabError(f"stage1: the AppArmor profile {name} is not loaded on this machine")
        return f"exec {name}"
    if names.SELINUX_CONTEXT in asked and (sys / "fs/selinux/enforce").exists():
        return ":".join(str(asked[names.SELINUX_CONTEXT].get(part, "")) for part in ("user", "role", "type", "level")).rstrip(":")
    return ""
