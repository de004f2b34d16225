"""Start processes in new namespaces: a small child of the notebook, single-threaded, standard library only.

Run as `python -I -S -E launcher.py SOCKET PIDFD MARK`. The notebook has many threads and may be large, so it must neither
fork nor unshare; this child is small, so its fork costs the same whatever the notebook holds. It answers one request
at a time on a SEQPACKET socket; each request brings a socket of its own, on which the fate of that one process is
told: `started`, `error` or `ended`. When the notebook dies, all that was started dies with it. It is a subreaper: who loses
its parent becomes its child and is waited for at once; process 1 may take its time, and who is not waited for still counts
in pids.current.

Nothing of labkit is imported here. See: clone(2) for clone3, setns(2), pivot_root(2), cgroups(7), prctl(2).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import marshal
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

if __package__:
    from labkit.kernel.processes import ending, execution
else:  # run as a program, isolated: only the two files beside this one are wanted
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import ending  # type: ignore[import-not-found, no-redef]
    import execution  # type: ignore[import-not-found, no-redef]

    sys.path.pop(0)

_CLONE_PIDFD, _CLONE_INTO_CGROUP, _CLONE_NEWPID = 0x1000, 0x200000000, 0x20000000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_MNT_DETACH, _SYS_CLONE3, _MSG_CMSG_CLOEXEC = 2, 435, 0x40000000
_CALLS = (
    "chdir chroot dup2 execve ioctl mount pivot_root poll prctl read setgroups sethostname setns setresgid setresuid setsid umount2 unshare"
).split()
LONGEST = 1 << 15  # bytes of a request that still travels as the message itself; a longer one in a memory file
_SOON = 250  # milliseconds after which a child that has not come to its program is announced all the same
_libc = ctypes.CDLL(None, use_errno=True)
_calls = {name: getattr(_libc, name) for name in _CALLS}  # looked up once here, not in every child
_clone_args = struct.Struct("11Q")


class StepError(OSError):
    """An OSError that knows which system call of the request failed, and on what."""

    def __init__(self, number: int, syscall: str, arguments: Iterable[Any], cause: str | None = None) -> None:
        super().__init__(number, os.strerror(number))
        self.syscall, self.arguments, self.cause = syscall, list(arguments), cause

    def as_record(self) -> dict[str, Any]:
        """Return what goes over the socket."""
        return {"errno": self.errno, "syscall": self.syscall, "arguments": self.arguments, "cause": self.cause}


class Child:
    """One process on its way or running: what the launcher must watch, tell and end."""

    def __init__(self, pid: int, pidfd: int, report: socket.socket, errors: int, go: int, tracker: ending.Tracker) -> None:
        self.told = False
        self.pid, self.pidfd, self.report, self.errors, self.go, self.tracker = pid, pidfd, report, errors, go, tracker

    def tell(self, message: dict[str, Any]) -> None:
        """Send word to the notebook; the first message also brings the pid and the pidfd."""
        _tell(self.report, message if self.told else {**message, "pid": self.pid}, [] if self.told else [self.pidfd])
        self.told = True


def serve(requests: socket.socket, notebook: int, mark: str) -> None:
    """Answer requests until the notebook is gone, then end all that was started here.

    Args:
        requests: the SEQPACKET socket to the notebook.
        notebook: pidfd of the notebook process.
        mark: what the environment of every process started here begins with, after `LABKIT_PROCESS=`.
    """
    watched = _Watched(_ends_of_children())
    trackers: set[ending.Tracker] = set()
    for fd in (requests.fileno(), notebook):
        watched.poll.register(fd, select.POLLIN)
    while True:
        waiting = [child for child in watched.starting.values() if not child.told]
        ready = {fd for fd, _ in watched.poll.poll(_SOON if waiting else None)}
        for child in waiting if not ready else ():
            child.tell({})  # held up on its way to the program: a frozen cgroup, a slow file system
        for fd in ready & watched.starting.keys():
            watched.hear(fd)
        if watched.ends in ready:
            watched.reap()
        if notebook in ready or requests.fileno() in ready:
            message, fds = (b"", []) if notebook in ready else receive(requests, LONGEST + 1)
            if not message:
                ending.end(trackers, mark)
                return watched.reap()
            begun = _begin(message, fds)
            if begun is not None:
                trackers.add(begun.tracker)
                watched.add(begun)


class _Watched:
    """The children of the launcher: those on their way to their program, those that run, and the orphans that came to it."""

    def __init__(self, ends: int) -> None:
        self.ends, self.poll = ends, select.poll()
        self.starting: dict[int, Child] = {}
        self._children: dict[int, Child] = {}
        self.poll.register(ends, select.POLLIN)

    def add(self, child: Child) -> None:
        self.starting[child.errors] = self._children[child.pid] = child
        self.poll.register(child.errors, select.POLLIN)

    def hear(self, fd: int) -> None:
        """Pass on what a child has to say of its way: its exec went through or failed."""
        child = self.starting.pop(fd)
        self.poll.unregister(fd)
        text = os.read(fd, 65536)
        os.close(fd)
        os.close(child.go)
        child.tell({"error": marshal.loads(text)} if text else {"started": True})  # noqa: S302 - from our own fork

    def reap(self) -> None:
        """Wait for all that have ended, and tell how where somebody wants to know: of an orphan nobody does."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.ends, 4096)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                child = self._children.pop(ended[0], None)
                if child is None:
                    continue
                if child.errors in self.starting:  # it ended before its answer was read: the answer goes first
                    self.hear(child.errors)
                child.tell({"ended": os.waitstatus_to_exitcode(ended[1])})
                os.close(child.pidfd)
                child.report.close()


