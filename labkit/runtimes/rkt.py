"""Pods of rkt, by the executor of this course: one app in a pod, of an image that is made of the root directory; and everybody's pods.

A pod is a directory: its lock says whether it runs, its files say which process is its first and who keeps each of its apps. An app's
first process is the oldest child of its keeper. Each container of the labs has a directory of rkt's to itself, which goes with it.
See: appc spec ace.md; flock(2), pid_namespaces(7)
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.appc import aci, claims, stage1
from labkit.appc.app import App
from labkit.appc.command import LAB
from labkit.appc.image_manifest import ImageManifest
from labkit.appc.pod import Pod, PodError, State
from labkit.appc.pod_manifest import VERSION
from labkit.appc.pods import Pods
from labkit.appc.prepare import name_of
from labkit.appc.settings import DIRECTORY
from labkit.appc.types import ManifestError
from labkit.errors import LabError
from labkit.host.account import IdMap, delegable
from labkit.kernel import processes, rooted, trees
from labkit.kernel.cgroups import members, subtree
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.commands import Completed
from labkit.kernel.processes import ending
from labkit.kernel.processes.process import Process
from labkit.runtimes import container, ours
from labkit.runtimes.container import Container, pick, running

_KIND = "rkt container"
_STATES: Mapping[State, container.State] = {State.EMBRYO: "creating", State.PREPARING: "creating", State.PREPARED: "created"}
_HOME = Path(__file__).resolve().parents[2]
_PATIENCE = 30.0
_TICK = 0.01


class Rkt:
    """The pod executor that has no daemon: `rkt run` itself watches over its pod."""

    name = "rkt"

    def available(self) -> str | None:
        """Return None: it is part of the course."""
        return None

    def version(self) -> str:
        """Return whose commands it takes."""
        return f"labkit.appc, as rkt {VERSION}"

    def id_map(self) -> IdMap:
        """Return an empty map: ids are the host's."""
        return ()

    def list(self) -> tuple[Container, ...]:
        """Return the labs' containers; of others each pod, as the beginning of its UUID, and each app in it, as POD/APP.

        Shell:
            rkt list
        """
        own = (_record(entry) for entry in ours.entries(_KIND).values())
        return (*own, *(found for data in directories() for pod in Pods(data).all() for found in containers_of(pod)))

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program as the one app of a pod, whose root is a copy of the directory below an overlay, with loopback alone.

        Shell:
            actool build IMAGE NAME.aci; rkt run --net=none NAME.aci --name=NAME --exec PROGRAM &
        """
        real = rooted.must_be_directory(rootfs, argv)
        homes()
        with trace.silent():
            home = trees.make_tree(ledger.state() / self.name / subtree())
        key = {"rootfs": str(real), "data": str(home / name), "cgroup": f"{subtree()}/{self.name}.{name}"}
        with ours.making(_KIND, name, self.list(), **key) as entry:
            data = Path(entry.key["data"])
            data.mkdir(mode=0o755)
            image = _image(data, real, app_of(name))
            words = ["run", "--net=none", str(image), f"--name={app_of(name)}", f"--exec={argv[0]}", "--", *argv[1:]]
            typed = shlex.join(["rkt", *words])
            told: dict[str, Any] = {"cgroups": _cgroups(name), "env": _environment(), "cwd": "/", "shell_line": f"{typed} &"}
            supervisor = processes.start(_rkt(data, *words), stdout=str(data / "log"), **told)
            entry.identity.update(supervisor=ending.known(supervisor.pid), tracker=str(supervisor.tracker.path))
            _note(entry, supervisor, data / "log")
        return _record(entry)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in the root, the namespaces and the cgroup of an app.

        Shell:
            rkt enter --app=APP UUID PROGRAM
        """
        found = pick(self.list(), name, self.name)
        rooted.program(Path(f"/proc/{running(found)}/root"), argv[0])
        pod, app = _meant(found)
        words = ["enter", *([f"--app={app}"] if app else []), pod.uuid, *argv]
        shown = shlex.join(["rkt", *words]).replace(pod.uuid, pod.uuid[:8])
        options: dict[str, Any] = {"env": _environment(), "cwd": "/", "shell_line": shown, "on_error": lambda _: None}
        return processes.run(_rkt(pod.data, *words), **options)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Let process 1 of the pod ask the app to end, and kill what is left after `timeout`.

        Shell:
            rkt stop UUID
        """
        entry = ours.entry(_KIND, name, self.list())
        for force, seconds in ((False, timeout), (True, _PATIENCE)):
            supervisor = ours.process_of(entry, "supervisor")
            if supervisor is None:
                break
            if force or timeout:
                _ask(entry, force=force)
                ours.terminate(supervisor, seconds, 0)
        _end(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped pod, and its image.

        Shell:
            rkt rm UUID
        """
        entry = ours.entry(_KIND, name, self.list())
        ours.must_be_stopped(_record(entry))
        ledger.undo_one(entry)


def directories() -> tuple[Path, ...]:
    """Return rkt's directories in which somebody's pods may lie: everybody's, and those of the labs that have rkt typed in them."""
    typed = [Path(entry.key["data"]) for entry in ledger.live() if entry.kind == "rkt claim"]
    return tuple(dict.fromkeys((DIRECTORY, *typed)))


