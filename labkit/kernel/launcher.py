"""Start processes in new namespaces: a small child of the notebook, single-threaded, standard library only.

Run as `python -I -S -E launcher.py SOCKET PIDFD MARK`. The notebook has many threads and may be large, so it must neither
fork nor unshare; this child is small, so its fork costs the same whatever the notebook holds. It answers one request
at a time on a SEQPACKET socket; each request brings a socket of its own, on which the fate of that one process is
told: `started`, `error` or `ended`. When the notebook dies, all that was started dies with it.

Nothing of labkit is imported here. See: clone(2) for clone3, setns(2), pivot_root(2), cgroups(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

if __package__:
    from labkit.kernel import ending
else:  # run as a program, isolated: only the file beside this one is wanted
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import ending  # type: ignore[import-not-found, no-redef]

    sys.path.pop(0)

CLONE_PIDFD, CLONE_INTO_CGROUP, CLONE_NEWPID = 0x1000, 0x200000000, 0x20000000
_PR_SET_PDEATHSIG, _MNT_DETACH, _SYS_CLONE3, _MSG_CMSG_CLOEXEC = 1, 2, 435, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
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
        self.pid, self.pidfd, self.report, self.errors, self.go, self.tracker = pid, pidfd, report, errors, go, tracker


def serve(requests: socket.socket, notebook: int, mark: str) -> None:
    """Answer requests until the notebook is gone, then end all that was started here.

    Args:
        requests: the SEQPACKET socket to the notebook.
        notebook: pidfd of the notebook process.
        mark: what the environment of every process started here begins with, after `LABKIT_PROCESS=`.
    """
    poll = select.poll()
    children: dict[int, Child] = {}
    trackers: set[ending.Tracker] = set()
    poll.register(requests, select.POLLIN)
    poll.register(notebook, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd != requests.fileno() and fd != notebook:
                _progress(fd, children, poll)
                continue
            message, fds, _, _ = (b"", [], 0, None) if fd == notebook else socket.recv_fds(requests, 64, 64, _MSG_CMSG_CLOEXEC)
            if not message:
                return ending.end(trackers, mark)
            child = _begin(fds)
            if child is not None:
                trackers.add(child.tracker)
                children[child.errors] = children[child.pidfd] = child
                poll.register(child.errors, select.POLLIN)
                poll.register(child.pidfd, select.POLLIN)


def _begin(fds: list[int]) -> Child | None:
    """Clone the child that one request asks for and give it what it can only get from outside."""
    report = socket.socket(fileno=fds[1])
    go_read, go_write = os.pipe()
    errors_read, errors_write = os.pipe()
    try:
        request = json.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))
        pid, pidfd = _clone(request, fds)
        if pid == 0:
            os.close(go_write)
            _become(request, fds, go_read, errors_write)
        try:
            _equip(request, pid)
        except OSError:
            ending.kill(filter(None, [ending.known(pid)]))
            os.waitpid(pid, 0)
            os.close(pidfd)
            raise
    except Exception as error:
        os.close(errors_read)
        os.close(go_write)
        _tell(report, {"error": _as_record(error)})
        report.close()
        return None
    finally:
        for fd in (go_read, errors_write, fds[0], *fds[2:]):
            os.close(fd)
    _tell(report, {"pid": pid}, [pidfd])
    os.write(go_write, b"g")
    return Child(pid, pidfd, report, errors_read, go_write, ending.Tracker(*request["tracker"]))


def _clone(request: dict[str, Any], fds: list[int]) -> tuple[int, int]:
    """Call clone3 into the cgroup of the tracker; in the child return 0."""
    tracker = os.open(request["tracker"][0], os.O_PATH | os.O_DIRECTORY)
    home = os.open("/proc/self/ns/pid", os.O_RDONLY) if request["pid_namespace"] is not None else -1
    pidfd = ctypes.c_int(-1)
    flags = request["flags"] | CLONE_PIDFD | CLONE_INTO_CGROUP
    words = _clone_args.pack(flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, tracker)
    try:
        if home >= 0:  # takes effect for the next child only, and is taken back below
            _call("setns", fds[request["pid_namespace"]], CLONE_NEWPID)
        pid = _libc.syscall(_SYS_CLONE3, words, len(words))
        number = ctypes.get_errno()
    finally:
        if home >= 0:
            _libc.setns(home, CLONE_NEWPID)  # fails in the child, as it should: nobody goes back up
            os.close(home)
        os.close(tracker)
    if pid < 0:
        raise StepError(number, "clone3", [request["flags"], request["tracker"][0]])
    return pid, pidfd.value


def _equip(request: dict[str, Any], pid: int) -> None:
    """Put the waiting child into its cgroups and give it its limits and its user and group maps."""
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


def _become(request: dict[str, Any], fds: list[int], go: int, errors: int) -> NoReturn:
    """Turn the cloned child into the program; runs in the child and never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.read(go, 1) != b"g":
            os._exit(126)
        for nstype, index in request["enter"]:
            _call("setns", fds[index], nstype)
        if request["late"]:
            _call("unshare", request["late"])
        _furnish(request)
        _identify(request, go)
        _connect(fds[2:5], request["tty"])
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _execute(request["argv"], request["env"])
    except BaseException as error:
        os.write(errors, json.dumps(_as_record(error)).encode())
    os._exit(127)