def _ends_of_children() -> int:
    """Become a subreaper, and return a descriptor that can be read when a child has ended."""
    _run(Step("prctl", (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), []))
    ends, written = os.pipe()
    for fd in (ends, written):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a signal that is ignored wakes nobody
    return ends


def _begin(message: bytes, fds: list[int]) -> Child | None:
    """Clone the child that one request asks for and give it what it can only get from outside."""
    report = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fds[0])
    go_read, go_write = os.pipe()
    errors_read, errors_write = os.pipe()
    try:
        text = message if len(message) <= LONGEST else os.pread(fds[-1], os.fstat(fds[-1]).st_size, 0)
        request = marshal.loads(text)  # noqa: S302 - from our parent, which runs the same Python
        waits = bool(request["rlimits"] or request["uid_map"] or request["gid_map"] or request["cgroups"])
        steps, program = _steps(request, fds, go_read, waits=waits), Program(request["argv"], request["env"])
        pid, pidfd = _clone(request, fds)
        if pid == 0:
            os.close(go_write)
            _become(steps, program, errors_write)
        if waits:
            _let_go(request, pid, pidfd, go_write)
    except Exception as error:
        os.close(errors_read)
        os.close(go_write)
        _tell(report, {"error": _as_record(error)})
        report.close()
        return None
    finally:
        for fd in (go_read, errors_write, *fds[1:]):
            os.close(fd)
    return Child(pid, pidfd, report, errors_read, go_write, ending.Tracker(*request["tracker"]))


def _let_go(request: dict[str, Any], pid: int, pidfd: int, go: int) -> None:
    """Equip the waiting child and let it go on; end it where that fails."""
    try:
        _equip(request, pid)
    except OSError:
        ending.kill(filter(None, [ending.known(pid)]))
        os.waitpid(pid, 0)
        os.close(pidfd)
        raise
    os.write(go, b"g")


def _clone(request: dict[str, Any], fds: list[int]) -> tuple[int, int]:
    """Call clone3 into the cgroup of the tracker; in the child return 0."""
    tracker = os.open(request["tracker"][0], os.O_PATH | os.O_DIRECTORY)
    home = os.open("/proc/self/ns/pid", os.O_RDONLY) if request["pid_namespace"] is not None else -1
    pidfd = ctypes.c_int(-1)
    flags = request["flags"] | _CLONE_PIDFD | _CLONE_INTO_CGROUP
    words = _clone_args.pack(flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, tracker)
    if home >= 0:  # takes effect for the next child only, and is taken back below
        _run(Step("setns", (fds[request["pid_namespace"]], _CLONE_NEWPID), ["pid", _CLONE_NEWPID]))
    pid = _libc.syscall(_SYS_CLONE3, words, len(words))
    if pid == 0:
        return 0, -1
    number = ctypes.get_errno()
    os.close(tracker)
    if home >= 0:
        _libc.setns(home, _CLONE_NEWPID)
        os.close(home)
    if pid < 0:
        raise StepError(number, "clone3", [request["flags"], request["tracker"][0]])
    return pid, pidfd.value


def _equip(request: dict[str, Any], pid: int) -> None:
    """Give the waiting child its limits and its user and group maps, and put it into its cgroups."""
    for name, soft, hard in request["rlimits"]:
        try:
            resource.prlimit(pid, getattr(resource, name), (soft, hard))
        except (OSError, ValueError) as error:
            raise StepError(getattr(error, "errno", None) or errno.EINVAL, "prlimit", [str(pid), name, f"{soft}:{hard}"]) from error
    for name in ("gid_map", "uid_map"):
        if request[name]:
            _write(f"/proc/{pid}/{name}", request[name])
    for directory in request["cgroups"]:
        _write(f"{directory}/cgroup.procs", str(pid))


class Step(NamedTuple):
    """One system call of the child, its arguments made before the clone: after it each touched page is a copy."""

    syscall: str
    arguments: tuple[Any, ...]
    shown: list[Any]
    wanted: int | None = None
    """The result without which the child leaves silently: the launcher is gone."""


