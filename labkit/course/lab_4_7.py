"""Checkpoints of lab 4.7, Podman: each looks at the first process of a container, who watches over it, and who it is outside."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.course.podman_containers import absent, not_of_student, of_root, of_student
from labkit.host import account
from labkit.kernel import namespaces
from labkit.kernel.xray.machine import Machine

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Podman"
AIMS = (
    "start a container without a daemon, and say who keeps it",
    "tell what ends with conmon, and what does not",
    "run one without being root, and say who its root is outside",
    "have another program make it, and find what podman was told in the kernel",
)
NEEDS = ("root", "namespaces", "userns", "podman", "runc", "crun", "registry")


def tied(_: Lab) -> Verdict:
    """Measure that tied runs, that conmon watches over it, and that no client waits for it."""
    machine = Machine()
    pid = of_root("tied", machine)
    if pid is None:
        return absent("tied")
    clients = [each for each in machine.called("podman") if "tied" in each.argv]
    if clients:
        return Verdict(passed=False, measured="tied runs, and a client with it", cause=f"a podman waits for it, pid {clients[0].pid}")
    if not _watched(pid, machine):
        return Verdict(passed=False, measured="tied runs, and nobody watches over it", cause="its conmon has ended")
    return Verdict(passed=True, measured="tied runs, conmon watches over it, and no client waits for it")


def orphan(_: Lab) -> Verdict:
    """Measure that the first process of orphan runs, and that its parent is no conmon."""
    machine = Machine()
    pid = of_root("orphan", machine)
    if pid is None:
        return absent("orphan")
    if _watched(pid, machine):
        return Verdict(passed=False, measured="orphan runs", cause="conmon watches over it")
    return Verdict(passed=True, measured="orphan runs, and no conmon watches over it")


def rootless(_: Lab) -> Verdict:
    """Measure that mine runs, and that root in it is the labs' user outside."""
    pid = of_student("mine", Machine())
    if pid is None:
        return not_of_student("mine")
    outside = next((outside for inside, outside, _ in namespaces.uid_map(pid) if inside == 0), None)
    if outside != account.find().uid:
        return Verdict(passed=False, measured="mine runs", cause="its root is one of the subordinate ids outside")
    return Verdict(passed=True, measured=f"mine runs, its root is {account.STUDENT} outside")


def other(_: Lab) -> Verdict:
    """Measure that other runs, and that its conmon was told to have it made by crun."""
    machine = Machine()
    pid = of_root("other", machine)
    if pid is None:
        return absent("other")
    monitor = next((each for each in machine.ancestors(pid) if each.comm == "conmon"), None)
    if monitor is None:
        return Verdict(passed=False, measured="other runs", cause="its conmon has ended, and nobody else was told who made it")
    maker = next((path.rpartition("/")[2] for word, path in pairwise(monitor.argv) if word in ("-r", "--runtime")), "nobody")
    return Verdict(maker == "crun", f"other runs, made by {maker}", None if maker == "crun" else "it is the runtime of containers.conf")


def alone(_: Lab) -> Verdict:
    """Measure that the first process of alone has the user id of the labs' user, inside as outside."""
    machine = Machine()
    pid = of_student("alone", machine)
    if pid is None:
        return not_of_student("alone")
    student, outside = account.find().uid, machine.members[pid].uid
    if outside != student:
        return Verdict(passed=False, measured="alone runs", cause="its program is a subordinate id outside")
    inside = [first + student - base for first, base, count in namespaces.uid_map(pid) if base <= student < base + count]
    if inside != [student]:
        return Verdict(passed=False, measured="alone runs", cause=f"its program is {account.STUDENT} outside, and root inside")
    return Verdict(passed=True, measured="alone runs, its program has the same user id inside and outside")


def _watched(pid: int, machine: Machine) -> bool:
    return any(each.comm == "conmon" for each in machine.ancestors(pid))


STUDENT = "%%lab --user labkit-student\n"
GONE = "podman rm --force --ignore {0} > /dev/null 2>&1\n"
RUN = GONE + "podman {2} run --quiet {1} --name {0} busybox sleep 600 > /dev/null 2>&1"
ATTACHED = f"{RUN.format('tied', '', '')} &\n{until('podman wait --condition running tied > /dev/null 2>&1')}"
KILLED = "{ kill -KILL $!; wait $!; } 2> /dev/null || true\n"
FIRST = "pid=$(podman inspect --format '{{.State.Pid}}' orphan)\n"
KILLED_CONMON = "read -r conmon < <(ps -o ppid= -p $pid)\nkill -KILL $conmon\ntail --pid=$conmon --follow /dev/null\n"
ALONE = f"{RUN.format('orphan', '--detach', '')}\n{FIRST}{KILLED_CONMON}"

CHECKPOINTS = (
    Checkpoint(
        "tied",
        task="a container of root's called tied runs, and no podman waits for it",
        measure=tied,
        hints=("podman run without --detach stays: it is the client", "a signal that no program can pass on ends it: kill -KILL"),
        solution=f"{ATTACHED}{KILLED}",
        undo=GONE.format("tied"),
        near_misses={
            "the client waits": ATTACHED,
            "both are gone": f"{ATTACHED}{KILLED}podman kill tied > /dev/null; podman wait tied > /dev/null",
        },
    ),
    Checkpoint(
        "orphan",
        task="a container of root's called orphan runs, and no conmon watches over it",
        measure=orphan,
        hints=("conmon is the parent of its first process", "podman inspect knows the pid; ps -o ppid= -p PID its parent"),
        solution=ALONE,
        undo=GONE.format("orphan"),
        near_misses={
            "conmon watches": RUN.format("orphan", "--detach", ""),
            "both are gone": f"{ALONE}kill -KILL $pid; tail --pid=$pid --follow /dev/null",
        },
    ),
    Checkpoint(
        "rootless",
        task="a container of labkit-student called mine runs, and its root is labkit-student outside",
        measure=rootless,
        hints=("%%lab --user labkit-student makes a cell of that user's", "podman run needs no option for it"),
        solution=STUDENT + RUN.format("mine", "--detach", ""),
        undo=STUDENT + GONE.format("mine"),
        near_misses={
            "root's": RUN.format("mine", "--detach", ""),
            "another map": STUDENT + RUN.format("mine", "--detach --userns keep-id", ""),
        },
    ),
    Checkpoint(
        "other",
        task="a container of root's called other runs, made by crun",
        measure=other,
        hints=("which program makes it is an option of podman, before the word run", "podman --runtime crun run"),
        solution=RUN.format("other", "--detach", "--runtime crun"),
        undo=GONE.format("other"),
        near_misses={
            "made by runc": RUN.format("other", "--detach", ""),
            "made, not started": "podman --runtime crun create --quiet --name other busybox sleep 600 > /dev/null 2>&1",
        },
    ),
    Checkpoint(
        "alone",
        task="in a container of labkit-student called alone its program has the same user id inside and outside",
        measure=alone,
        hints=("man podman-run, --userns: which map keeps the user's own id?", "--userns keep-id"),
        solution=STUDENT + RUN.format("alone", "--detach --userns keep-id", ""),
        undo=STUDENT + GONE.format("alone"),
        near_misses={
            "root inside": STUDENT + RUN.format("alone", "--detach", ""),
            "the number alone": STUDENT + RUN.format("alone", "--detach --user $(id -u)", ""),
        },
    ),
)
