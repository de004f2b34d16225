"""The pods of rkt that checkpoints look for: who is in them by the lab's directory of rkt, and the rest by the kernel."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pods import Pods
from labkit.appc.types import ManifestError
from labkit.course.checkpoints import Verdict
from labkit.kernel.xray.machine import Machine
from labkit.runtimes import rkt_by_hand

if TYPE_CHECKING:
    from collections.abc import Collection

    from labkit.course.lab import Lab
    from labkit.kernel.xray.records import Member


@dataclass(frozen=True)
class Running:
    """A pod that runs.

    Attributes:
        pod: its directory.
        apps: the names in its manifest.
        processes: of those apps that have one, the eldest that is the app's own.
    """

    pod: Pod
    apps: frozenset[str]
    processes: dict[str, Member]


def states(lab: Lab) -> tuple[State, ...]:
    """Return the state of each pod of a lab."""
    found = []
    for pod in Pods(rkt_by_hand.data(lab.directory)).all():
        with suppress(PodError):  # it goes just now
            found.append(pod.state)
    return tuple(found)


def running(lab: Lab, apps: Collection[str] = ()) -> tuple[Running, ...]:
    """Return the pods of a lab that run and have apps of these names."""
    machine, found = Machine(), []
    for pod in Pods(rkt_by_hand.data(lab.directory)).all():
        with suppress(PodError, FileNotFoundError, ManifestError):
            if pod.state is State.RUNNING:
                names = frozenset(app.name for app in pod.manifest.apps)
                found.append(Running(pod, names, {name: own for name in names if (own := _process(pod, name, machine))}))
    return tuple(one for one in found if set(apps) <= one.apps)


def ended(lab: Lab, app: str) -> tuple[int, ...]:
    """Return the codes with which an app has ended in the pods of a lab that have exited."""
    codes = []
    for pod in Pods(rkt_by_hand.data(lab.directory)).all():
        with suppress(PodError):
            if pod.state in (State.EXITED, State.EXITED_GARBAGE) and app in pod.exit_codes:
                codes.append(pod.exit_codes[app])
    return tuple(codes)


def absent(lab: Lab, apps: Collection[str]) -> Verdict:
    """Say that no pod runs with these apps, and with what they have ended where one of them has."""
    codes = {app: code for app in sorted(apps) for code in ended(lab, app) if code}
    said = "; ".join(f"the app {app} has ended with {code}" for app, code in codes.items())
    cause = said or f"of the pods that run, none has {'both' if len(apps) == 2 else 'all'} of them"
    return Verdict(passed=False, measured=f"no pod runs with {' and '.join(sorted(apps))}", cause=cause)


def _process(pod: Pod, app: str, machine: Machine) -> Member | None:
    """Return the first process of an app: what watches over it is told by the pod, the rest by the kernel."""
    keeper = (pod.read(f"appsinfo/{app}/pid") or "").strip()
    own = [one for one in machine.members.values() if keeper.isdecimal() and one.ppid == int(keeper) and one.state not in "ZX"]
    return min(own, key=lambda one: (one.start, one.pid), default=None)