def _furnish(request: dict[str, Any]) -> None:
    """Make the mounts, change the root, set clock offsets and the host name."""
    if request["time_offsets"]:
        _write("/proc/self/timens_offsets", request["time_offsets"])
    for source, target, fstype, flags, data in request["mounts"]:
        arguments = [None if word is None else os.fsencode(word) for word in (source, target, fstype, data)]
        if _libc.mount(*arguments[:3], ctypes.c_ulong(flags), arguments[3]) < 0:
            raise StepError(ctypes.get_errno(), "mount", [source, target, fstype, flags, data])
    if request["root"] is not None:
        _step("chdir", os.chdir, request["root"])
        _call("pivot_root", b".", b".")  # the old root is stacked on the new one ...
        _call("umount2", b".", _MNT_DETACH)  # ... and taken off
        os.chdir("/")
    if request["hostname"] is not None:
        _step("sethostname", socket.sethostname, request["hostname"])
    if request["cwd"] is not None:
        _step("chdir", os.chdir, request["cwd"])


def _identify(request: dict[str, Any], go: int) -> None:
    """Become root of the user namespace where that id is mapped."""
    if request["become_root"]:
        _step("setgroups", os.setgroups, [])
        _step("setresgid", os.setresgid, 0, 0, 0)
        _step("setresuid", os.setresuid, 0, 0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of ids clears it
        watch = select.poll()
        watch.register(go, 0)
        if watch.poll(0):  # the launcher died in between: its end of the pipe is closed
            os._exit(126)


def _connect(stdio: list[int], tty: bool) -> None:
    """Make the given files standard input, output and error, in a session of its own."""
    os.setsid()
    for number, fd in enumerate(stdio):
        os.dup2(fd, number, inheritable=True)
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Call execve on the first file in PATH that can be, and say why where none can."""
    program = argv[0]
    found: StepError | None = None
    folders = [""] if "/" in program else env.get("PATH", os.defpath).split(":")
    for folder in folders:
        path = os.path.join(folder, program)
        try:
            os.execve(path, argv, env)
        except OSError as error:
            cause = why_not(path, error.errno or 0)
            if found is None and (cause is not None or error.errno not in (errno.ENOENT, errno.ENOTDIR)):
                found = StepError(error.errno or 0, "execve", [path], cause)
    where = f"there is no file {program}" if "/" in program else f"there is no {program} in {':'.join(folders)}"
    raise found or StepError(errno.ENOENT, "execve", [program], where)


def why_not(path: str, number: int) -> str | None:
    """Measure why a file cannot be executed.

    Args:
        path: the file.
        number: the errno of execve(2).

    Returns:
        The cause, or None where nothing was found; a file that is not there has none to give.
    """
    if os.path.islink(path) and not os.path.exists(path):
        return f"{path} is a symbolic link to {os.readlink(path)}, which is not there"
    if not os.path.exists(path):
        return None
    if number == errno.EACCES:
        if os.path.isdir(path):
            return f"{path} is a directory"
        if not os.stat(path).st_mode & 0o111:
            return f"{path} has no execute permission (mode {os.stat(path).st_mode & 0o7777:04o})"
        return f"{path} lies on a mount with noexec" if os.statvfs(path).f_flag & os.ST_NOEXEC else None
    kind, interpreter = interpreter_of(path)
    if number == errno.ENOENT and interpreter and not os.path.exists(interpreter):
        return f"{path} is there, its {kind} {interpreter} is not"
    return f"{path} is neither a program nor a script with #!" if number == errno.ENOEXEC and not kind else None


def interpreter_of(path: str) -> tuple[str, str]:
    """Return what a program needs to be run: ("script interpreter" or "loader", its path), or two empty strings.

    See: execve(2), elf(5) for PT_INTERP
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            if head.startswith(b"#!"):
                words = head[2:].split(b"\n", 1)[0].split()
                return "script interpreter", os.fsdecode(words[0]) if words else ""
            if head[:4] != b"\x7fELF":
                return "", ""
            wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
            offset, size, count = (
                struct.unpack_from(order + "Q", head, 32)[0] if wide else struct.unpack_from(order + "I", head, 28)[0],
                *struct.unpack_from(order + "HH", head, 54 if wide else 42),
            )
            for number in range(count):
                file.seek(offset + number * size)
                header = file.read(size)
                if struct.unpack_from(order + "I", header)[0] == 3:  # PT_INTERP
                    layout = (order + "Q16xQ", 8) if wide else (order + "I8xI", 4)
                    start, length = struct.unpack_from(layout[0], header, layout[1])
                    file.seek(start)
                    return "loader", os.fsdecode(file.read(length).rstrip(b"\0"))
    except (OSError, struct.error, IndexError):
        pass
    return "", ""


def _progress(fd: int, children: dict[int, Child], poll: select.poll) -> None:
    """Handle what a child has to say: its exec went through or failed, or it ended."""
    child = children.pop(fd)
    poll.unregister(fd)
    if fd == child.errors:
        text = os.read(fd, 65536)
        os.close(fd)
        os.close(child.go)
        _tell(child.report, {"error": json.loads(text)} if text else {"started": True})
        return
    if child.errors in children:  # it ended before its answer was read: the answer goes first
        _progress(child.errors, children, poll)
    _, status = os.waitpid(child.pid, 0)
    os.close(child.pidfd)
    _tell(child.report, {"ended": os.waitstatus_to_exitcode(status)})
    child.report.close()


def _call(syscall: str, *arguments: int | bytes) -> None:
    if getattr(_libc, syscall)(*arguments) < 0:
        number = ctypes.get_errno()
        raise StepError(number, syscall, [os.fsdecode(word) if isinstance(word, bytes) else word for word in arguments])


def _step(syscall: str, function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except OSError as error:
        raise StepError(error.errno or 0, syscall, [str(word) for word in arguments]) from error


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
        socket.send_fds(report, [json.dumps(message).encode()], list(fds), socket.MSG_NOSIGNAL)
    except OSError:
        return  # nobody is interested any more


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the notebook; this process ends when that one does
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    gc.disable()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3])


if __name__ == "__main__":
    _main()
