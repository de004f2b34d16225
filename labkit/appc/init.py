"""Process 1 of a pod, and the keeper of each app: the one program of stage 1 that runs inside. Standard library only.

Run as `python -I -S init.py CONTROL LOCK NAMESPACES NETNS`, already as process 1 of a new PID namespace. It makes the pod's other
namespaces, enters that of the network where one is named, reports, and waits for the plan. Then it forks a keeper for each app. A keeper
takes a mount namespace and a cgroup namespace of its own, builds the app's root in it (`root.py`), and runs, one after the other,
the pre-start handler, the app and the post-stop handler; so all three see one root. Whatever an app leaves behind ends with it.

The kernel ends all of it: this process dies with the supervisor (PR_SET_PDEATHSIG), and with process 1 of a PID namespace
everything in that namespace. See: pid_namespaces(7), prctl(2)
"""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import signal
import socket
import struct
import sys
import termios
import time
from typing import Any, NoReturn

if __package__:
    from labkit.appc import program, root
else:  # run as a program, isolated: only the two files beside this one are wanted
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import program  # type: ignore[import-not-found, no-redef]
    import root  # type: ignore[import-not-found, no-redef]

    sys.path.pop()

SETUP = 254
"""What an app ends with whose root could not be built."""
GRACE = 10
"""Seconds that an app has after SIGTERM until SIGKILL follows."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_FINISHING = (signal.SIGTERM, signal.SIGALRM)


class Keeper:
    """What runs one app, in a process of its own between process 1 and the app.

    Args:
        app: the plan of it, see `labkit.appc.apps.plan`.
        control: the socket to the supervisor.
        output: descriptors that become the app's standard input, output and error.
    """

    def __init__(self, app: dict[str, Any], control: socket.socket, output: list[int]) -> None:
        self.app, self.control, self.output = app, control, output
        self.child, self.stopping = 0, False
        self.joined: list[int] = []
        self.directories: list[int] = []
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGALRM, self._kill)

    def keep(self) -> int:
        """Build the root, run the handlers and the app, and return the app's exit code: of a signal its number."""
        root.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._enter_namespaces()
        root.build(self.app)
        tell(self.control, app=self.app["name"], keeper=True)
        code = self._run("pre-start")
        code = self._run("main") if code == 0 and not self.stopping else code
        signal.alarm(0)
        self._sweep()
        self.stopping = False
        self._run("post-stop")
        self._sweep()
        return code

    def _enter_namespaces(self) -> None:
        """Make the namespaces of the app: the cgroup namespace has the cgroup for its root in which we are just then."""
        self.directories = [os.open(directory, os.O_PATH | os.O_DIRECTORY) for directory in self.app["cgroups"]]
        self.joined = opened_procs(self.app["cgroups"])  # opened here: with delegation, no one enters from outside its namespace's root
        outside = opened_procs(self.app["outside"])
        join(self.joined)
        root.unshare(root.CLONE_NEWNS | root.CLONE_NEWCGROUP)
        join(outside)  # the app's limits are the app's
        for fd in outside:
            os.close(fd)

    def _run(self, step: str) -> int:
        """Run the handler of this name, or the app, and wait for it; what has none succeeds."""
        argv = self.app["steps"].get(step)
        if argv is None:
            return 0
        signal.pthread_sigmask(signal.SIG_BLOCK, _FINISHING)
        pid = os.fork()
        if pid == 0:
            self._become(argv)
        self.child = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FINISHING)
        while True:
            ended, status = os.waitpid(-1, 0)  # orphans of the app come to us
            if ended == pid:
                self.child = 0
                return exit_code(status)

    def _become(self, argv: list[str]) -> NoReturn:
        """Turn the forked child into the program; never returns."""
        code = SETUP
        try:
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:  # what is ignored stays so through execve
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.setsid()
            self._streams()
            tell(self.control, app=self.app["name"], pid=os.getpid())
            with program.step(program.CGROUP, "cgroup"):
                join(self.joined)
            program.become(self.app["program"], argv)
        except program.StepFailed as error:
            code = error.code
            os.write(2, f"{self.app['name']}: {error}\n".encode())
        except BaseException as error:
            os.write(2, f"{self.app['name']}: {why(error)}\n".encode())
        os._exit(code)

    def _streams(self) -> None:
        """Take the output for the standard streams, or the terminal: opened anew, for with each session that ends it is hung up."""
        if not self.app["console"]:
            for number, fd in enumerate(self.output):
                os.dup2(fd, number)
            return
        terminal = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY)
        for number in range(3):
            os.dup2(terminal, number)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _sweep(self) -> None:
        """Kill what the app left behind in its cgroup, and wait until it is gone."""
        deadline = time.monotonic() + GRACE
        while left := {pid for directory in self.directories for pid in procs_in(directory)}:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)

    def _stop(self, *_: object) -> None:
        self.stopping = True
        if self.child:
            os.kill(self.child, signal.SIGTERM)
            signal.alarm(GRACE)

    def _kill(self, *_: object) -> None:
        if self.child:
            os.kill(self.child, signal.SIGKILL)


