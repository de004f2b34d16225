"""Checkpoints of lab 2.1, control groups: each reads the kernel, never the student's variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.course.watching import counter
from labkit.errors import LabError
from labkit.kernel.cgroups import Cgroup

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Control groups"
AIMS = (
    "make a cgroup, put a process in it, read its interface files",
    "freeze and thaw a running shell, in cgroup v1 and v2",
    "limit memory, processes and CPU, and see each limit bite",
)
NEEDS = ("root", "cgroups", "freezer", "memory", "pids", "cpu", "lscgroup")
CLAIMS = ()

MEGABYTE = 1 << 20


def _state_is(wanted: str) -> Verdict:
    group = Cgroup.find("mycgroup", version=1)
    state, inside = str(group["freezer.state"]), len(group.procs())
    measured = f"freezer.state {state}, {_processes(inside)} in mycgroup"
    if not inside:
        return Verdict(passed=False, measured=measured, cause="nobody is in it")
    return Verdict(state == wanted, measured, None if state == wanted else f"freezer.state reads {state}")


def frozen(_: Lab) -> Verdict:
    """Measure that a process sits in `mycgroup` and that the kernel says FROZEN."""
    return _state_is("FROZEN")


def thawed(_: Lab) -> Verdict:
    """Measure that the process in `mycgroup` runs."""
    return _state_is("THAWED")


def oom(_: Lab) -> Verdict:
    """Measure that the kernel killed for memory in `small`, under a limit of at most 64 MB."""
    group = Cgroup.find("small")
    kills = counter(group, "memory.events", "oom_kill")
    if not _at_most(group, "memory.max", 64 * MEGABYTE):
        return Verdict(passed=False, measured=f"oom_kill {kills}", cause="memory.max is not 64M or less")
    return Verdict(kills > 0, f"memory.max 64M or less, oom_kill {kills}", None if kills else "memory.events counts no oom_kill")


def bomb(_: Lab) -> Verdict:
    """Measure that `few` holds 20 processes at most, and that the kernel refused a fork there."""
    group = Cgroup.find("few")
    refused = counter(group, "pids.events", "max")
    if not _at_most(group, "pids.max", 20):
        return Verdict(passed=False, measured=f"pids.max {group['pids.max']}", cause="pids.max is not 20 or less")
    measured = f"pids.max 20 or less, forks refused: {'yes' if refused else 'no'}"
    return Verdict(refused > 0, measured, None if refused else "pids.events counts no refused fork")


def cpu(_: Lab) -> Verdict:
    """Measure that a process in `slow` is held to a fifth of one CPU, and was really stopped by it."""
    group = Cgroup.find("slow")
    quota, _sep, period = str(group["cpu.max"]).partition(" ")
    inside, throttled = len(group.procs()), counter(group, "cpu.stat", "nr_throttled")
    measured = f"cpu.max {quota} {period}, {_processes(inside)} in slow, throttled: {'yes' if throttled else 'no'}"
    if quota == "max" or int(quota) / int(period) > 0.2:
        return Verdict(passed=False, measured=measured, cause="cpu.max allows more than a fifth of one CPU")
    if not inside:
        return Verdict(passed=False, measured=measured, cause="nobody is in it")
    return Verdict(throttled > 0, measured, None if throttled else "what is in it has not used up its quota once")


def jail(_: Lab) -> Verdict:
    """Measure that a process sits frozen in `jail`, under a memory and a process limit."""
    group = Cgroup.find("jail")
    wrong = []
    if not _at_most(group, "memory.max", 32 * MEGABYTE):
        wrong.append("memory.max is not 32M or less")
    if not _at_most(group, "pids.max", 10):
        wrong.append("pids.max is not 10 or less")
    if not _same_everywhere(group):
        wrong.append("not the same process in every hierarchy")
    elif not group.frozen:
        wrong.append("what is in it runs")
    return Verdict(not wrong, f"{4 - len(wrong)} of 4 conditions hold", "; ".join(wrong) or None)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _at_most(group: Cgroup, key: str, most: int) -> bool:
    try:
        value = str(group[key])
    except (LabError, OSError):
        return False  # the group has no directory in that controller's hierarchy
    return value != "max" and int(value) <= most


def _same_everywhere(group: Cgroup) -> bool:
    """Whether there is a process that sits in this group in each hierarchy in which the group exists."""
    inside = [set((directory / "cgroup.procs").read_text().split()) for directory in group.directories]
    return bool(inside and set.intersection(*inside))


SLEEPER = "sleep 600 >/dev/null 2>&1 &"
SET_QUOTA = """if [ -e $CPU/slow/cpu.max ]
then echo "$1 100000" > $CPU/slow/cpu.max
else echo $1 > $CPU/slow/cpu.cfs_quota_us
fi"""
SET_MEMORY = """if [ -e $MEMORY/{0}/memory.max ]
then echo {1} > $MEMORY/{0}/memory.max
else echo {1} > $MEMORY/{0}/memory.limit_in_bytes
fi"""
EMPTY = until('[ -z "$(cat $FREEZER/mycgroup/cgroup.procs)" ]')
QUOTA = "quota() {\n" + SET_QUOTA + "\n}\nmkdir -p $CPU/slow\n"
SPIN = "( while :; do :; done ) >/dev/null 2>&1 &\necho $! > $CPU/slow/cgroup.procs\n"
THROTTLED = until("grep -q 'nr_throttled [1-9]' $CPU/slow/cpu.stat")
JAIL = f"""mkdir -p $MEMORY/jail $PIDS/jail $FREEZER/jail
{SET_MEMORY.format("jail", "32M")}
echo 10 > $PIDS/jail/pids.max
"""
IN_JAIL = f"""{SLEEPER}
for directory in $MEMORY/jail $PIDS/jail $FREEZER/jail; do echo $! > $directory/cgroup.procs; done
"""
FREEZE_JAIL = """if [ -e $FREEZER/jail/freezer.state ]
then echo {} > $FREEZER/jail/freezer.state
else echo {} > $FREEZER/jail/cgroup.freeze
fi"""

CHECKPOINTS = (
    Checkpoint(
        id="frozen",
        task="a process sits in mycgroup (v1), and the kernel says FROZEN",
        measure=frozen,
        hints=(
            "the switch is the file freezer.state in the group's directory",
            "a process moves when its PID is written to cgroup.procs",
            "echo $shell > $FREEZER/mycgroup/cgroup.procs, then echo FROZEN > $FREEZER/mycgroup/freezer.state",
        ),
        given=f"mkdir -p $FREEZER/mycgroup; {SLEEPER} echo $! > $LAB/sleeper",
        solution="cat $LAB/sleeper > $FREEZER/mycgroup/cgroup.procs\necho FROZEN > $FREEZER/mycgroup/freezer.state",
        undo="echo THAWED > $FREEZER/mycgroup/freezer.state",
        near_misses={
            "frozen but empty": "echo FROZEN > $FREEZER/mycgroup/freezer.state",
            "a process in it, not frozen": "cat $LAB/sleeper > $FREEZER/mycgroup/cgroup.procs",
            "another group is frozen": "mkdir $FREEZER/other; cat $LAB/sleeper > $FREEZER/other/cgroup.procs\n"
            "echo FROZEN > $FREEZER/other/freezer.state",
        },
    ),
    Checkpoint(
        id="thawed",
        task="the process in mycgroup (v1) runs again",
        measure=thawed,
        hints=("the same file, the other word", "echo THAWED > $FREEZER/mycgroup/freezer.state"),
        given=f"mkdir -p $FREEZER/mycgroup; {SLEEPER} echo $! > $FREEZER/mycgroup/cgroup.procs\n"
        "echo FROZEN > $FREEZER/mycgroup/freezer.state",
        solution="echo THAWED > $FREEZER/mycgroup/freezer.state",
        undo="echo FROZEN > $FREEZER/mycgroup/freezer.state",
        near_misses={
            "killed, then thawed": f"kill -9 $(cat $FREEZER/mycgroup/cgroup.procs); echo THAWED > $FREEZER/mycgroup/freezer.state; {EMPTY}",
        },
    ),
    Checkpoint(
        id="oom",
        task="under a limit of 64 MB, the kernel killed for memory in the group small",
        measure=oom,
        kind="edge",
        hints=("memory.max is the limit; the kernel kills only when it is reached", "head -c 200M /dev/zero | tail, started in the group"),
        solution=f"""mkdir -p $MEMORY/small
{SET_MEMORY.format("small", "64M")}
( echo 0 > $MEMORY/small/cgroup.procs; head -c 200M /dev/zero | tail ) || true""",
        near_misses={
            "a limit, nothing killed": f"mkdir -p $MEMORY/small\n{SET_MEMORY.format('small', '64M')}",
            "killed by hand": f"mkdir -p $MEMORY/small\n{SET_MEMORY.format('small', '64M')}\n"
            "sh -c 'echo 0 > $MEMORY/small/cgroup.procs; kill -9 $$' || true",
        },
    ),
    Checkpoint(
        id="bomb",
        task="the group few holds 20 processes at most, and the kernel refused a fork in it",
        measure=bomb,
        hints=("pids.max is the limit; pids.events counts refusals", "start the bomb in the group, not beside it"),
        solution="""mkdir -p $PIDS/few; echo 20 > $PIDS/few/pids.max
