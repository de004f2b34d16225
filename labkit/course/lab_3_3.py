"""Checkpoints of lab 3.3, systemd-nspawn, and of the container that is made by hand beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import namespaces, roots
from labkit.kernel.cgroups import members
from labkit.kernel.xray.machine import Machine
from labkit.kernel.xray.membership import hostname

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "systemd-nspawn"
AIMS = (
    "boot a whole system in a directory, and log in at its prompt",
    "find its process 1 from outside, and tell what it shares with the machine",
    "build the same by hand with five commands, and set the two side by side",
)
NEEDS = ("root", "namespaces", "unshare", "rootfs", "systemd-nspawn", "lxc-start")
CLAIMS = (("link", "labkit-3-3"),)

KINDS = ("mount", "uts", "ipc", "net", "pid")
"""The namespaces that the container made by hand has for itself."""


def booted(lab: Lab) -> Verdict:
    """Measure that a systemd is process 1 of a PID namespace, with DebianContainer as its root."""
    for pid in roots.processes_in(lab.directory / "DebianContainer"):
        process = namespaces.process(pid)
        if process.pid_inside == 1 and _comm(pid) == "systemd":
            return Verdict(passed=True, measured="systemd is process 1 in DebianContainer")
    found = len(list(roots.processes_in(lab.directory / "DebianContainer")))
    cause = "those in it have another process 1" if found else "no process has DebianContainer as its root"
    return Verdict(passed=False, measured=f"{'some' if found else 'no'} processes in it", cause=cause)


def shell(lab: Lab) -> Verdict:
    """Measure that somebody is logged in: a shell with a terminal, in the system that runs in DebianContainer."""
    verdict = booted(lab)
    if not verdict.passed:
        return verdict
    shells = [pid for pid in roots.processes_in(lab.directory / "DebianContainer") if _comm(pid) in ("bash", "sh", "dash")]
    waiting = [pid for pid in shells if _has_terminal(pid)]
    cause = "its shell has no terminal" if shells else "no shell runs in it: the login prompt waits"
    return Verdict(bool(waiting), f"{'a' if waiting else 'no'} shell at a terminal", None if waiting else cause)


def five(lab: Lab) -> Verdict:
    """Measure that a process lives in `mine` as in a container: five namespaces, a host name, /proc, no way out."""
    tree = lab.directory / "mine"
    found = list(roots.processes_in(tree))
    if not found:
        return Verdict(passed=False, measured="no process in mine", cause="no process has mine as its root")
    best = min((_lacks(pid) for pid in found), key=len)
    measured = f"{4 - len(best)} of 4 conditions hold"
    return Verdict(not best, measured, "; ".join(best) or None)


def _lacks(pid: int) -> list[str]:
    """Return what keeps a process from being in a container of its own."""
    shared = namespaces.shared(pid, os.getpid())
    common = [kind for kind in KINDS if shared.get(kind, True)]
    lacks = [f"it shares {' '.join(common)} with the machine"] if common else []
    if not roots.is_top(pid):
        lacks.append("above its root its mount namespace goes on")
    if not _sees_itself(pid):
        lacks.append("it has no /proc of its own PID namespace")
    if hostname(pid, Machine()) != "mine":
        lacks.append("its host name is not mine")
    return lacks


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _sees_itself(pid: int) -> bool:
    """Whether process 1 of the /proc in its root is of its own PID namespace."""
    try:
        return os.stat(f"/proc/{pid}/root/proc/1/ns/pid").st_ino == os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return False


def _has_terminal(pid: int) -> bool:
    fields = members.stat_fields(pid)
    return bool(fields) and fields[4] != "0"


NSPAWN = "systemd-nspawn --register=no --keep-unit --quiet --boot --directory DebianContainer"
APART = "unshare --mount --pid --fork --kill-child --mount-proc"
IN_IT = "find -L /proc/[0-9]*/root -maxdepth 0 -samefile {} 2> /dev/null | grep -q ."
TREE = "mkdir -p DebianContainer; tar --extract --file $ROOTFS/debian.tar.xz --directory DebianContainer\n"
UP = until(
    "grep -qsx systemd $(find -L /proc/[0-9]*/root -maxdepth 0 -samefile DebianContainer 2> /dev/null | sed s/root$/comm/) /dev/null"
)
BOOT = f"{APART} {NSPAWN} --console=pipe > nspawn.log 2>&1 &\necho $! > stays\n{UP}"
TYPED = f"( {until('grep -q login: console 2> /dev/null').strip()}; echo root; exec sleep 600 ) |"
LOGIN = f"""{TYPED} script --quiet --flush --command "{APART} {NSPAWN}" console > /dev/null 2>&1 &
echo $! > stays
{until("grep -q '# ' console 2> /dev/null")}"""
ENDED = "kill -KILL $(cat stays); " + until("! " + IN_IT.format("{}"))
MINE = "mkdir -p mine/bin mine/proc mine/old; cp /bin/busybox mine/bin/\n"
FIVE = """unshare --mount --uts --ipc --net --pid --fork --kill-child bash -e -c '
  mount --bind mine mine; cd mine
  {hostname}pivot_root . old
  exec /bin/busybox sh -c "{proc}busybox umount -l /old; exec busybox sleep 600"' > /dev/null 2>&1 &
