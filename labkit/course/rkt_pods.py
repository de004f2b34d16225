"""The pods of rkt that checkpoints look for: who is in them by the lab's directory of rkt, and the rest by the kernel."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pods import Pods
from labkit.appc.types import ManifestError
from labkit.course.checkpoints import Verdict
from labkit.errors import LabError
from labkit.kernel.xray.machine import Machine
from labkit.runtimes import rkt_by_hand
from labkit.runtimes.rkt import first_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from labkit.course.lab import Lab
    from labkit.kernel.processes.process import Process
    from labkit.kernel.xray.records import Member

_TICK = 0.05


@dataclass(frozen=True)
class Running:
    """A pod that runs.

    Attributes:
        pod: its directory.
        apps: the names in its manifest.
        processes: of those apps that have one, the first.
    """

    pod: Pod
    apps: frozenset[str]
    processes: dict[str, Member]


def started(supervisor: Process, data: Path, timeout: float = 180.0) -> Pod:
    """Wait until every app of the pod that a `rkt run` runs has become its program, or has ended; return the pod.

    Args:
        supervisor: the process of `rkt run`, which holds the directory of its pod open.
        data: rkt's directory.
        timeout: seconds.

    Raises:
        LabError: it ended before, or the time did.
    """
    deadline = time.monotonic() + timeout
    while supervisor.alive and time.monotonic() < deadline:
        with suppress(PodError, OSError, ManifestError):
            uuid = _held(supervisor.pid, data)
            if uuid and Pod(data, uuid).has_begun:
                return Pod(data, uuid)
        time.sleep(_TICK)
    said = supervisor.output().strip().splitlines()[-1:]
    what = "has not begun" if supervisor.alive else "has ended"
    raise LabError(f"the pod of {supervisor.name} {what}", cause=f"rkt said: {said[0]}" if said else None)


def _held(pid: int, data: Path) -> str:
    """Return the UUID of the pod whose directory a process holds open, or ""."""
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    return next((Path(link).name for link in links if Path(link).parent == data / "pods/run"), "")


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
    """Return the first process of an app: who keeps it is told by the pod, the rest by the kernel."""
    pid = first_of(pod, app)
    return machine.members.get(pid) if pid else None
