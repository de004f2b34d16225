"""systemd-nspawn(1): a program, or a whole system with its own systemd, in a directory tree.

Where systemd runs, machined keeps the list (machinectl(1)). Where it does not, nspawn is started in a PID namespace of
its own, so that its end is the end of all, and the ledger and /proc are the list.
"""

from __future__ import annotations

import os
import select
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from labkit import ledger
from labkit.errors import LabError
from labkit.host.account import IdMap
from labkit.kernel import commands, processes, rooted, syscalls
from labkit.kernel.cgroups import members, subtree
from labkit.kernel.cgroups.delegation import TRACKERS, homes
from labkit.kernel.commands import Completed, run
from labkit.kernel.processes import ending
from labkit.kernel.processes.process import Process
from labkit.runtimes import ours
from labkit.runtimes.container import Container, pick, running

_KIND = "nspawn container"
_PROGRAM = "systemd-nspawn"
_ENTERED = ("mount", "uts", "ipc", "pid", "cgroup")
_BOOT = 120.0  # seconds in which a system has to come up: a slow machine's
_RUN = Path("/run/systemd/nspawn")


def registers() -> bool:
    """Return whether systemd runs here, so that machined can keep the containers."""
    return Path("/run/systemd/system").is_dir()


def command(rootfs: str | os.PathLike[str], name: str, argv: Sequence[str] = (), *, boot: bool = False) -> list[str]:
    """Return the command line, as a person types it.

    Args:
        rootfs: the directory tree.
        name: of the machine.
        argv: what to run in it.
        boot: run its init instead.
    """
    alone = [] if registers() else ["--register=no", "--keep-unit"]
    how = ["--boot"] if boot else ["--quiet", "--kill-signal=SIGTERM"]
    return [_PROGRAM, *alone, f"--machine={name}", *how, f"--directory={os.fspath(rootfs)}", *argv]


def surroundings() -> dict[str, Any]:
    """Return what nspawn is started with: without systemd a PID namespace of its own.

    Shell:
        unshare --mount --pid --fork --mount-proc systemd-nspawn ...
    """
    return {} if registers() else {"new": ("mount", "pid"), "mount_proc": True}


def typed(command: str) -> str:
    """Return a command line of nspawn with what it is started in."""
    return command if registers() else f"unshare --mount --pid --fork --kill-child --mount-proc {command}"


class Nspawn:
    """The runtime of systemd."""

    name = "nspawn"

    def available(self) -> str | None:
        """Return None where systemd-nspawn is installed."""
        import shutil

        return None if shutil.which(_PROGRAM) else f"no command {_PROGRAM} in PATH"

    def version(self) -> str:
        """Return the version of systemd that it came with."""
        return run([_PROGRAM, "--version"]).stdout.split()[1]

    def id_map(self) -> IdMap:
        """Return an empty map: without --private-users ids are the host's."""
        return ()

    def list(self) -> tuple[Container, ...]:
        """Return those that a lab made and, where systemd runs, every machine that machined knows.

        Shell:
            machinectl list
        """
        known = {name: ours.record(_KIND, entry) for name, entry in ours.entries(_KIND).items()}
        return (*known.values(), *(machine for machine in _machines() if machine.name not in known))

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program as first process of a container.

        Shell:
            systemd-nspawn --machine=NAME -D ROOTFS PROGRAM
        """
        self._must_be_available()
        real = rooted.must_be_directory(rootfs, argv)
        with self.making(real, name) as (entry, ready):
            process = processes.start(command(real, name, argv), name=name, env=environment(ready), **surroundings())
            note(entry, process, ready)
        return ours.record(_KIND, entry)

    def boot(self, rootfs: Path, name: str) -> Container:
        """Boot the system in a tree, and return once its systemd says that it is up.

        Shell:
            systemd-nspawn -bD ROOTFS

        Raises:
            LabError: it did not come up, with what it printed last.
        """
        self._must_be_available()
        real = rooted.must_be_directory(rootfs, ["/sbin/init"])
        with self.making(real, name) as (entry, ready):
            tells = rooted.resolve(real, "/sbin/init").name == "systemd"  # of another init it is up when it has begun
            argv = [*command(real, name, boot=True), "--console=pipe", f"--notify-ready={'yes' if tells else 'no'}"]
            process = processes.start(argv, name=name, env=environment(ready), **surroundings())
            note(entry, process, ready, _BOOT)
        return ours.record(_KIND, entry)

    @contextmanager
    def making(self, rootfs: Path, name: str) -> Iterator[tuple[ledger.Entry, Ready]]:
        """Write a container down while the block starts it and notes its processes."""
        homes(bare=True)
        with ours.making(_KIND, name, self.list(), rootfs=str(rootfs)) as entry, Ready() as ready:
            yield entry, ready

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a program in the namespaces of a running one.

        Shell:
            nsenter --target PID --mount --uts --ipc --pid --cgroup --root PROGRAM
        """
        container = pick(self.list(), name, self.name)
        pid = running(container)
        rooted.program(Path(f"/proc/{pid}/root"), argv[0])
        enter = dict.fromkeys(_ENTERED, pid)
        return processes.run(argv, enter=enter, env=rooted.ENVIRONMENT, on_error=lambda _: None)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Let a system shut down, or send a program SIGTERM; what is left after `timeout` is killed.

        Shell:
            machinectl poweroff NAME
        """
        entry = ours.entry(_KIND, name, self.list())
        supervisor = ours.process_of(entry, "supervisor")
        if supervisor:
            ours.terminate(supervisor, timeout)
        _undo(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped one."""
        entry = ours.entry(_KIND, name, self.list())
        ours.must_be_stopped(ours.record(_KIND, entry))
        ledger.undo_one(entry)

    def _must_be_available(self) -> None:
        if self.available():
            raise commands.missing(_PROGRAM)


