"""Start processes in new or entered namespaces, in cgroups, under a root of their own, and end them with all they started.

The work is done by the launcher, a small child of the notebook. A process is placed in a cgroup (v2) of its own before it
runs, its tracker, so that it can be ended with all its descendants. See: clone(2), setns(2), pivot_root(2), pidfd_open(2)
"""

from __future__ import annotations

import codecs
import os
import resource
import select
import shlex
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from labkit import trace
from labkit.errors import CommandError, LabError, UnsupportedError
from labkit.kernel.commands import Completed
from labkit.kernel.processes.plan import IdMap, Plan, enter_file, variable_of
from labkit.kernel.processes.process import Process
from labkit.kernel.processes.starting import launch

_known: weakref.WeakSet[Process] = weakref.WeakSet()


def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    name: str = "",
    new: Iterable[str] = (),
    enter: Mapping[str, object] | None = None,
    cgroups: Iterable[object] = (),
    root: str | os.PathLike[str] | None = None,
    chroot: str | os.PathLike[str] | None = None,
    mount_proc: bool = False,
    binds: Iterable[tuple[str | os.PathLike[str], str]] = (),
    propagation: str = "private",
    uid_map: IdMap = (),
    gid_map: IdMap = (),
    hostname: str | None = None,
    boottime: int = 0,
    monotonic: int = 0,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    rlimits: Mapping[str, int | tuple[int, int]] | None = None,
    stdin: int | None = None,
    stdout: str | os.PathLike[str] | int | None = None,
    stderr: int | None = None,
    tty: bool = False,
    shell_line: str | None = None,
) -> Process:
    """Start a program and return once it runs.

    Shell:
        unshare --uts --pid --fork bash -c '...' > clock.log 2>&1 & clock=$!

    Args:
        argv: program and arguments; the program is looked up in `env`'s PATH, inside the new root.
        name: the lab's name for it, `$name` in the typed lines.
        new: kinds of namespaces to make for it: mount uts ipc net pid user cgroup time.
        enter: kind to what to enter: a file such as /run/netns/namespace1, a pid, or an object with `path` or `pid`.
        cgroups: cgroups (objects with `directories`, or directories) that it joins before it runs.
        root: directory to become its root, by pivot_root(2); needs a new mount namespace.
        chroot: directory that it takes for its root, by chroot(2): root inside can leave it.
        mount_proc: give it a fresh /proc of its PID namespace; needs a new mount namespace.
        binds: (source, target) of bind mounts in its new mount namespace, target as it sees it.
        propagation: of its new mount namespace: private, slave, shared or unchanged.
        uid_map: lines (inside, outside, count) of its new user namespace; it becomes root inside where 0 is mapped.
        gid_map: as `uid_map`, and the same where it is not given.
        hostname: to set in its new UTS namespace.
        boottime: seconds that its new time namespace adds to the boot clock.
        monotonic: seconds that it adds to the monotonic clock.
        cwd: working directory; None is ours, or "/" under a new root or an entered mount namespace.
        env: whole environment; None passes ours on.
        rlimits: name such as "RLIMIT_NOFILE" to (soft, hard), or to one number for both.
        stdin: descriptor; None is /dev/null.
        stdout: file to (over)write, or descriptor; None keeps the output in memory for `Process.output`.
        stderr: descriptor; None sends it where `stdout` goes.
        tty: give it a pseudo-terminal, whose master is `Process.master`, instead of all three.
        shell_line: what the trace shows instead of the composed line.

    Raises:
        UnsupportedError: not root, or no clone3 here.
        LabError: the parameters cannot be meant together.
        SyscallError: the step that failed: ENOENT of execve says whether the file, its loader or its interpreter is missing.
    """
    ours = {process.pid: process for process in list(_known) if process.name and process.alive} if enter else {}
    entered = {kind: enter_file(kind, ours.get(where, where) if isinstance(where, int) else where) for kind, where in (enter or {}).items()}
    root_path = os.path.realpath(root) if root is not None else None
    plan = Plan(
        argv=tuple(os.fspath(word) for word in argv),
        name=name,
        new=tuple(dict.fromkeys(new)),
        enter={kind: file for kind, (file, _) in entered.items()},
        enter_words={kind: word for kind, (_, word) in entered.items()},
        cgroups=tuple(directory for cgroup in cgroups for directory in _directories(cgroup)),
        root=root_path,
        chroot=os.path.realpath(chroot) if chroot is not None else None,
        mount_proc=mount_proc,
        binds=tuple((os.path.realpath(source), target) for source, target in binds),
        propagation=propagation,
        uid_map=uid_map,
        gid_map=gid_map or uid_map,
        hostname=hostname,
        boottime=boottime,
        monotonic=monotonic,
        cwd=_cwd(cwd, moved=root is not None or chroot is not None or "mount" in entered),
        env=dict(os.environ if env is None else env),
        rlimits=_rlimits(rlimits or {}),
        tty=tty,
    )
    plan.check()
    if os.geteuid() != 0:
        raise UnsupportedError("root", f"user id {os.geteuid()}", remedy="run it with sudo")
    process = launch(plan, stdin, stdout, stderr)
    _known.add(process)
    line = shell_line if shell_line is not None else plan.shell("" if tty else _redirect(stdout, cwd), background=True)
    pid = f"${variable_of(name)}" if name else str(process.pid)
    writes = [(f"{directory}/cgroup.procs", pid) for directory in plan.cgroups]
    trace.record(line, writes=writes, calls=plan.calls())
    return process