def opened_procs(directories: list[str]) -> list[int]:
    """Open the file by which each of these cgroups is joined."""
    return [os.open(f"{directory}/cgroup.procs", os.O_WRONLY) for directory in directories]


def join(procs: list[int]) -> None:
    """Move this process into the cgroups whose cgroup.procs are open."""
    for fd in procs:
        os.write(fd, b"0")


def procs_in(directory: int) -> list[int]:
    """Return who is in a cgroup; in v1 only a file that was just opened says what is so now."""
    fd = os.open("cgroup.procs", os.O_RDONLY, dir_fd=directory)
    try:
        return [int(word) for word in os.read(fd, 1 << 20).split() if word != b"0"]
    finally:
        os.close(fd)


def exit_code(status: int) -> int:
    """Return what `rkt status` says of a wait status: the exit status, or the number of the signal."""
    return abs(os.waitstatus_to_exitcode(status))


def why(error: BaseException) -> str:
    """Return in one line what went wrong: what the kernel said, and of what."""
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {error}"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def tell(control: socket.socket, **message: object) -> None:
    """Send word to the supervisor; where it is gone, we are about to go too."""
    with contextlib.suppress(OSError):
        control.send(marshal.dumps(message))


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))


def serve(control: socket.socket, namespaces: int, netns: str) -> None:
    """Be process 1: make the namespaces, take the plan, start the keepers, wait for them, and stop all where one of the apps fails."""
    root.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if netns:
        root.enter(netns, root.CLONE_NEWNET)
    root.unshare(namespaces)
    if namespaces & root.CLONE_NEWNET:
        _loopback_up()
    metadata = socket.create_server(("127.0.0.1", 0))
    socket.send_fds(control, [marshal.dumps({"ready": metadata.getsockname()[1]})], [metadata.fileno()])
    metadata.close()
    message, fds, _, _ = socket.recv_fds(control, 64, 253)
    if not message:
        return  # the supervisor died before it had the plan
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's way to say it
    plan = marshal.loads(os.pread(fds[0], os.fstat(fds[0]).st_size, 0))  # noqa: S302 - from our parent, which runs the same Python
    outside = opened_procs(plan["outside"])
    join(outside)
    for fd in outside:
        os.close(fd)
    root.prepare(plan)
    keepers: dict[int, str] = {}
    signal.signal(signal.SIGTERM, lambda *_: _stop(keepers))
    for app in plan["apps"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, _FINISHING)
        pid = os.fork()
        if pid == 0:
            _keep(app, control, [fds[index] for index in app["output"]])
        keepers[pid] = app["name"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FINISHING)
    for fd in fds:
        os.close(fd)
    while keepers:
        pid, status = os.waitpid(-1, 0)
        if keepers.pop(pid, None) is not None and status != 0:
            _stop(keepers)


def _keep(app: dict[str, Any], control: socket.socket, output: list[int]) -> NoReturn:
    code = SETUP
    try:
        keeper = Keeper(app, control, output)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FINISHING)
        code = keeper.keep()
        tell(control, app=app["name"], status=code)
    except BaseException as error:
        tell(control, app=app["name"], error=f"app {app['name']}: {why(error)}")
    os._exit(code & 0xFF)


def _stop(keepers: dict[int, str]) -> None:
    for pid in keepers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for fd in (control.fileno(), int(sys.argv[2])):  # the lock is held until the last process of the pod is gone
        if fd >= 0:
            os.set_inheritable(fd, False)  # noqa: FBT003
    try:
        serve(control, int(sys.argv[3]), sys.argv[4])
    except BaseException as error:
        tell(control, error=why(error))
        os._exit(SETUP)


if __name__ == "__main__":
    _main()
