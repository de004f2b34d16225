"""Which containers run here and what they are called, as far as cgroup paths and command lines tell it; no engine is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from labkit.kernel.cgroups.delegation import TRACKERS
from labkit.kernel.xray.machine import Machine, read
from labkit.kernel.xray.records import Member

_ID = r"[0-9a-f]{64}"
_SHORT, _REST = r"[0-9a-f]{8}", r"[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_CGROUPS = (
    re.compile(rf"/(?:docker|libpod|crio|cri-containerd|nerdctl|buildah)-({_ID})\.scope(?:/|$)"),
    re.compile(rf"/(?:docker|libpod|libpod_parent|kubepods[^/]*|garden|machine\.slice)(?:/[^/]+)*/(?:libpod-)?({_ID})(?:/|$)"),
    re.compile(rf"/lab-[^/]+/(?:docker|podman|podman-rootless)\.([^/]+)/(?:run/)?(?:libpod-)?{_ID}(?:/|$)"),
    re.compile(rf"/lab-[^/]+/(?:docker|podman|podman-rootless)\.[^/]+/(?:run/)?(?:libpod-)?({_ID})(?:/|$)"),
    re.compile(r"/lxc\.payload\.([^/]+)"),
    re.compile(r"/lxc/([^/]+)"),
    re.compile(r"/machine\.slice/machine-([^/]+)\.scope"),
    re.compile(r"/lab-[^/]+/runc/([^./][^/]*)"),
    re.compile(rf"/rkt-({_SHORT})-{_REST}/([^/_][^/]*)"),  # an app of a pod, with the pod and without
    re.compile(rf"/rkt-{_SHORT}-{_REST}/([^/_][^/]*)"),
    re.compile(rf"/rkt-({_SHORT}-{_REST})/_"),
    re.compile(rf"/rkt-({_SHORT})-{_REST}/_"),
    re.compile(rf"/lab-[^/]+/{TRACKERS}/([^/]+)"),
)
"""Where cgroup paths name a container; the lab's own processes among them."""

_OPTIONS = {
    "conmon": ("-n", "--name", "-c", "--cid"),
    "containerd-shim": ("-id",),
    "containerd-shim-runc-v2": ("-id",),
    "systemd-nspawn": ("-M", "--machine"),
    "lxc-start": ("-n", "--name"),
}
"""Options by which programs that watch over a container were told its name."""

_RUNTIMES = ("runc", "crun", "youki")
"""Programs whose last word is the container's name."""

_SHORTEST = 4
"""Letters of an id that are enough to look for it."""


@dataclass(frozen=True)
class Found:
    """A container that runs.

    Attributes:
        pid: its first process.
        names: what it is called, the name before the id; empty where nothing tells.
        comm: name of its first process.
    """

    pid: int
    names: tuple[str, ...]
    comm: str

    def is_called(self, name: str) -> bool:
        """Whether this is one of its names, or the beginning of its id."""
        return name in self.names or any(
            len(name) >= _SHORTEST and re.fullmatch(_ID, each) is not None and each.startswith(name) for each in self.names
        )


def containers(machine: Machine) -> tuple[Found, ...]:
    """Return the first process of each PID namespace other than the reference's, and of each cgroup that names a container."""
    found: dict[int, Found] = {}
    seen: set[str] = set()
    for member in sorted(machine.members.values(), key=lambda each: (each.start, each.pid)):
        first = len(member.pids) > 1 and member.pids[-1] == 1
        named = list(_by_cgroup(member, machine))
        if not first and (not named or named[0] in seen):
            continue
        seen.update(named)
        names = [*(_by_monitor(member, machine) if first else ()), *named]
        found[member.pid] = Found(member.pid, tuple(dict.fromkeys(names)), member.comm)
    return tuple(found.values())


def _by_cgroup(member: Member, machine: Machine) -> Iterator[str]:
    try:
        text = read(f"{machine.proc}/{member.pid}/cgroup")
    except OSError:
        return
    for line in text.splitlines():
        path = line.split(":", 2)[2]
        for pattern in _CGROUPS:
            if match := pattern.search(path):
                yield "/".join(match.groups()).replace("\\x2d", "-")


def _by_monitor(member: Member, machine: Machine) -> Iterator[str]:
    """Yield what the nearest parents that watch over it were told its name is."""
    for above in list(machine.ancestors(member.pid))[:3]:
        program = above.argv[0].rpartition("/")[2] if above.argv else ""
        if above.argv and above.argv[0].startswith("[lxc monitor]"):  # it calls itself so: "[lxc monitor] /var/lib/lxc web"
            yield " ".join(above.argv).split()[-1]
        if program in _RUNTIMES and {"run", "create"} & set(above.argv):
            yield above.argv[-1]
        for option in _OPTIONS.get(program, _OPTIONS.get(above.comm, ())):
            yield from _values(above.argv, option)


def _values(argv: tuple[str, ...], option: str) -> Iterator[str]:
    for number, word in enumerate(argv):
        if word == option and number + 1 < len(argv):
            yield argv[number + 1]
        elif option.startswith("--") and word.startswith(f"{option}="):
            yield word.partition("=")[2]
        elif len(option) == 2 and word.startswith(option) and len(word) > 2 and not word.startswith("--"):
            yield word[2:].removeprefix("=")