def run(
    command: str | Sequence[str | os.PathLike[str]],
    *,
    on_output: Callable[[str], object] | None = None,
    on_error: Callable[[str], object] | None = None,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> Completed:
    """Run a program, or a bash script, to its end and pass on what it writes while it runs.

    Ctrl-C ends it with all its children. What it leaves in the background goes on, its output thrown away.

    Args:
        command: a script for bash, or program and arguments.
        on_output: called with each piece of text as it comes, standard error included unless `on_error` is given.
        on_error: called with each piece of standard error, which is then kept apart.
        timeout: seconds after which it is ended with all its children.
        check: raise where its status is not 0.
        options: of `start`.

    Returns:
        How it ended, with all that it wrote.

    Raises:
        CommandError: its status is not 0 and `check` is set, or `timeout` is over.
    """
    argv = ["bash", "-c", command] if isinstance(command, str) else [os.fspath(word) for word in command]
    typed = {"shell_line": command} if isinstance(command, str) else {}
    begin, callbacks = time.monotonic(), [on_output, on_error] if on_error else [on_output]
    streams = [_Stream(callback) for callback in callbacks]
    try:
        with ExitStack() as ours:
            for stream in streams:
                ours.callback(os.close, stream.write_end)
            process = start(argv, stdout=streams[0].write_end, stderr=streams[-1].write_end, **{**typed, **options})
    except BaseException:
        for stream in streams:
            os.close(stream.read_end)
        raise
    try:
        in_time = _follow(process, streams, None if timeout is None else begin + timeout)
    except BaseException:
        with trace.silent():  # a person presses Ctrl-C
            process.kill()
        raise
    finally:
        for stream in streams:
            stream.leave()
    with trace.silent():
        status, texts = (process.wait() if in_time else process.kill()), [stream.text() for stream in streams]
    if not in_time:
        raise CommandError(argv, status, texts[-1], cause=f"it still ran after {timeout:g} s and was ended")
    if check and status != 0:
        raise CommandError(argv, status, texts[-1])
    return Completed(tuple(argv), status, texts[0], texts[1] if on_error else "", time.monotonic() - begin)


def names() -> dict[int, str]:
    """Return pid to name of the processes of this notebook that have a name and live."""
    return {process.pid: process.name for process in list(_known) if process.name and process.alive}


def _directories(cgroup: object) -> list[str]:
    """Return the directories of a cgroup object, or the directory that was given in its place."""
    found = getattr(cgroup, "directories", None)
    if found is None:
        found = [cgroup]
    elif isinstance(found, Mapping):
        found = found.values()
    directories = list(dict.fromkeys(os.fspath(directory) for directory in found))
    for directory in directories:
        if not os.path.exists(f"{directory}/cgroup.procs"):
            raise LabError(f"{directory} is not a cgroup: it has no cgroup.procs")
    return directories


def _cwd(cwd: str | os.PathLike[str] | None, *, moved: bool) -> str | None:
    if cwd is not None:
        return os.fspath(cwd) if moved else os.path.abspath(cwd)
    return None if moved else os.getcwd()


def _rlimits(limits: Mapping[str, int | tuple[int, int]]) -> tuple[tuple[str, int, int], ...]:
    pairs = {name: (value, value) if isinstance(value, int) else value for name, value in limits.items()}
    for name in pairs:
        if not name.startswith("RLIMIT_") or not hasattr(resource, name):
            raise LabError(f"no limit is called {name!r}", remedy="a name of getrlimit(2), such as RLIMIT_NOFILE")
    return tuple((name, soft, hard) for name, (soft, hard) in pairs.items())


def _redirect(stdout: str | os.PathLike[str] | int | None, cwd: str | os.PathLike[str] | None) -> str:
    """Write where the output goes, relative to the working directory where it lies below."""
    if stdout is None or isinstance(stdout, int):
        return ""
    path, here = Path(os.path.abspath(stdout)), Path(os.path.abspath(cwd or "."))
    return f"> {shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))} 2>&1"


class _Stream:
    """A pipe whose text is kept and passed on."""

    def __init__(self, callback: Callable[[str], object] | None) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.open = True
        self._callback = callback
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pieces: list[str] = []

    def take(self) -> bool:
        """Pass on what is there and say whether there was something."""
        try:
            data = os.read(self.read_end, 65536)
        except BlockingIOError:
            return False
        self.open = bool(data)
        piece = self._decode(data, final=not data)
        if piece:
            self._pieces.append(piece)
            if self._callback is not None:
                self._callback(piece)
        return self.open

    def text(self) -> str:
        return "".join(self._pieces)

    def leave(self) -> None:
        """Close the pipe; where a process in the background still holds it, read on and throw away, so that it is not ended by SIGPIPE."""
        if self.open:
            os.set_blocking(self.read_end, True)
            threading.Thread(target=_drain, args=(self.read_end,), daemon=True).start()
        else:
            os.close(self.read_end)


def _drain(fd: int) -> None:
    while os.read(fd, 65536):
        pass
    os.close(fd)


def _follow(process: Process, streams: list[_Stream], deadline: float | None) -> bool:
    """Pass on what the process writes until it has ended; say whether it did before `deadline`."""
    while process.alive:
        watch = select.poll()
        watch.register(process.fileno(), select.POLLIN)
        for stream in streams:
            if stream.open:
                watch.register(stream.read_end, select.POLLIN)
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        watch.poll(None if left is None else left * 1000)
        for stream in streams:
            if stream.open:
                stream.take()
    for stream in streams:
        for _ in range(2):  # a pipe holds one read; the second finds the end, or others who still write
            if stream.open:
                stream.take()
    return True