def _steps(request: dict[str, Any], fds: list[int], go: int, *, waits: bool) -> list[Step]:
    """Return what the child is to do before execve, in its order."""
    bound = [
        Step("prctl", (_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), []),
        Step("poll", (struct.pack("ihh", go, 0, 0), 1, 0), [], 0),  # the pipe ends where the launcher died before that signal was set
    ]
    steps = [*bound, *([Step("read", (go, ctypes.create_string_buffer(1), 1), [], 1)] if waits else [])]
    steps += [Step("setns", (fds[index], nstype), [index, nstype]) for nstype, index in request["enter"]]
    steps += [Step("unshare", (request["late"],), [request["late"]])] if request["late"] else []
    steps += [Step("timens_offsets", (request["time_offsets"],), [])] if request["time_offsets"] else []
    for source, target, fstype, flags, data in request["mounts"]:
        words = [None if word is None else os.fsencode(word) for word in (source, target, fstype, data)]
        steps.append(Step("mount", (*words[:3], ctypes.c_ulong(flags), words[3]), [source, target, fstype, flags, data]))
    if request["root"] is not None:  # the old root is stacked on the new one, then taken off
        steps += [_named("chdir", request["root"]), _named("pivot_root", ".", ".")]
        steps += [Step("umount2", (b".", _MNT_DETACH), [".", "MNT_DETACH"]), _named("chdir", "/")]
    if request["chroot"] is not None:
        steps += [_named("chroot", request["chroot"]), _named("chdir", "/")]
    if request["hostname"] is not None:
        name = os.fsencode(request["hostname"])
        steps.append(Step("sethostname", (name, len(name)), [request["hostname"]]))
    steps += [_named("chdir", request["cwd"])] if request["cwd"] is not None else []
    if request["become_root"]:
        steps += [Step("setgroups", (0, None), [0]), Step("setresgid", (0, 0, 0), [0, 0, 0]), Step("setresuid", (0, 0, 0), [0, 0, 0])]
        steps += bound  # a change of ids clears the signal
    steps += [Step("setsid", (), []), *(Step("dup2", (fd, number), [fd, number]) for number, fd in enumerate(fds[1:4]))]
    return steps + ([Step("ioctl", (0, ctypes.c_ulong(termios.TIOCSCTTY), 0), [0, "TIOCSCTTY"])] if request["tty"] else [])


class Program:
    """What is executed at the end, its strings made before the clone."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.name, self.path = argv[0], env.get("PATH", os.defpath)
        folders = [""] if "/" in self.name else self.path.split(":")
        self.files = [os.fsencode(os.path.join(folder, self.name)) for folder in folders]
        self.argv = _strings(argv)
        self.env = _strings([f"{name}={value}" for name, value in env.items()])

    def execute(self) -> NoReturn:
        """Call execve on the first file that can be, and say why where none can."""
        found: StepError | None = None
        for file in self.files:
            _calls["execve"](file, self.argv, self.env)
            number = ctypes.get_errno()
            cause = execution.why_not(os.fsdecode(file), number)
            if found is None and (cause is not None or number not in (errno.ENOENT, errno.ENOTDIR)):
                found = StepError(number, "execve", [os.fsdecode(file)], cause)
        where = f"there is no file {self.name}" if "/" in self.name else f"there is no {self.name} in {self.path}"
        raise found or StepError(errno.ENOENT, "execve", [self.name], where)


def _become(steps: list[Step], program: Program, errors: int) -> NoReturn:
    """Turn the cloned child into the program; runs in the child and never returns."""
    try:
        for step in steps:
            _run(step)
        program.execute()
    except BaseException as error:
        os.write(errors, marshal.dumps(_as_record(error)))
    os._exit(127)


def _run(step: Step) -> None:
    if step.syscall == "timens_offsets":
        return _write("/proc/self/timens_offsets", step.arguments[0])
    result = _calls[step.syscall](*step.arguments)
    if step.wanted is not None and result != step.wanted:
        os._exit(126)
    if result < 0:
        raise StepError(ctypes.get_errno(), step.syscall, step.shown)
    return None


def receive(channel: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Return the next message, of at most `size` bytes, and the descriptors that came with it, closed on exec.

    The standard library's `recv_fds` drops its flags.
    """
    fds = array.array("i")
    message, ancillary, _, _ = channel.recvmsg(size, socket.CMSG_LEN(64 * fds.itemsize), _MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def _named(syscall: str, *words: str) -> Step:
    return Step(syscall, tuple(map(os.fsencode, words)), list(words))


def _strings(words: list[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*map(os.fsencode, words), None)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as error:
        raise StepError(error.errno or 0, "write", [path, text.rstrip("\n")]) from error


def _as_record(error: BaseException) -> dict[str, Any]:
    if isinstance(error, StepError):
        return error.as_record()
    number = error.errno if isinstance(error, OSError) else None
    return {"errno": number or errno.EINVAL, "syscall": "start", "arguments": [], "cause": f"{type(error).__name__}: {error}"}


def _tell(report: socket.socket, message: dict[str, Any], fds: Iterable[int] = ()) -> None:
    try:
        socket.send_fds(report, [marshal.dumps(message)], list(fds), socket.MSG_NOSIGNAL)
    except OSError:
        return  # nobody is interested any more


def _main() -> None:
    for number in signal.valid_signals():  # what is ignored, by Python or by who started the notebook, stays so through execve
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for fd in sys.argv[1:3]:
        os.set_inheritable(int(fd), False)  # noqa: FBT003 - the standard library's way to say it
    gc.disable()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])


if __name__ == "__main__":
    _main()
