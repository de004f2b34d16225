"""Run a program inside an app of a running pod. See: setns(2), nsenter(1)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from labkit.appc import apps, cgroups, program
from labkit.appc.init import SETUP
from labkit.errors import LabError
from labkit.kernel import syscalls
from labkit.kernel.cgroups.members import write

if TYPE_CHECKING:
    from labkit.appc.pod import Pod
    from labkit.appc.pod_manifest import RuntimeApp

DEFAULT = ("/bin/bash",)
"""What is run where nothing is named."""
UNKNOWN_APP = 6
"""What `rkt enter --app=` ends with for an app that the pod does not have."""

_KINDS = {"cgroup": syscalls.CLONE_NEWCGROUP, "ipc": syscalls.CLONE_NEWIPC, "uts": syscalls.CLONE_NEWUTS, "net": syscalls.CLONE_NEWNET,
          "mnt": syscalls.CLONE_NEWNS}  # fmt: skip


def enter(pod: Pod, app: str, argv: Sequence[str] = ()) -> int:
    """Run a program as root in the namespaces, the root and the cgroup of an app, with its environment and its capabilities.

    Args:
        pod: that runs.
        app: its name; "" for the only one.
        argv: program and arguments; none is `/bin/bash`.

    Returns:
        The program's code; `UNKNOWN_APP` where the pod has no such app.

    Raises:
        LabError: the pod does not run, or has several apps and none is named.
    """
    if pod.state != "running":
        raise LabError(f'pod "{pod.uuid}" isn\'t currently running')
    manifest = pod.manifest
    if not app and len(manifest.apps) > 1:
        raise LabError('specify app using "rkt enter --app= ..."')
    chosen = manifest.app(app) if app else manifest.apps[0]
    if chosen is None:
        return UNKNOWN_APP
    keeper = pod.read(f"appsinfo/{chosen.name}/pid")
    if keeper is None:
        raise LabError(f"app {chosen.name} has not been started yet")
    group = cgroups.of(pod)
    directories = [directory / chosen.name for directory in group.directories] if group else []
    return _inside(int(keeper), _program(pod, chosen), tuple(argv) or DEFAULT, directories)


def _program(pod: Pod, app: RuntimeApp) -> dict[str, Any]:
    """Return the app's program as root runs it who comes from outside: no filter, no score, its own directory."""
    given = {"TERM": os.environ.get("TERM", "vt100")}
    asked = apps.program(pod.image_of(app.name), app, given)
    return {**asked, "uid": 0, "gid": 0, "groups": [], "cwd": "/", "seccomp": b"", "oom_score_adj": None, "profile": ""}


def _inside(keeper: int, asked: dict[str, Any], argv: Sequence[str], directories: Sequence[Path]) -> int:
    """Fork into the PID namespace of a keeper, and wait for the program that the child becomes."""
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{keeper}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    namespaces = [(os.open(f"/proc/{keeper}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag) for name, flag in _KINDS.items()]
    sys.stdout.flush()
    try:
        syscalls.setns(theirs, syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            _become(namespaces, directories, asked, list(argv))
        syscalls.setns(ours, syscalls.CLONE_NEWPID)
    finally:
        for fd in (ours, theirs, *(fd for fd, _ in namespaces)):
            os.close(fd)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program
    try:
        return abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        signal.signal(signal.SIGINT, before)


def _become(namespaces: list[tuple[int, int]], directories: Sequence[Path], asked: dict[str, Any], argv: list[str]) -> NoReturn:
    """Turn the forked child into the program; never returns."""
    code = SETUP
    try:
        for directory in directories:
            write(directory / "cgroup.procs", "0")
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for fd, flag in namespaces:
            syscalls.setns(fd, flag)
        program.become(asked, argv)
    except program.StepFailed as error:
        code = error.code
        os.write(2, f"enter: {error}\n".encode())
    except BaseException as error:
        os.write(2, f"enter: {error}\n".encode())
    os._exit(code)
