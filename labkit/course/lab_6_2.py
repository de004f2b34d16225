"""Checkpoints of lab 6.2, the life of a container with Docker: what the kernel was told for it, by its cgroup and its first process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.course.targets import cgroup_of
from labkit.kernel import credentials, namespaces
from labkit.kernel.xray import Machine
from labkit.runtimes.docker import Docker

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "The life of a container with Docker"
AIMS = (
    "take a container through every state that Docker has for it, and say what the kernel has in each",
    "set limits, see them in the kernel, and feel them",
    "tell who comes back after a kill, and what --privileged gives away",
)
NEEDS = ("root", "namespaces", "cgroups", "dockerd", "registry")
CLAIMS = (("link", "lab62"),)

MEGABYTE = 2**20
FEW = 20


def paused(_: Lab) -> Verdict:
    """Measure that the kernel holds every process of trusting_driscoll frozen."""
    pid = _pid("trusting_driscoll")
    if pid is None:
        return _absent("trusting_driscoll")
    if cgroup_of(pid).frozen:
        return Verdict(passed=True, measured="trusting_driscoll is there, its cgroup is frozen")
    state = Machine().member(pid).state
    cause = "its first process was stopped by a signal" if state == "T" else "its cgroup is not frozen"
    return Verdict(passed=False, measured="trusting_driscoll runs", cause=cause)


def memory(_: Lab) -> Verdict:
    """Measure that the container memory has at most 200 MB, and that the kernel killed in it for want of memory."""
    pid = _pid("memory")
    if pid is None:
        return _absent("memory")
    allowed, killed = _memory_max(pid), _number(cgroup_of(pid)["memory.events"], "oom_kill")
    measured = f"{_megabytes(allowed)}, {'killed in it' if killed else 'nothing killed in it'}"
    if allowed is None or allowed > 200 * MEGABYTE:
        return Verdict(passed=False, measured=measured, cause="it may have more than 200 MB")
    return Verdict(bool(killed), measured, None if killed else "nothing in it has needed more memory than it may have")


def few(_: Lab) -> Verdict:
    """Measure that at most 20 processes can be in the container few: by its cgroup, or by a limit of its user that holds for that user."""
    pid = _pid("few")
    if pid is None:
        return _absent("few")
    counted = cgroup_of(pid)["pids.max"]
    if isinstance(counted, int) and counted <= FEW:
        return Verdict(passed=True, measured=f"pids.max is {FEW} or less")
    allowed, _hard = credentials.rlimits(pid).get("RLIMIT_NPROC", (None, None))
    if allowed is None or allowed > FEW:
        return Verdict(passed=False, measured="few runs", cause=f"neither its cgroup nor RLIMIT_NPROC says {FEW}")
    exempt = credentials.ids(pid).uid[0] == 0 or len(credentials.lacking(("CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"), pid)) < 2
    cause = "it is root's, whom RLIMIT_NPROC does not hold" if exempt else None
    return Verdict(not exempt, f"RLIMIT_NPROC is {FEW} or less", cause)


def alone(_: Lab) -> Verdict:
    """Measure that alone may set up the machine's network and has little else: not every capability, and at most 64 MB."""
    pid = _pid("alone")
    if pid is None:
        return _absent("alone")
    may = credentials.capabilities(pid)["effective"]
    allowed = _memory_max(pid)
    wrong = [] if namespaces.shared(pid, Machine().reference)["net"] else ["its network is its own"]
    wrong += [] if "CAP_NET_ADMIN" in may else ["CAP_NET_ADMIN is missing"]
    wrong += ["it has CAP_SYS_ADMIN, as with --privileged"] if "CAP_SYS_ADMIN" in may else []
    wrong += ["it may have more than 64 MB"] if allowed is None or allowed > 64 * MEGABYTE else []
    return Verdict(not wrong, f"alone runs, {_megabytes(allowed)}", "; ".join(wrong) or None)


def _pid(name: str) -> int | None:
    """Return the first process of a container that Docker has started."""
    return next((each.pid for each in Docker().list() if each.name == name), None)


def _absent(name: str) -> Verdict:
    there = any(each.name == name for each in Docker().list())
    cause = f"{name} is there, and has no process" if there else f"docker has no container {name}"
    return Verdict(passed=False, measured=f"{name} does not run", cause=cause)


