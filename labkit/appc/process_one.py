"""Process 1 of a pod, seen from outside: started in a new PID namespace, sent its plan, heard until the last process is gone.

See: pid_namespaces(7), unix(7) for SCM_RIGHTS and SCM_CREDENTIALS
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from labkit.appc import init
from labkit.appc.console import Lines, Terminal, write_all
from labkit.errors import LabError
from labkit.kernel import commands, syscalls

if TYPE_CHECKING:
    from labkit.appc.pod import Pod

KILLED = 137
"""What a run ends with whose pod was killed, so that no app has a code."""

_CREDENTIALS, _DESCRIPTOR = struct.Struct("3i"), struct.Struct("i")
_PATIENCE = 30.0  # seconds for process 1 to make its namespaces


class Stage1Error(LabError):
    """Say why a pod did not come to run."""

    def __init__(self, why: str) -> None:
        super().__init__(f"stage1: {why.removeprefix('stage1: ')}")


class Init:
    """Process 1 of a pod, seen from outside.

    Args:
        pod: whose lock it holds, too: the pod runs as long as one of them lives.
        new_network: whether it makes a network namespace.
        netns: the file of one that it enters, or "".

    Attributes:
        metadata: a socket that listens on the pod's loopback.
        codes: the exit codes of the apps that have ended, in this order.

    Raises:
        Stage1Error: the namespaces could not be made.
    """

    def __init__(self, pod: Pod, *, new_network: bool, netns: str) -> None:
        self.pod, self.codes, self.errors = pod, {}, []  # type: Pod, dict[str, int], list[str]
        self._apps = 0
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # the kernel numbers who writes as we do
        flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | (syscalls.CLONE_NEWNET if new_network else 0)
        keep = [theirs.fileno(), *([pod.lock_fd] if pod.lock_fd >= 0 else [])]
        argv = [sys.executable, "-I", "-S", init.__file__, str(theirs.fileno()), str(pod.lock_fd), str(flags), netns]
        with _new_pid_namespace():
            self._process = commands.child(argv, keep=keep)
        theirs.close()
        try:
            pod.write("pid", f"{self._process.pid}\n")
            self.metadata = self._ready()
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Its number on the host."""
        return self._process.pid

    def _ready(self) -> socket.socket:
        """Wait for its first word, with which the socket for metadata comes."""
        self._control.settimeout(_PATIENCE)
        room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_DESCRIPTOR.size)
        try:
            message, ancillary, _, _ = self._control.recvmsg(1 << 16, room, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError as error:
            raise Stage1Error(f"process 1 has not begun after {_PATIENCE:g} s") from error
        self._control.settimeout(None)
        answer = marshal.loads(message) if message else {"error": f"process 1 ended with {self._process.wait()}"}  # noqa: S302 - our child
        if "error" in answer:
            raise Stage1Error(answer["error"])
        return socket.socket(fileno=_DESCRIPTOR.unpack(_part(ancillary, socket.SCM_RIGHTS))[0])

    def send(self, plan: dict[str, Any], lines: Mapping[str, Lines], *, interactive: bool) -> None:
        """Send the plan, and with it the descriptors of each app's output."""
        nothing, memory = os.open("/dev/null", os.O_RDONLY), os.memfd_create("plan")
        fds = [memory, nothing, *([0, 1, 2] if interactive else []), *(line.given for line in lines.values())]
        self._apps = len(plan["apps"])
        for app in plan["apps"]:
            given = fds.index(lines[app["name"]].given) if lines else 1
            app["output"] = [2, 3, 4] if interactive else [1, given, given]
        write_all(memory, marshal.dumps(plan))
        socket.send_fds(self._control, [b"plan"], fds)
        for fd in (memory, nothing, *(line.given for line in lines.values())):
            os.close(fd)

    def follow(self, lines: Mapping[str, Lines], terminal: Terminal | None) -> int:
        """Write on what the apps write until the last process of the pod has ended, and return the code of the run.

        Raises:
            Stage1Error: the root of an app could not be built.
        """
        watched: dict[int, Callable[[], bool]] = {self._control.fileno(): lambda: self._hear(lines)}
        watched |= {line.fd: line.take for line in lines.values()}
        watched |= {terminal.fd: terminal.take, 0: terminal.typed} if terminal else {}
        poll = select.poll()
        for fd in watched:
            poll.register(fd, select.POLLIN)
        while {self._control.fileno(), *(line.fd for line in lines.values())} & watched.keys():
            for fd in sorted((fd for fd, _ in poll.poll()), key=lambda fd: fd != self._control.fileno()):
                if not watched[fd]():
                    poll.unregister(fd)
                    del watched[fd]
        while terminal and _readable(terminal.fd) and terminal.take():
            pass
        for line in lines.values():
            line.close()
        status = self._process.wait()
        if self.errors:
            raise Stage1Error(self.errors[0])
        whole = status == 0 and len(self.codes) == self._apps
        return next((code for code in self.codes.values() if code), 0 if whole else KILLED)

    def end(self) -> None:
        """Kill it where it lives, and with it the pod."""
        self._process.kill()
        self._process.wait()
        self._control.close()

    def terminate(self) -> None:
        """Ask it to stop the apps."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _hear(self, lines: Mapping[str, Lines]) -> bool:
        """Take in one message from inside; False where there is nobody any more to send one."""
        message, ancillary, _, _ = self._control.recvmsg(1 << 16, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not message:
            return False
        said = marshal.loads(message)  # noqa: S302 - our child, which runs the same Python
        app = said.get("app", "")
        if "error" in said:
            self.errors.append(said["error"])
        if "keeper" in said:
            sender, _, _ = _CREDENTIALS.unpack(_part(ancillary, socket.SCM_CREDENTIALS))
            self.pod.write(f"appsinfo/{app}/pid", f"{sender}\n")
        if "pid" in said and app in lines:
            while _readable(lines[app].fd) and lines[app].take():  # what the program before it wrote
                pass
            lines[app].pid = said["pid"]
        if "status" in said:
            self.codes[app] = said["status"]
            self.pod.write(f"status/{app}", f"{said['status']}\n")
        return True


@contextmanager
def _new_pid_namespace() -> Iterator[None]:
    """Let what the block starts be process 1 of a PID namespace."""
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            yield
        finally:
            syscalls.setns(ours, syscalls.CLONE_NEWPID)
    finally:
        os.close(ours)


def _part(ancillary: list[tuple[int, int, bytes]], kind: int) -> bytes:
    return next(data for level, of, data in ancillary if (level, of) == (socket.SOL_SOCKET, kind))


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])
