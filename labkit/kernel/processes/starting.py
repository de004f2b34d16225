"""The way of a plan to a running process: its descriptors, its tracker, the launcher's answers."""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labkit import trace
from labkit.errors import LabError, SyscallError, UnsupportedError
from labkit.kernel import syscalls
from labkit.kernel.namespaces import KINDS
from labkit.kernel.processes import ending, launching
from labkit.kernel.processes.plan import Plan
from labkit.kernel.processes.process import Process

Output = str | os.PathLike[str] | int | None
_PATIENCE = 30.0  # seconds in which a child must have reached its execve


def launch(plan: Plan, stdin: int | None, stdout: Output, stderr: int | None) -> Process:
    """Open what the process gets, send the request and wait for the program to run."""
    from labkit.kernel import cgroups

    with ExitStack() as opened, trace.silent():
        master, log, stdio = _streams(plan, stdin, stdout, stderr, opened)
        fds, request = list(stdio), plan.request()
        request["enter"], request["pid_namespace"] = [], None
        for kind in sorted(plan.enter, key=lambda kind: (kind != "user", kind == "mount")):  # rights first, the old paths last
            fds.append(_opened(plan.enter[kind], os.O_RDONLY, opened))
            if kind == "pid":  # index as the launcher counts: after the report
                request["pid_namespace"] = len(fds)
            else:
                request["enter"].append([KINDS[kind].flag, len(fds)])
        try:
            with launching.placing, ending.alone(cgroups.trackers()):
                path = str(cgroups.tracker(plan.name or "process"))
                tracker = ending.Tracker(path, os.stat(path).st_ino)
                request["tracker"] = tuple(tracker)
                report, mark = launching.ask(request, fds)
                process = Process(plan.name, tracker, mark, report, log, master)
                first = process.hear(_PATIENCE)  # once it has a pid, it is in its tracker
        except BaseException:
            for fd in {master, log if isinstance(log, int) else None} - {None}:
                os.close(fd)  # type: ignore[arg-type]
            raise
    try:
        _await(process, plan, first)
    except BaseException:
        process.discard()
        raise
    return process


def _await(process: Process, plan: Plan, message: dict[str, Any] | None) -> None:
    """Wait until the program runs, or until it is clear that a frozen cgroup keeps it from running."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        if message is not None and "error" in message:
            raise _as_error(message["error"], plan)
        if process.started:
            return
        if message is None and process.pid and _frozen(process.pid):
            return
        if time.monotonic() > deadline:
            raise LabError(f"{plan.argv[0]} has not begun to run after {_PATIENCE:g} s")
        message = process.hear(0.5)  # seconds between two looks at the freezers


def _as_error(record: dict[str, object], plan: Plan) -> LabError:
    """Make the error of what the launcher reports."""
    number, syscall, raw = int(str(record["errno"])), str(record["syscall"]), record["arguments"]
    arguments = list(raw) if isinstance(raw, list) else []
    cause = str(record["cause"]) if record["cause"] else None
    if syscall == "mount":
        arguments = syscalls.describe_mount(*arguments)
    elif syscall == "clone3":
        arguments = [syscalls.flag_names(arguments[0], "CLONE_NEW") + "|CLONE_INTO_CGROUP", str(arguments[1])]
        if number == errno.ENOSYS:
            return UnsupportedError("clone3(2), Linux 5.7 or later", "ENOSYS: this kernel or its seccomp filter has no clone3")
    elif syscall == "setns":
        kind = next(kind for kind in KINDS.values() if kind.flag == arguments[1])
        arguments = [plan.enter[kind.name], kind.flag_name]
    elif syscall == "unshare":
        arguments = [syscalls.flag_names(arguments[0], "CLONE_NEW")]
    return SyscallError(syscall, number, [str(argument) for argument in arguments], cause=cause)


def _streams(
    plan: Plan, stdin: int | None, stdout: Output, stderr: int | None, opened: ExitStack
) -> tuple[int | None, str | int | None, tuple[int, int, int]]:
    """Open the three standard streams.

    Returns:
        The master of the terminal or None; the log (a path, a memory file, or None); the descriptors.
    """
    if plan.tty:
        master, slave = os.openpty()
        opened.callback(os.close, slave)
        return master, None, (slave, slave, slave)
    source = stdin if stdin is not None else _opened("/dev/null", os.O_RDONLY, opened)
    log: str | int | None = None
    if isinstance(stdout, int):
        target = stdout
    elif stdout is None:
        log = os.memfd_create(plan.name or "output")
        target = os.dup(log)
        opened.callback(os.close, target)
    else:
        log = os.path.abspath(stdout)
        target = _opened(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, opened)
    return None, log, (source, target, stderr if stderr is not None else target)


def _opened(path: str, flags: int, opened: ExitStack) -> int:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SyscallError("open", error.errno or 0, [f'"{path}"']) from error
    opened.callback(os.close, fd)
    return fd


def _frozen(pid: int) -> bool:
    """Whether a freezer, v1 or v2, holds this process."""
    from labkit.kernel import cgroups

    places = cgroups.hierarchies()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        base = places.unified if not controllers else places.v1.get("freezer") if "freezer" in controllers.split(",") else None
        if base is not None:
            state, word = ("cgroup.events", "frozen 1") if not controllers else ("freezer.state", "FRO")
            file = Path(f"{base}{path}") / state
            if file.exists() and any(line.startswith((word, "FREEZING")) for line in file.read_text().splitlines()):
                return True
    return False