def _memory_max(pid: int) -> int | None:
    allowed = cgroup_of(pid)["memory.max"]
    return allowed if isinstance(allowed, int) else None


def _megabytes(allowed: int | None) -> str:
    return "no limit of memory" if allowed is None else f"at most {allowed / MEGABYTE:g} MB"


def _number(counters: object, field: str) -> int:
    return int(counters.get(field, 0)) if isinstance(counters, dict) else 0


GONE = "docker container rm --force {0} > /dev/null 2>&1\n"
IMAGE = "docker image pull --quiet alpine > /dev/null\n"
RUN = IMAGE + GONE + "docker container run --detach --name {0} {1} alpine {2} > /dev/null 2>&1\n"
LOOP = RUN.format("trusting_driscoll", "", "sh -c 'while [ 1 ];do echo \"hello world from container\"; sleep 1; done'")
FIRST = "$(docker container inspect --format '{{.State.Pid}}' trusting_driscoll)"
HOG = "docker container exec memory tail /dev/zero || true\n"
GIVEN = RUN.format("few", "--ulimit nproc=20", "top")
ALONE = "--net host --cap-add NET_ADMIN --memory 64m"

CHECKPOINTS = (
    Checkpoint(
        "paused",
        task="the container trusting_driscoll is paused: all of its processes are frozen",
        measure=paused,
        hints=("it shall not run, and not end either", "docker container pause trusting_driscoll"),
        solution=LOOP + "docker container pause trusting_driscoll > /dev/null\n",
        undo="docker container unpause trusting_driscoll > /dev/null\n",
        near_misses={
            "it runs": LOOP,
            "stopped by a signal": LOOP + f"kill -STOP {FIRST}\n" + until(f"grep -q '^State:.T' /proc/{FIRST}/status"),
            "ended": LOOP + "docker container kill trusting_driscoll > /dev/null; docker container wait trusting_driscoll > /dev/null\n",
        },
    ),
    Checkpoint(
        "memory",
        task="in the container memory, which may have 200 MB, the kernel killed for want of memory",
        measure=memory,
        hints=(
            "--memory 200m is the limit; something in the container has to want more",
            "tail keeps all of a line, and /dev/zero is one line without an end",
            "docker container exec memory tail /dev/zero",
        ),
        solution=RUN.format("memory", "--memory 200m", "top") + HOG,
        undo=GONE.format("memory"),
        near_misses={
            "nothing wants it": RUN.format("memory", "--memory 200m", "top"),
            "killed by hand": RUN.format("memory", "--memory 200m", "top")
            + "docker container exec memory sh -c 'kill -KILL $$' || true\n",
            "another limit": RUN.format("memory", "--memory 300m", "top") + HOG,
        },
    ),
    Checkpoint(
        "few",
        task="the container few runs, and no more than 20 processes can be in it",
        measure=few,
        hints=(
            "man 2 setrlimit, RLIMIT_NPROC: whose processes does it count, and whom does it not hold?",
            "a cgroup counts processes, whoever they are of: pids.max",
            "docker container run -d --name few --pids-limit 20 alpine top",
        ),
        given=GIVEN,
        solution=RUN.format("few", "--pids-limit 20", "top"),
        undo=GONE.format("few"),
        near_misses={
            "a limit that does not hold for root": GIVEN,
            "not started": f"{IMAGE}{GONE.format('few')}docker container create --name few --pids-limit 20 alpine top > /dev/null\n",
            "twice as many": RUN.format("few", "--pids-limit 40", "top"),
        },
    ),
    Checkpoint(
        "alone",
        task="the container alone may change the machine's network, has at most 64 MB, and is not privileged",
        measure=alone,
        hints=(
            "--privileged gives every capability; docker run --help | grep cap gives one",
            "capabilities(7): which of them sets an address?",
            "--net host --cap-add NET_ADMIN, and the option for memory",
        ),
        solution=RUN.format("alone", ALONE, "top"),
        undo=GONE.format("alone"),
        near_misses={
            "privileged": RUN.format("alone", "--net host --privileged --memory 64m", "top"),
            "a network of its own": RUN.format("alone", "--cap-add NET_ADMIN --memory 64m", "top"),
            "no capability": RUN.format("alone", "--net host --memory 64m", "top"),
            "no limit": RUN.format("alone", "--net host --cap-add NET_ADMIN", "top"),
        },
    ),
)