def containers_of(pod: Pod) -> Iterator[Container]:
    """Yield a pod and each of its apps as they are now; a pod that is going just then is none."""
    with suppress(PodError, FileNotFoundError, ManifestError):
        state, short = pod.state, pod.uuid[:8]
        first = pod.pid if state is State.RUNNING else None
        now: container.State = "running" if first else "creating" if state is State.RUNNING else _STATES.get(state, "stopped")
        yield Container("rkt", short, now, first)
        for app in pod.manifest.apps:
            pid = first_of(pod, app.name) if first else None
            yield Container("rkt", f"{short}/{app.name}", _state_of_app(now, pid), pid, _root(pid))


def first_of(pod: Pod, app: str) -> int | None:
    """Return the first process of an app as the host numbers it: the oldest child of its keeper; None where it has ended.

    Args:
        pod: that runs.
        app: its name in the pod.
    """
    keeper = pod.read(f"appsinfo/{app}/pid")
    try:
        if not keeper or not os.path.samefile(f"/proc/{int(keeper)}/ns/pid", f"/proc/{pod.pid}/ns/pid"):
            return None
        children = members.read(f"/proc/{int(keeper)}/task/{int(keeper)}/children").split()
    except OSError:
        return None
    known = [one for one in map(ending.known, map(int, children)) if one and ours.lives(one)]
    return min(known, key=lambda one: (one.start, one.pid)).pid if known else None


def app_of(name: str) -> str:
    """Return what the app of a container is called: its name, as an AC name may be.

    Raises:
        LabError: nothing is left of it.
    """
    return name_of(name)


def _state_of_app(pod: container.State, pid: int | None) -> container.State:
    return pod if pod != "running" else "running" if pid else "stopped"


def _root(pid: int | None) -> Path | None:
    """Return how the host reaches the root of a process: it is mounted in the app's own namespace alone."""
    return Path(f"/proc/{pid}/root") if pid else None


def _record(entry: ledger.Entry) -> Container:
    found = ours.record(_KIND, entry)
    return Container(found.runtime, found.name, found.state, found.pid, _root(found.pid), ours=True)


def _pod(entry: ledger.Entry) -> Pod | None:
    """Return the pod of a container: the one of its directory."""
    return next(iter(Pods(Path(entry.key["data"])).all()), None)


def _meant(found: Container) -> tuple[Pod, str]:
    """Return the pod of a container, and the app that is meant; "" where the pod itself is."""
    if found.ours:
        pod = _pod(ours.entries(_KIND)[found.name])
        if pod is None:
            raise LabError(f"the container {found} has no pod any more")
        return pod, app_of(found.name)
    short, _, app = found.name.partition("/")
    return next(pod for data in directories() for pod in Pods(data).all() if pod.uuid.startswith(short)), app


def _image(data: Path, rootfs: Path, app: str) -> Path:
    """Make an image of a directory."""
    file = data / f"{app}.aci"
    manifest = ImageManifest(f"labkit/{app}", app=App(exec=(), user="0", group="0"))
    aci.build(manifest, rootfs, file)
    return file


def _rkt(data: Path, *words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "labkit.appc", f"--dir={data}", "--insecure-options=image", *words]


def _environment() -> dict[str, str]:
    own = {"PYTHONPATH": str(_HOME), "LABKIT_STATE": str(ledger.state()), LAB: ledger.owner()}
    return {**rooted.ENVIRONMENT, **own}


def _cgroups(name: str) -> Sequence[Path]:
    """Return the cgroups of the supervisor, made: whoever ends the container finds it there, also one that was never written down."""
    found = delegable(f"rkt.{name}")
    for directory in found:
        directory.mkdir(parents=True, exist_ok=True)
    return found


def _note(entry: ledger.Entry, supervisor: Process, log: Path) -> None:
    """Note the app's first process once its program runs; of one that has ended already there is none.

    Raises:
        LabError: the pod did not come to run, with what its supervisor said last.
    """
    app, deadline = app_of(entry.key["name"]), time.monotonic() + _PATIENCE
    while True:
        ended, pod = not supervisor.alive, _pod(entry)
        with suppress(PodError):
            pid = first_of(pod, app) if pod and pod.pid else None
            if pid and _runs_its_own(pid):
                entry.identity.update(init=ending.known(pid))
                return
            if pod and pod.exit_codes:
                return
        why = f"ended with {supervisor.status}" if ended else f"runs no app after {_PATIENCE:g} s" if time.monotonic() > deadline else ""
        if why:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise LabError(f"rkt run {entry.key['name']} {why}", cause="".join(last) or None)
        time.sleep(_TICK)


def _runs_its_own(pid: int) -> bool:
    """Tell whether a child of a keeper has become its program: until then it runs the keeper's, which is ours."""
    try:
        return not os.path.samefile(f"/proc/{pid}/exe", "/proc/self/exe")
    except OSError:
        return False


def _ask(entry: ledger.Entry, *, force: bool) -> None:
    pod = _pod(entry)
    with suppress(LabError):  # it has ended just now
        if pod is not None:
            stage1.stop(pod, force=force)
            trace.record(shlex.join(["rkt", "stop", *(["--force"] if force else []), pod.uuid[:8]]))


def _end(entry: ledger.Entry) -> None:
    """Kill what is left of the supervisor, and remove its cgroup, and the one in which it was started."""
    ours.end(entry)
    if tracker := entry.identity.get("tracker"):
        members.end(Path(tracker), 10)


@ledger.undoes(_KIND)
def _undo(entry: ledger.Entry) -> None:
    """End the supervisor and with it the pod, then remove the pod, and the directory in which it lay."""
    data = Path(entry.key["data"])
    _end(entry)
    claims.end_all(data)
    shutil.rmtree(data, ignore_errors=True)
    if data.exists():
        raise LabError(f"{data} cannot be removed")
