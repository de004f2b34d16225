"""Process 1 of a pod, and the keeper of each app: the one program of stage 1 that runs inside. Standard library only.

Run as `python -I -S init.py CONTROL LOCK NAMESPACES`, already as process 1 of a new PID namespace. It makes the pod's other
namespaces, reports, and waits for the plan, while outside the network is set up. Then it forks a keeper for each app. A keeper
takes a mount namespace and a cgroup namespace of its own, builds the app's root in it (`root.py`), and runs, one after the other,
the pre-start handler, the app and the post-stop handler; so all three see one root. Whatever an app leaves behind ends with it.

The kernel ends all of it: this process dies with the supervisor (PR_SET_PDEATHSIG), and with process 1 of a PID namespace
everything in that namespace. See: pid_namespaces(7), prctl(2), systemd.exec(5) for the exit codes
"""

from __future__ import annotations

import contextlib
import errno
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
    from labkit.appc import root
else:  # run as a program, isolated: only the file beside this one is wanted
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import root  # type: ignore[import-not-found, no-redef]

    sys.path.pop(0)

CHDIR, EXEC, OOM_ADJUST, GROUP, USER, CAPABILITIES, CGROUP, SECCOMP, PROFILE = 200, 203, 206, 216, 217, 218, 219, 228, 231
"""Exit codes of an app that did not come to run, by the step that failed; systemd's, which rkt passed on."""
SETUP = 254
GRACE = 10
"""Seconds that an app has after SIGTERM until SIGKILL follows."""

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_KEEPCAPS, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 22, 24, 8, 36, 38
_SECCOMP_MODE_FILTER, _CAPABILITY_VERSION_3 = 2, 0x20080522
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_FINISHING = (signal.SIGTERM, signal.SIGALRM)


class StepFailed(Exception):
    """A step on an app's way to its program failed.

    Attributes:
        code: what it then exits with.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


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
        self.members: list[int] = []
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
        self.members = [os.open(f"{directory}/cgroup.procs", os.O_RDWR) for directory in self.app["cgroups"]]
        outside = [os.open(f"{directory}/cgroup.procs", os.O_RDWR) for directory in self.app["outside"]]
        join(self.members)
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
            for number in (signal.SIGPIPE, signal.SIGXFSZ, *_FINISHING):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.setsid()
            self._streams()
            tell(self.control, app=self.app["name"], pid=os.getpid())
            with step(CGROUP, "cgroup"):
                join(self.members)
            become(self.app["program"], argv)
        except StepFailed as error:
            code = error.code
            os.write(2, f"{self.app['name']}: {error}\n".encode())
        except BaseException as error:
            os.write(2, f"{self.app['name']}: {type(error).__name__}: {error}\n".encode())
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
        while left := {int(word) for fd in self.members for word in os.pread(fd, 1 << 20, 0).split()} - {0}:
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


class step:  # noqa: N801  a block, read as a word: `with step(USER, "setuid")`
    """Let an OSError in the block be a StepFailed with this exit code."""

    def __init__(self, code: int, what: str) -> None:
        self.code, self.what = code, what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self.code, f"{self.what}: {error.strerror}") from error


def become(program: dict[str, Any], argv: list[str]) -> NoReturn:
    """Take the ids and lose the rights that a program is not to have, then execute it.

    The bounding set is cut while we may; the user changes before the filter comes, and with KEEPCAPS, so that the filter needs no
    no_new_privs; execve(2) then takes from a user what is not root's.

    Args:
        program: `env`, `cwd`, `uid`, `gid`, `groups`, `capabilities` (a mask), `no_new_privileges`, `seccomp` (a filter), `oom_score_adj`,
            `profile` (of AppArmor or SELinux, as /proc/self/attr/exec takes it).
        argv: what to execute, looked up in PATH.

    Raises:
        StepFailed: with the exit code of the step.
    """
    os.umask(0o022)
    if program["oom_score_adj"] is not None:
        with step(OOM_ADJUST, "oom_score_adj"):
            root.write("/proc/self/oom_score_adj", str(program["oom_score_adj"]))
    if program["profile"]:
        with step(PROFILE, program["profile"]):
            root.write("/proc/self/attr/exec", program["profile"])
    with step(CHDIR, f"working directory {program['cwd']}"):
        os.chdir(program["cwd"])
    with step(CAPABILITIES, "capabilities"):
        for number in range(64):
            if not program["capabilities"] >> number & 1:
                _drop(number)
    with step(GROUP, f"group {program['gid']}"):
        os.setgroups(program["groups"])
        os.setresgid(program["gid"], program["gid"], program["gid"])
    with step(USER, f"user {program['uid']}"):
        root.prctl(_PR_SET_KEEPCAPS, 1)
        os.setresuid(program["uid"], program["uid"], program["uid"])
        _inherit_no_capability()
    if program["no_new_privileges"]:
        root.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    execute(argv, program["env"], program["seccomp"])


def execute(argv: list[str], env: dict[str, str], seccomp: bytes) -> NoReturn:
    """Install the filter and execute a program, found in PATH as execvp(3) does; between the two there is no other system call.

    Raises:
        StepFailed: it cannot be executed.
    """
    files = [argv[0]] if "/" in argv[0] else [f"{folder}/{argv[0]}" for folder in env.get("PATH", "").split(":") if folder]
    if seccomp:
        program = root.buffer(seccomp)
        with step(SECCOMP, "seccomp"):
            root.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, root.filter_program(program, len(seccomp) // 8))
    refused = errno.ENOENT
    for file in files:
        try:
            os.execve(file, argv, env)
        except OSError as error:
            refused = refused if error.errno in (errno.ENOENT, errno.ENOTDIR) else error.errno or refused
    raise StepFailed(EXEC, f"{argv[0]}: {os.strerror(refused)}")


def join(members: list[int]) -> None:
    """Move this process into the cgroups whose cgroup.procs are open."""
    for fd in members:
        os.write(fd, b"0")


def exit_code(status: int) -> int:
    """Return what `rkt status` says of a wait status: the exit status, or the number of the signal."""
    return abs(os.waitstatus_to_exitcode(status))


def tell(control: socket.socket, **message: object) -> None:
    """Send word to the supervisor; where it is gone, we are about to go too."""
    with contextlib.suppress(OSError):
        control.send(marshal.dumps(message))


def _drop(capability: int) -> None:
    try:
        root.prctl(_PR_CAPBSET_DROP, capability)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the kernel has no such capability
            raise


def _inherit_no_capability() -> None:
    """Make what is permitted effective again, which a change of the user has ended, and nothing inheritable."""
    header, data = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), root.buffer(bytes(24))
    root.call("capget", header, data)
    effective, permitted, _, effective_high, permitted_high, _ = struct.unpack("6I", data.raw[:24])
    root.call("capset", header, root.buffer(struct.pack("6I", permitted, permitted, 0, permitted_high, permitted_high, 0)))


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))


def serve(control: socket.socket, namespaces: int) -> None:
    """Be process 1: make the namespaces, take the plan, start the keepers, wait for them, and stop all where one of the apps fails."""
    root.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
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
        tell(control, app=app["name"], error=f"{app['name']}: {error}")
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
        serve(control, int(sys.argv[3]))
    except BaseException as error:
        tell(control, error=f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else str(error))
        os._exit(SETUP)


if __name__ == "__main__":
    _main()
