"""Checkpoints of lab 6.1, operations with runc: each looks at the first process of a container, and at what the kernel holds it by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.errors import LabError
from labkit.kernel import namespaces
from labkit.kernel.cgroups import members
from labkit.kernel.xray import Machine
from labkit.kernel.xray.cgroups import cgroups_of
from labkit.runtimes import by_hand

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Operations with runc"
AIMS = (
    "make a bundle of an image, and change what it says about the container",
    "run it, list it, watch it, pause it and delete it, and see what the kernel does each time",
    "find out why a container dies at once",
)
NEEDS = ("root", "namespaces", "cgroups", "dockerd", "runc", "registry")
CLAIMS = (("runc by hand", "busybox"), ("runc by hand", "broken"), ("runc by hand", "alone"))

MOST = 20
"""Processes that the changed bundle allows."""


def limited(lab: Lab) -> Verdict:
    """Measure that busybox runs, and that the kernel lets it have so many processes and no more."""
    pid = _running(lab, "busybox")
    if isinstance(pid, Verdict):
        return pid
    limit = next((each.value for each in cgroups_of(pid, Machine()).limits if each.key == "pids.max"), "max")
    cause = None if limit == MOST else f"its cgroup says pids.max = {limit}"
    return Verdict(limit == MOST, f"busybox runs, with at most {limit} processes", cause)


def paused(lab: Lab) -> Verdict:
    """Measure that busybox is there, and frozen."""
    pid = _running(lab, "busybox")
    if isinstance(pid, Verdict):
        return pid
    frozen = bool(cgroups_of(pid, Machine()).frozen)
    return Verdict(frozen, f"busybox is {'frozen' if frozen else 'not frozen'}", None if frozen else _not_frozen(pid))


def stays(lab: Lab) -> Verdict:
    """Measure that broken runs sleep, and that it could write the time of its start."""
    pid = _running(lab, "broken")
    if isinstance(pid, Verdict):
        return pid
    program = _comm(pid)  # before the file is read: it is written before the program sleeps
    if not members.read(f"/proc/{pid}/root/started"):
        return Verdict(passed=False, measured=f"broken runs {program}", cause="there is no time in its /started")
    return Verdict(program == "sleep", f"broken runs {program}, and has written when it started")


def alone(lab: Lab) -> Verdict:
    """Measure that alone is frozen, has the machine's network and all else for itself, and no terminal."""
    pid = _running(lab, "alone")
    if isinstance(pid, Verdict):
        return pid
    machine = Machine()
    shared = namespaces.shared(pid, machine.reference)
    terminal = members.stat_fields(pid)[4] != "0"
    wrong = [
        *(["its network is its own"] if not shared["net"] else []),
        *([f"it shares the machine's {kind} namespace" for kind in ("mount", "pid", "uts", "ipc") if shared[kind]]),
        *(["it has a terminal"] if terminal else []),
        *([_not_frozen(pid)] if not cgroups_of(pid, machine).frozen else []),
    ]
    return Verdict(not wrong, f"alone {'is there' if wrong else 'is frozen, with the network of the machine'}", "; ".join(wrong) or None)


def _running(lab: Lab, name: str) -> int | Verdict:
    """Return the first process of a container; where it has none, what is not done, and why as far as that was written."""
    try:
        pid = by_hand.first(lab.directory, name)
    except LabError as error:
        return Verdict(passed=False, measured=f"{name} does not run", cause=str(error))
    if pid is not None:
        return pid
    said = members.read(lab.directory / f"{name}.log").splitlines()
    return Verdict(passed=False, measured=f"{name} has stopped", cause=f"its last word in {name}.log: {said[-1]}" if said else None)


def _not_frozen(pid: int) -> str:
    return "its process has got SIGSTOP, its cgroup is not frozen" if members.stat_fields(pid)[:1] == ["T"] else "it is not frozen"


def _comm(pid: int) -> str:
    return members.read(f"/proc/{pid}/comm")


DELETE = "runc delete --force {0}\n"
EXPORT = "mkdir -p {0}/rootfs\ndocker container export $(docker container create --quiet busybox) | tar -C {0}/rootfs -x\n"
SPEC = "rm -f {0}/config.json\nrunc spec --bundle {0}\n"
EDIT = "sed -i '{1}' {0}/config.json\n"
DETACHED = 's|"terminal": true|"terminal": false|; s|"sh"|"sleep", "600"|'
RUN = DELETE + "runc run --detach --bundle {1} {0} < /dev/null > {0}.log 2>&1\n"

