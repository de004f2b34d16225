"""Checkpoints of lab 4.3, Docker Engine: which of its programs a container needs, and which it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import namespaces
from labkit.kernel.xray import Machine, parts
from labkit.runtimes.docker import Docker

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Docker Engine"
AIMS = (
    "start a container, and say what the kernel got for it",
    "name the programs between you and its first process, and what each is for",
    "tell which of them it needs to go on running",
)
NEEDS = ("root", "docker", "containerd", "registry", "crun", "execs")
CLAIMS = (("docker image", "busybox"), ("docker image", "hello-world"), ("docker", "web"), ("docker", "tied"), ("docker", "mine"))

CHAIN = ("containerd-shim", "containerd", "dockerd")
"""Who keeps a container of docker, from its parent on."""


def runs(_: Lab) -> Verdict:
    """Measure that web runs, kept by docker's programs."""
    pid = _pid("web")
    if pid is None:
        return _absent("web")
    found = [part.member.comm for part in reversed(parts(pid, Machine()))][1:]
    chain = [each for each in CHAIN if each in found]
    lacking = [each for each in CHAIN if each not in found]
    cause = f"no {' and no '.join(lacking)} has to do with it" if lacking else None
    return Verdict(not lacking, f"web runs, kept by {', '.join(chain) or 'nobody'}", cause)


def tied(_: Lab) -> Verdict:
    """Measure that tied runs and that no client waits for it."""
    pid = _pid("tied")
    if pid is None:
        return _absent("tied")
    clients = [each for each in Machine().called("docker") if "tied" in each.argv]
    if clients:
        return Verdict(passed=False, measured="tied runs, and a client with it", cause=f"a docker client waits, pid {clients[0].pid}")
    return Verdict(passed=True, measured="tied runs, and no client waits for it")


def mine(_: Lab) -> Verdict:
    """Measure that mine has the machine's network, and processes of its own."""
    pid = _pid("mine")
    if pid is None:
        return _absent("mine")
    shared = namespaces.shared(pid, Machine().reference)
    wrong = [] if shared["net"] else ["its network is its own"]
    wrong += ["it sees the machine's processes"] if shared["pid"] else []
    measured = f"net {_word(shared=shared['net'])}, pid {_word(shared=shared['pid'])}"
    return Verdict(not wrong, measured, "; ".join(wrong) or None)


def _word(*, shared: bool) -> str:
    return "shared" if shared else "own"


def _pid(name: str) -> int | None:
    """Return the first process of a running container of docker."""
    return next((each.pid for each in Docker().list() if each.name == name), None)


def _absent(name: str) -> Verdict:
    there = any(each.name == name for each in Docker().list())
    cause = f"{name} is there, and has no process" if there else f"docker has no container {name}"
    return Verdict(passed=False, measured=f"{name} does not run", cause=cause)


RUN = "docker rm --force {0} > /dev/null 2>&1; docker run {1} --name {0} busybox sleep 600 > /dev/null"
GONE = "docker rm --force {} > /dev/null 2>&1"
RUNNING = until("docker top tied > /dev/null 2>&1")
KILLED = "{ kill -KILL $!; wait $!; } 2> /dev/null || true\n"
ATTACHED = f"{RUN.format('tied', '')} 2>&1 &\n{RUNNING}"

CHECKPOINTS = (
    Checkpoint(
        "runs",
        task="a container called web runs under Docker",
        measure=runs,
        hints=("docker run takes an image and a program", "docker run --detach --name web busybox sleep 600"),
        solution=RUN.format("web", "--detach"),
        undo=GONE.format("web"),
        near_misses={
            "created, not started": f"{GONE.format('web')}; docker create --name web busybox sleep 600 > /dev/null",
            "another name": RUN.format("mine", "--detach"),
        },
    ),
    Checkpoint(
        "tied",
        task="a container called tied runs, and no docker client waits for it",
        measure=tied,
        hints=("docker run without --detach stays: it is the client", "a signal that no program can pass on ends it: kill -KILL"),
        solution=f"{ATTACHED}{KILLED}",
        undo=GONE.format("tied"),
        near_misses={
            "the client waits": ATTACHED,
            "both are gone": f"{ATTACHED}{KILLED}docker kill tied > /dev/null",
        },
    ),
    Checkpoint(
        "mine",
        task="a container called mine has the machine's network, and processes of its own",
        measure=mine,
        hints=("docker run has an option for each namespace; docker run --help | grep host", "--network host"),
        solution=RUN.format("mine", "--detach --network host"),
        undo=GONE.format("mine"),
        near_misses={
            "a network of its own": RUN.format("mine", "--detach"),
            "the machine's processes, too": RUN.format("mine", "--detach --network host --pid host"),
        },
    ),
)
