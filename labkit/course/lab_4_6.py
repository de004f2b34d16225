"""Checkpoints of lab 4.6, LXD: each looks at the first process of a container that LXD keeps, and at what confines it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.host import services
from labkit.kernel import namespaces
from labkit.kernel.cgroups import hierarchies
from labkit.kernel.cgroups.members import read
from labkit.kernel.xray.containers import Found, containers
from labkit.kernel.xray.machine import Machine
from labkit.runtimes import lxd_daemon

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "LXD"
AIMS = (
    "set up LXD from a file, and run a whole system from an image of your own",
    "tell the daemon from the monitor of a container, and say who its root is outside",
    "set limits while it runs, and find them in the kernel",
)
NEEDS = ("root", "namespaces", "lxd", "lxc", "lxc-unprivileged")
CLAIMS = (("lxd", "lab"), ("lxd", "bare"), ("lxd", "web"), ("lxd", "mended"))
MEMORY = 32 << 20


def launched(_: Lab) -> Verdict:
    """Measure that LXD runs web, and that its root is another user outside."""
    found = _of_lxd("web")
    if found is None:
        return _absent("web")
    if _root(found.pid) == 0:
        return Verdict(passed=False, measured="web runs", cause="its root is root outside: it is privileged")
    return Verdict(passed=True, measured="web runs, its root is another user outside")


def limited(_: Lab) -> Verdict:
    """Measure that web may have 32 MB and one CPU."""
    found = _of_lxd("web")
    if found is None:
        return _absent("web")
    memory, cpus = _memory(found.pid), len(os.sched_getaffinity(found.pid))
    wrong = [] if memory == MEMORY else [f"memory: {'no limit' if memory is None else f'{memory >> 20} MB'}"]
    wrong += [] if cpus == 1 else ["it may run on more than one CPU"]
    return Verdict(not wrong, "32 MB, one CPU" if not wrong else "web runs", "; ".join(wrong) or None)


def mended(_: Lab) -> Verdict:
    """Measure that mended runs, with the profile bare and no device of its own."""
    found = _of_lxd("mended")
    if found is None:
        return _absent("mended")
    there = lxd_daemon.of_the_labs().instance("mended") or {}
    if there.get("profiles") != ["bare"]:
        return Verdict(passed=False, measured="mended runs", cause="it has another profile than bare")
    if there.get("devices"):
        return Verdict(passed=False, measured="mended runs", cause="its disk is its own: the profile bare still has none")
    return Verdict(passed=True, measured="mended runs, its disk is that of the profile bare")


def _of_lxd(name: str) -> Found | None:
    """Return a container whose parent is a monitor that says the directory of the labs' LXD."""
    machine, directory = Machine(), str(services.places().lxd / "containers")
    for found in containers(machine):
        member = machine.members.get(found.pid)
        above = machine.members.get(member.ppid) if member else None
        if above and " ".join(above.argv).split()[-2:] == [directory, name]:
            return found
    return None


def _absent(name: str) -> Verdict:
    there = lxd_daemon.of_the_labs().instance(name)
    return Verdict(passed=False, measured=f"{name} does not run", cause=f"LXD has {name}, stopped" if there else f"LXD has no {name}")


def _root(pid: int) -> int | None:
    return next((outside for inside, outside, _ in namespaces.uid_map(pid) if inside == 0), None)


def _memory(pid: int) -> int | None:
    """Return the limit in the cgroup of a process, of whichever version memory is."""
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        for hierarchy in hierarchies().mounted:
            file = "memory.limit_in_bytes" if "memory" in names.split(",") else "memory.max"
            text = read(hierarchy.path / path[1:] / file).strip() if hierarchy.version == (1 if names else 2) else ""
            if text.isdigit():
                return int(text)
    return None


SET_UP = """mkdir -p tree/bin tree/sbin tree/usr/bin tree/usr/sbin tree/dev tree/etc tree/proc tree/sys tree/tmp tree/root
cp $(command -v busybox) tree/bin/busybox; chroot tree /bin/busybox --install -s
echo '::respawn:/bin/sleep 600' > tree/etc/inittab
printf 'architecture: %s\\ncreation_date: 1\\n' $(uname -m) > metadata.yaml
tar -cf image.tar metadata.yaml --transform 's,^tree,rootfs,S' tree
lxd init --preseed << 'END'
storage_pools: [{name: lab, driver: dir}]
profiles: [{name: lab, config: {raw.lxc: lxc.signal.halt=SIGUSR1}, devices: {root: {type: disk, path: /, pool: lab}}}]
END
lxc image import image.tar --alias lab > /dev/null
"""
LAUNCH = "lxc launch lab {0} --profile {1} > /dev/null 2>&1\n"
LIMIT = "lxc config set web limits.memory={}\n"
ONE_CPU = "lxc config set web limits.cpu=1\n" + until('[ "$(lxc exec web -- nproc)" = 1 ]')
BARE = "lxc profile create bare > /dev/null\n"
DISK = "lxc profile device add bare root disk path=/ pool=lab > /dev/null\n"
GONE = "lxc delete --force {}\n"

CHECKPOINTS = (
    Checkpoint(
        id="launched",
        task="LXD runs a container called web, and its root is not root outside",
        measure=launched,
        hints=("launch is init and start in one", "lxc launch IMAGE web --profile lab"),
        given=SET_UP,
        solution=LAUNCH.format("web", "lab"),
        undo=GONE.format("web"),
        near_misses={
            "made, not started": "lxc init lab web --profile lab > /dev/null 2>&1\n",
            "privileged": LAUNCH.format("web", "lab --config security.privileged=true"),
        },
    ),
    Checkpoint(
        id="limited",
        task="web may have 32 MB of memory and one CPU",
        measure=limited,
        hints=("lxc config set takes effect while it runs", "limits.memory is a size, such as 32MiB; limits.cpu is how many"),
        given=SET_UP + LAUNCH.format("web", "lab"),
        solution=LIMIT.format("32MiB") + ONE_CPU,
        undo="lxc config unset web limits.memory\n",
        near_misses={
            "twice the memory": LIMIT.format("64MiB") + ONE_CPU,
            "half the time of each CPU": LIMIT.format("32MiB") + "lxc config set web limits.cpu.allowance=50%\n",
        },
    ),
    Checkpoint(
        id="mended",
        task="a container called mended runs, which has nothing but the profile bare",
        measure=mended,
        hints=(
            "each instance needs a disk for /: its own, or one of a profile",
            "lxc profile device show lab shows how the other profile has it",
            "lxc profile device add bare root disk path=/ pool=lab",
        ),
        given=SET_UP + BARE,
        solution=DISK + LAUNCH.format("mended", "bare"),
        undo=GONE.format("mended"),
        near_misses={
            "another profile": LAUNCH.format("mended", "lab"),
            "a disk of its own": LAUNCH.format("mended", "bare --storage lab"),
            "made, not started": DISK + "lxc init lab mended --profile bare > /dev/null 2>&1\n",
        },
    ),
)
