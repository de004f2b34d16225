"""Checkpoints of lab 4.5, rkt set up: pods as they lie on disk, and who holds their locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.appc.listing import PodView
from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pods import Pods
from labkit.course import rkt_images
from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.runtimes import rkt_by_hand

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "rkt"
AIMS = (
    "say what became of rkt, and what answers to its name here",
    "run a pod without a daemon, and say who keeps it and what ends with whom",
    "read the state of a pod from a directory and a lock",
    "set up a second rkt beside the first, which trusts one key",
)
NEEDS = ("root", "namespaces", "cgroups", "overlay", "rkt")

SHELL = "quay.io/coreos/alpine-sh"
STUCK = "stuck"


def ran(lab: Lab) -> Verdict:
    """Measure that a pod has run to its end, and that its app has ended with 0."""
    pods = Pods(rkt_by_hand.data(lab.directory)).all()
    if not pods:
        return Verdict(passed=False, measured="rkt has no pod")
    views = list(_views(pods))
    for view in views:
        if view.state in (State.EXITED, State.EXITED_GARBAGE) and view.exit_codes and not any(view.exit_codes.values()):
            return Verdict(passed=True, measured=f"a pod has {view.state}, its app ended with 0")
    states = ", ".join(sorted({str(view.state) for view in views}))
    codes = {code for view in views for code in view.exit_codes.values() if code}
    cause = f"an app ended with {min(codes)}" if codes else None
    return Verdict(passed=False, measured=f"the states of rkt's pods: {states}", cause=cause)


def _views(pods: tuple[Pod, ...] | list[Pod]) -> Iterator[PodView]:
    for pod in pods:
        with suppress(PodError):  # it has gone meanwhile
            yield PodView.of(pod)


def mended(lab: Lab) -> Verdict:
    """Measure that the pod that would not go is gone, and that nobody holds what was its directory."""
    try:
        name = (lab.directory / STUCK).read_text().strip()
    except OSError:
        return Verdict(passed=False, measured="there was no such pod")
    data = rkt_by_hand.data(lab.directory)
    holders = sorted(set(_holders(name)))
    cause = f"its directory is held by {', '.join(holders)}" if holders else None
    states = [str(pod.state) for pod in Pods(data).all() if pod.uuid == name]
    if states:
        return Verdict(passed=False, measured=f"the pod is there, and {states[0]}", cause=cause)
    if holders:
        return Verdict(passed=False, measured="the pod's directory is gone, and not by rkt", cause=cause)
    return Verdict(passed=True, measured="nothing is left of the pod, and nobody holds it")


def _holders(name: str) -> Iterator[str]:
    """Yield the programs that have the directory of a pod open."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for each in (place / "fd").iterdir():
                with suppress(OSError):
                    if f"/{name}" in os.readlink(each):
                        yield (place / "comm").read_text().strip()


def alone(lab: Lab) -> Verdict:
    """Measure that a second rkt has the image of the shell, its signature checked."""
    return rkt_images.checked(lab.directory / "mine", lab.directory / "mine.d", f"{SHELL}:latest")


RUN = f"rkt run --net=none --insecure-options=image {{0}}{SHELL} --exec {{1}} > /dev/null 2>&1"
GC = "rkt gc --grace-period=0s > /dev/null 2>&1\n"
STATE = "rkt list --no-legend | grep -q {0}"
SLEEPS = RUN.format("", "/bin/sleep -- 600") + " &\n" + until(STATE.format("running"))
GIVEN = f"""{RUN.format("--uuid-file-save=stuck ", "/bin/true")}
flock --close "$RKT_DIR/pods/run/$(cat stuck)" sleep 600 > /dev/null 2>&1 &
{until("rkt status $(cat stuck) | grep -q state=running")}"""
FREE = f"""kill $(lslocks --noheadings --output PID,COMMAND | awk '$2 == "flock" {{print $1}}')
{until("rkt status $(cat stuck) | grep -q state=exited")}"""

RKT = "rkt --dir=$LAB/mine --local-config=$LAB/mine.d"
TRUST = "{0} trust --skip-fingerprint-review --prefix={1} > /dev/null 2>&1\n"
FETCH = f"{{0}} fetch {{1}}{SHELL} > /dev/null 2>&1\n"

CHECKPOINTS = (
    Checkpoint(
        "ran",
        task="a pod of rkt's has run to its end, and its app ended with status 0",
        measure=ran,
        hints=(
            "rkt run IMAGE runs a pod in the foreground: it ends when its apps have ended",
            f"rkt run --net=none --insecure-options=image {SHELL} --exec /bin/true",
        ),
        solution=RUN.format("", "/bin/true") + "\n",
        undo=GC,
        near_misses={
            "prepared, not run": f"rkt prepare --insecure-options=image {SHELL} --exec /bin/true > /dev/null 2>&1\n",
            "ended with another status": RUN.format("", "/bin/false") + " || true\n",
            "it runs still": SLEEPS,
            "killed": f"{SLEEPS}kill -KILL $!; wait $! 2> /dev/null || true\n{until(STATE.format('exited'))}",
        },
    ),
    Checkpoint(
        "mended",
        task="the pod whose UUID is in $LAB/stuck is gone, collected by rkt gc",
        measure=mended,
        hints=(
            "rkt takes a pod for running whose directory is locked, whoever holds the lock",
            "lslocks names the process that holds it",
            "kill that process, then rkt gc --grace-period=0s",
        ),
        given=GIVEN,
        solution=FREE + GC,
        undo=GIVEN,
        near_misses={
            "collected while it is held": GC,
            "removed while it is held": "rkt rm $(cat stuck) > /dev/null 2>&1 || true\n",
            "its directory taken away": 'rm -r "$RKT_DIR/pods/run/$(cat stuck)"\n',
            "free, not collected": FREE,
        },
    ),
    Checkpoint(
        "alone",
        task=f"a second rkt, with its data in $LAB/mine, has {SHELL}, and has checked its signature",
        measure=alone,
        hints=(
            "rkt --dir names the data, --local-config the configuration, in which the trusted keys are",
            f"rkt --dir=$LAB/mine --local-config=$LAB/mine.d trust --prefix={SHELL}",
            f"and then, with the same two options: rkt fetch {SHELL}",
        ),
        solution=TRUST.format(RKT, SHELL) + FETCH.format(RKT, ""),
        undo="rm -r mine mine.d",
        near_misses={
            "not checked": FETCH.format(RKT, "--insecure-options=image "),
            "trusted only": TRUST.format(RKT, SHELL),
            "by the first rkt": TRUST.format("rkt", SHELL) + FETCH.format("rkt", ""),
            "a key for others": f"{TRUST.format(RKT, 'coreos.com/etcd')}{FETCH.format(RKT, '').rstrip()} || true\n",
        },
    ),
)