BOX = "runc-container"
GIVEN = EXPORT.format(BOX) + SPEC.format(BOX)
LIMIT = EDIT.format(BOX, f's|"resources": {{|"resources": {{"pids": {{"limit": {MOST}}},|')
BACKGROUND = EDIT.format(BOX, DETACHED)
RUN_BOX = RUN.format("busybox", BOX)
PAUSED = BACKGROUND + RUN_BOX + "runc pause busybox\n"

WRITES = 's|"terminal": true|"terminal": false|; s|"sh"|"sh", "-ec", "date > /started; exec sleep 600"|; s|"uid": 0|"uid": 1000|'
BROKEN = EXPORT.format("broken") + SPEC.format("broken") + EDIT.format("broken", WRITES)
WRITABLE = EDIT.format("broken", 's|"readonly": true|"readonly": false|')
AS_ROOT = EDIT.format("broken", 's|"uid": 1000|"uid": 0|')
RUN_BROKEN = (
    DELETE.format("broken")
    + "runc run --detach --pid-file broken.pid --bundle broken broken < /dev/null > broken.log 2>&1\n"
    + until("! grep -qx sh /proc/$(cat broken.pid)/comm 2> /dev/null")
)

ALONE = EXPORT.format("alone") + SPEC.format("alone") + EDIT.format("alone", DETACHED)
SHARED = EDIT.format("alone", '/"namespaces": \\[/,/\\]/ { /{/ { N; N; /"network"/d } }')
RUN_ALONE = RUN.format("alone", "alone")

CHECKPOINTS = (
    Checkpoint(
        "limited",
        task=f"the container busybox runs, and may have {MOST} processes at most",
        measure=limited,
        hints=(
            "linux.resources in config.json is what the runtime writes into the container's cgroup",
            f'"resources": {{"pids": {{"limit": {MOST}}}, ... }}; a container that runs already keeps what it got',
            "runc run --detach needs a process with terminal: false, and a program that does not end, such as sleep 600",
        ),
        given=GIVEN,
        solution=LIMIT + BACKGROUND + RUN_BOX,
        undo=DELETE.format("busybox"),
        near_misses={
            "no limit": BACKGROUND + RUN_BOX,
            "the limit after the start": BACKGROUND + RUN_BOX + LIMIT,
            "a limit for another": LIMIT + BACKGROUND + RUN.format("other", BOX),
            "twice as many": LIMIT.replace(str(MOST), str(2 * MOST)) + BACKGROUND + RUN_BOX,
        },
    ),
    Checkpoint(
        "paused",
        task="the container busybox is there, and the kernel holds all its processes frozen",
        measure=paused,
        hints=("a signal can be handled or ignored, a frozen cgroup cannot", "runc pause busybox"),
        given=GIVEN,
        solution=PAUSED,
        undo="runc resume busybox\n",
        near_misses={
            "stopped by a signal": BACKGROUND + RUN_BOX + "runc kill busybox STOP\n",
            "paused and resumed": PAUSED + "runc resume busybox\n",
            "another one is paused": BACKGROUND + RUN_BOX + RUN.format("other", BOX) + "runc pause other\n",
        },
    ),
    Checkpoint(
        "stays",
        task="the container broken stays: it has written /started, and its program sleeps",
        measure=stays,
        hints=(
            "what its first process said before it ended is in broken.log",
            "two things keep it from writing, one behind the other: how the root is mounted, and who writes",
            "root.readonly and process.user.uid in broken/config.json; runc delete broken makes room for another try",
        ),
        given=BROKEN,
        solution=WRITABLE + AS_ROOT + RUN_BROKEN,
        undo=DELETE.format("broken"),
        near_misses={
            "as it came": RUN_BROKEN,
            "writable, and not root": WRITABLE + RUN_BROKEN,
            "root, and read only": AS_ROOT + RUN_BROKEN,
            "it no longer writes": EDIT.format("broken", "s|date > /started; ||") + RUN_BROKEN,
        },
    ),
    Checkpoint(
        "alone",
        task="a container called alone, without a terminal, has the machine's network and all else for itself, and is paused",
        measure=alone,
        hints=(
            'cp -r runc-container alone is a start; process.terminal, process.args and linux.namespaces in alone/config.json are to change',
            "a kind of namespace that config.json does not name is not made: the container stays in the machine's",
            "runc run --detach --bundle alone alone < /dev/null > alone.log 2>&1; runc pause alone",
        ),
        solution=ALONE + SHARED + RUN_ALONE + "runc pause alone\n",
        undo=DELETE.format("alone"),
        near_misses={
            "it runs": ALONE + SHARED + RUN_ALONE,
            "a network of its own": ALONE + RUN_ALONE + "runc pause alone\n",
            "no namespaces at all": ALONE + SHARED + SHARED.replace("network", "pid") + RUN_ALONE + "runc pause alone\n",
        },
    ),
)