class Ready:
    """Where nspawn says that its container is up, as a service tells systemd: sd_notify(3)."""

    def __init__(self) -> None:
        self.address = f"@labkit-{uuid.uuid4().hex}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Ready:
        self._socket.bind("\0" + self.address[1:])
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait(self, process: Process, timeout: float) -> None:
        """Wait for READY=1.

        Raises:
            LabError: the process ended, or the time did, before it came.
        """
        deadline = time.monotonic() + timeout
        watch = select.poll()
        for one in (self._socket, process):
            watch.register(one, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(watch.poll(left * 1000))
            if self._socket.fileno() in ready:
                if "READY=1" in self._socket.recv(4096).decode().split("\n"):
                    return
            elif ready:
                break
        why = f"ended with status {process.status}" if not process.alive else f"was not up after {timeout:g} s"
        last = " | ".join(process.output().strip().splitlines()[-3:])
        raise LabError(f"{_PROGRAM} --machine={process.name} {why}", cause=last or None)


def environment(ready: Ready) -> dict[str, str]:
    """Return the environment of nspawn: nothing of the notebook's."""
    return {**rooted.ENVIRONMENT, "NOTIFY_SOCKET": ready.address}


def note(entry: ledger.Entry, process: Process, ready: Ready, timeout: float = 30.0) -> None:
    """Note nspawn, the container's first process and the cgroups, once the container is up."""
    entry.identity.update(supervisor=ending.known(process.pid), cgroup=_cgroup(process))
    ready.wait(process, timeout)
    begot = members.read(f"/proc/{process.pid}/task/{process.pid}/children").split()  # nothing where it has ended already
    init = next(filter(None, (ending.known(int(pid)) for pid in begot)), None)
    if init is None or not ours.wait_until_it_runs(init, (_PROGRAM,)):
        raise LabError(f"the container nspawn:{entry.key['name']} ended as it began", cause=process.output().strip() or None)
    entry.identity.update(init=init)


def _cgroup(process: Process) -> str:
    """Return where it was started, below the root of v2; nspawn makes the same cgroup in systemd's own hierarchy."""
    return f"{subtree()}/{TRACKERS}/{os.path.basename(process.tracker.path)}"


def _machines() -> Iterator[Container]:
    """Yield the machines that machined knows."""
    if not registers():
        return
    for line in run(["machinectl", "list", "--no-legend", "--no-pager"], check=False).stdout.splitlines():
        name, kind, *_ = line.split()
        shown = run(["machinectl", "show", name, "--property=Leader", "--property=RootDirectory"], check=False).stdout
        words = dict(word.split("=", 1) for word in shown.splitlines() if "=" in word)
        if kind == "container" and words.get("Leader"):
            root = words.get("RootDirectory")
            yield Container("nspawn", name, "running", int(words["Leader"]), Path(root) if root else None)


@ledger.undoes(_KIND)
def _undo(entry: ledger.Entry) -> None:
    """End it: nspawn, the first process, and where systemd runs the machine of this name whose root directory is ours."""
    for machine in _machines():
        if machine.name == entry.key["name"] and str(machine.rootfs) == entry.key["rootfs"] and machine.pid:
            leader = ending.known(machine.pid)
            ending.end([], root=leader)
    ours.end(entry)
    _forget(entry)


def _forget(entry: ledger.Entry) -> None:
    """Remove what an nspawn that was killed could not: its places for mounts and sockets, and the lock on its root directory."""
    if ours.process_of(entry, "supervisor"):
        return
    name = entry.key["name"]
    if any(machine.name == name for machine in _machines()):
        return
    with suppress(OSError):
        syscalls.umount2(_RUN / "unix-export" / name, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)
    for place in ("unix-export", "propagate"):
        with suppress(OSError):
            (_RUN / place / name).rmdir()
    with suppress(OSError):
        status = os.stat(entry.key["rootfs"])
        (_RUN / "locks" / f"inode-{status.st_dev}:{status.st_ino}").unlink()
