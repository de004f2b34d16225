"""The same program in the same root file system by every runtime: what each leaves in the kernel while it runs.

Every fact is read from the running process. What is made is the ledger's, under an owner of its own, and gone at the end.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.kernel import trees
from labkit.kernel.cgroups import hierarchies
from labkit.kernel.processes.launching import running as launcher
from labkit.kernel.xray import Machine, Xray, xray
from labkit.kernel.xray.records import Member
from labkit.runtimes import ALL, container, daemons, find, load, rootfs

OWNER = "compare"
"""To whom all of it belongs in the ledger, and how the containers are called."""

ARGV = ("sleep", "1000")
"""What each of them runs: the `sleep` of busybox."""


@dataclass(frozen=True)
class Row:
    """One runtime, as it ran the program.

    Attributes:
        runtime: its name.
        version: what it says of itself; "" where it cannot be used here.
        absent: why it cannot be used here, or "".
        failed: what went wrong, in one line, or "".
        seconds: from the call of `start` until the program ran, with all that the runtime needs for it; the shortest of all starts.
        xray: everything that confines the process; None where none ran.
        stays: processes outside of the container that are there as long as it is: monitor, shim, the sandbox beside it.
        daemons: those behind the sockets that the runtime and what stays speak to.
    """

    runtime: str
    version: str = ""
    absent: str = ""
    failed: str = ""
    seconds: float | None = None
    xray: Xray | None = None
    stays: tuple[Member, ...] = ()
    daemons: tuple[Member, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Every runtime that was asked for, and where they ran.

    Attributes:
        argv: what each of them ran.
        system: the distribution.
        kernel: its release.
        cgroups: "v2", "v1" or "hybrid".
        init: what process 1 is: "systemd" or "no systemd".
        rows: in the order in which they ran.
    """

    argv: tuple[str, ...]
    system: str
    kernel: str
    cgroups: str
    init: str
    rows: tuple[Row, ...]


def compare(names: Iterable[str] = (), *, starts: int = 2, say: Callable[[str], object] = lambda _: None) -> Comparison:
    """Run the program with each runtime, one after the other, and read what the kernel knows of it.

    Shell:
        labkit compare

    Args:
        names: of runtimes; all of them by default.
        starts: how often each has its turn: the first one loads what the later ones find.
        say: called with the name of each, when its turn begins.

    Raises:
        LabError: there is no runtime of a name; another comparison runs with this state directory.
    """
    chosen = tuple(dict.fromkeys(names)) or ALL
    for name in chosen:
        find(name)
    with _ground():
        rows = []
        for name in chosen:
            say(name)
            rows.append(_row(name, starts))
    init = "systemd" if Path("/run/systemd/system").is_dir() else "no systemd"
    return Comparison(ARGV, _system(), os.uname().release, hierarchies().mode, init, tuple(rows))


def seconds_to_start(name: str) -> float:
    """Start the program once more by one runtime, and return how long that took; its container is gone afterwards.

    Raises:
        LabError: the runtime cannot be used, or failed.
    """
    with _ground():
        _, seconds = _started(find(name))
        _end(find(name))
    return seconds


@contextmanager
def _ground() -> Iterator[None]:
    """Let what is made belong to the comparison, and be gone at the end; what an earlier one left goes first."""
    ledger.state().mkdir(parents=True, exist_ok=True)
    with open(ledger.state() / "compare.lock", "w") as lock, trace.silent():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError("another comparison of the runtimes runs", remedy="wait for its end") from error
        load()
        before = ledger.owner()
        ledger.undo(OWNER)
        ledger.own(OWNER)
        try:
            trees.make_tree(ledger.state() / OWNER)
            yield
        finally:
            ledger.own(before)
            ledger.undo(OWNER)


def _row(name: str, starts: int) -> Row:
    runtime = find(name)
    absent = runtime.available()
    if absent is not None:
        return Row(name, absent=absent)
    version = ""
    try:
        version = runtime.version()
        started, seconds = _started(runtime)
        for _ in range(starts - 1):
            _end(runtime)
            started, again = _started(runtime)
            seconds = min(seconds, again)
        machine = Machine()
        found = xray(container.running(started), name, machine=machine)
        stays = _stays(found, machine)
        behind = _daemons(name, stays, machine)
        _end(runtime)
    except (LabError, ExceptionGroup) as error:
        return Row(name, version, failed=" ".join(str(error).split()))
    return Row(name, version, seconds=seconds, xray=found, stays=stays, daemons=behind)


def _started(runtime: container.Runtime) -> tuple[container.Container, float]:
    ids = runtime.id_map()
    root = rootfs.unpack(ledger.state() / OWNER / f"root-{ids[0][1] if ids else 0}", "busybox", ids)
    begin = time.perf_counter()
    started = runtime.start(root, ARGV, OWNER)
    return started, time.perf_counter() - begin


def _end(runtime: container.Runtime) -> None:
    runtime.stop(OWNER, 0)
    runtime.remove(OWNER)


def _stays(found: Xray, machine: Machine) -> tuple[Member, ...]:
    """Return the parents outside that are not ours, and what else the nearest of them watches over."""
    starter = launcher()
    ours = {1, os.getpid(), starter.pid if starter else 0, *(each.pid for each in machine.ancestors(os.getpid()))}
    outside = [each for each in found.tree.outside if each.pid not in ours]
    inside = {each.pid for each in found.tree.members}
    beside = machine.children.get(outside[0].pid, []) if outside else []
    members = [machine.members[pid] for pid in beside if pid not in inside and pid in machine.members]
    return (*members, *outside)


def _daemons(name: str, stays: Iterable[Member], machine: Machine) -> tuple[Member, ...]:
    """Return who listens on the runtime's sockets, and on those that a shim was told of."""
    told = [word for each in stays for word in each.argv if word.endswith(".sock")]
    known = {each.pid for each in stays}
    return tuple(each for each in daemons.listening([*daemons.sockets().get(name, ()), *told], machine) if each.pid not in known)


def _system() -> str:
    import platform

    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