sh -c 'echo 0 > $PIDS/few/cgroup.procs; bomb() { bomb | bomb & }; bomb' >/dev/null 2>&1 &
"""
        + until("grep -q 'max [1-9]' $PIDS/few/pids.events"),
        undo="echo 0 > $PIDS/few/pids.max\n"  # no fork any more, and then nobody: the bomb must not see the limit go
        + until("! kill -KILL $(cat $PIDS/few/cgroup.procs) 2> /dev/null")
        + "echo max > $PIDS/few/pids.max",
        near_misses={
            "a limit, never reached": "mkdir -p $PIDS/few; echo 20 > $PIDS/few/pids.max",
            "no limit": f"mkdir -p $PIDS/few; {SLEEPER} echo $! > $PIDS/few/cgroup.procs",
        },
    ),
    Checkpoint(
        id="cpu",
        task="a process in the group slow is held to a fifth of one CPU",
        measure=cpu,
        hints=("cpu.max holds two numbers: microseconds of CPU, in a period of microseconds", "20000 of 100000 is a fifth"),
        solution=f"{QUOTA}quota 20000\n{SPIN}{THROTTLED}",
        undo=f"{QUOTA}quota 50000",
        near_misses={
            "half a CPU": f"{QUOTA}quota 50000\n{SPIN}{THROTTLED}",
            "a quota, and nobody in it": f"{QUOTA}quota 20000",
            "a process that sleeps": f"{QUOTA}quota 20000\n{SLEEPER} echo $! > $CPU/slow/cgroup.procs",
        },
    ),
    Checkpoint(
        id="jail",
        task="a process sits frozen in jail, with at most 32 MB and 10 processes",
        measure=jail,
        hints=(
            "on a machine with cgroup v1, one group is one directory in each controller's hierarchy",
            'lab.cgroup("jail", controllers=["memory", "pids", "freezer"]) makes all three',
            'jail["memory.max"] = "32M"; jail["pids.max"] = 10; jail.attach(...); jail.freeze()',
        ),
        solution=JAIL + IN_JAIL + FREEZE_JAIL.format("FROZEN", "1"),
        undo=FREEZE_JAIL.format("THAWED", "0"),
        near_misses={
            "it runs": JAIL + IN_JAIL,
            "nobody in it": JAIL + FREEZE_JAIL.format("FROZEN", "1"),
            "twice the memory": JAIL + SET_MEMORY.format("jail", "64M") + "\n" + IN_JAIL + FREEZE_JAIL.format("FROZEN", "1"),
            "no process limit": JAIL + "echo max > $PIDS/jail/pids.max\n" + IN_JAIL + FREEZE_JAIL.format("FROZEN", "1"),
        },
    ),
)
