"""Who a process is and what it may: user and group ids, capability sets by name, resource limits, read from /proc.

The maps of a user namespace are read by `labkit.kernel.namespaces.uid_map`; all of it is given to a new process by
`labkit.kernel.processes.start`. See: credentials(7), capabilities(7), getrlimit(2)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError

CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP "
    "CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER "
    "CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE "
    "CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP "
    "CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF "
    "CAP_CHECKPOINT_RESTORE"
).split()
"""The names in the order of their numbers, CAP_CHOWN being 0."""

_SETS = {"CapEff": "effective", "CapPrm": "permitted", "CapInh": "inheritable", "CapBnd": "bounding", "CapAmb": "ambient"}
_LIMITS = {
    "Max cpu time": "RLIMIT_CPU",
    "Max file size": "RLIMIT_FSIZE",
    "Max data size": "RLIMIT_DATA",
    "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE",
    "Max resident set": "RLIMIT_RSS",
    "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE",
    "Max locked memory": "RLIMIT_MEMLOCK",
    "Max address space": "RLIMIT_AS",
    "Max file locks": "RLIMIT_LOCKS",
    "Max pending signals": "RLIMIT_SIGPENDING",
    "Max msgqueue size": "RLIMIT_MSGQUEUE",
    "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO",
    "Max realtime timeout": "RLIMIT_RTTIME",
}


@dataclass(frozen=True)
class Ids:
    """The ids of a process, as the reader's user namespace numbers them.

    Attributes:
        uid: real, effective, saved set and file system user id.
        gid: the same of the group.
        groups: supplementary groups.
    """

    uid: tuple[int, int, int, int]
    gid: tuple[int, int, int, int]
    groups: tuple[int, ...] = ()


def ids(pid: int | str = "self", proc: str | Path = "/proc") -> Ids:
    """Return the ids of a process.

    Shell:
        grep -E '^(Uid|Gid|Groups)' /proc/PID/status
    """
    status = _status(pid, proc)
    uid, gid, groups = ([int(word) for word in status.get(name, "").split()] for name in ("Uid", "Gid", "Groups"))
    return Ids((uid[0], uid[1], uid[2], uid[3]), (gid[0], gid[1], gid[2], gid[3]), tuple(groups))


def capabilities(pid: int | str = "self", proc: str | Path = "/proc") -> dict[str, tuple[str, ...]]:
    """Return the capability sets of a process: "effective", "permitted", "inheritable", "bounding", "ambient" to names.

    A process in a user namespace has them over what that namespace owns, and over nothing else.

    Shell:
        grep ^Cap /proc/PID/status
    """
    status = _status(pid, proc)
    return {name: names_of(int(status[field], 16)) for field, name in _SETS.items() if field in status}


def names_of(mask: int) -> tuple[str, ...]:
    """Return the names of the bits of a capability set; one that is newer than this list is called by its number."""
    known = CAPABILITIES
    return tuple(known[bit] if bit < len(known) else f"CAP_{bit}" for bit in range(mask.bit_length()) if mask >> bit & 1)


def lacking(wanted: Iterable[str], pid: int | str = "self", proc: str | Path = "/proc") -> tuple[str, ...]:
    """Return which of these capabilities a process has not in its effective set.

    Raises:
        LabError: a name that capabilities(7) does not know.
    """
    wanted = tuple(wanted)
    for name in wanted:
        if name not in CAPABILITIES:
            raise LabError(f"no capability is called {name!r}", remedy="a name of capabilities(7), such as CAP_SYS_ADMIN")
    have = capabilities(pid, proc).get("effective", ())
    return tuple(name for name in wanted if name not in have)


def rlimits(pid: int | str = "self", proc: str | Path = "/proc") -> dict[str, tuple[int | None, int | None]]:
    """Return the resource limits of a process: name to (soft, hard), None for unlimited, units as in getrlimit(2).

    Shell:
        cat /proc/PID/limits
    """
    found = {}
    for line in _read(f"{proc}/{pid}/limits", pid).splitlines()[1:]:
        name = next((name for name in _LIMITS if line.startswith(name)), None)
        if name is not None:
            soft, hard = line[len(name) :].split()[:2]
            found[_LIMITS[name]] = (_number(soft), _number(hard))
    return found


def _number(word: str) -> int | None:
    return None if word == "unlimited" else int(word)


def _status(pid: int | str, proc: str | Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in _read(f"{proc}/{pid}/status", pid).splitlines() if ":" in line)


def _read(path: str, pid: int | str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise LabError(f"there is no process {pid}") from error