"""
STAYS = until("grep -qz '^sleep' /proc/$(pgrep --parent $!)/cmdline 2> /dev/null") + "echo $! > stays\n"
PROC = "busybox mount -t proc proc /proc; "
NAME = "hostname mine; "

CHECKPOINTS = (
    Checkpoint(
        id="booted",
        task="a systemd is process 1 of a PID namespace, with DebianContainer as its root",
        measure=booted,
        hints=(
            "systemd-nspawn -b runs the init of a tree; -D names the tree",
            'lab.boot("DebianContainer") does it on a terminal of its own',
            "where no systemd runs, nspawn wants a PID namespace around it, and --register=no --keep-unit",
        ),
        given=TREE,
        solution=BOOT,
        undo=ENDED.format("DebianContainer"),
        near_misses={
            "a program in the tree, no init": "chroot DebianContainer sleep 600 > /dev/null 2>&1 &\n"
            + until(IN_IT.format("DebianContainer")),
            "nspawn without -b": f"{APART} {NSPAWN.replace('--boot ', '')} --console=pipe sleep 600 > nspawn.log 2>&1 &\n"
            + until(IN_IT.format("DebianContainer")),
        },
    ),
    Checkpoint(
        id="shell",
        task="somebody is logged in to the system in DebianContainer: a shell waits at a terminal there",
        measure=shell,
        hints=("the prompt wants a name: root, without a password", 'console.log_in("root")'),
        given=TREE,
        solution=LOGIN,
        undo=ENDED.format("DebianContainer"),
        near_misses={
            "booted, nobody logged in": BOOT,
            "a shell in the tree, no system": "sleep 600 | script -q -c 'chroot DebianContainer sh' console > /dev/null 2>&1 &\n"
            + until(IN_IT.format("DebianContainer")),
        },
    ),
    Checkpoint(
        id="five",
        task="a process lives in mine as in a container: five namespaces of its own, the host name mine, its own /proc, no way out",
        measure=five,
        hints=(
            "unshare has an option for each namespace; --pid wants --fork",
            "inside: mount --bind, pivot_root, mount -t proc, umount -l, and exec",
            "busybox in mine/bin has mount, umount, sleep; hostname mine sets the name",
        ),
        solution=MINE + FIVE.format(hostname=NAME, proc=PROC) + STAYS,
        undo=ENDED.format("mine"),
        near_misses={
            "the network is the machine's": (MINE + FIVE.format(hostname=NAME, proc=PROC) + STAYS).replace(" --net", ""),
            "no name": MINE + FIVE.format(hostname="", proc=PROC) + STAYS,
            "chroot": MINE
            + "unshare --uts --ipc --net --pid --fork --kill-child --mount sh -c '"
            + "hostname mine; mount -t proc proc mine/proc; exec chroot mine /bin/busybox sleep 600' > /dev/null 2>&1 &\n"
            + STAYS,
        },
    ),
)
