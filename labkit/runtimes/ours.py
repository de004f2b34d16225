"""Which containers the labs made: one entry of the ledger each, with what tells its processes and cgroups from all others.

An entry outlives a stop, and goes with `remove` or with the clean-up. Processes are known by pid and start time together,
cgroups by directory and inode.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.kernel.cgroups import hierarchies, members
from labkit.kernel.processes import ending
from labkit.runtimes.container import Container, State

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_TICK = 0.005  # seconds between two looks at what the kernel gives no notice of


def entries(kind: str) -> dict[str, ledger.Entry]:
    """Return the containers of a kind that the ledger knows, by name."""
    return {entry.key["name"]: entry for entry in ledger.live() if entry.kind == kind}


def entry(kind: str, name: str, there: Iterable[Container]) -> ledger.Entry:
    """Return the ledger's entry of a container that is to be changed.

    Args:
        kind: in the ledger.
        name: of the container.
        there: those that the runtime knows.

    Raises:
        LabError: no lab made it.
    """
    found = entries(kind).get(name)
    if found is None:
        names = {container.name: container for container in there}
        if name in names:
            raise LabError(f"the container {names[name]} was not made by a lab and stays as it is")
        raise LabError(f"there is no container {kind.split()[0]}:{name}", remedy=f"there are: {', '.join(names) or 'none'}")
    return found


@contextmanager
def making(kind: str, name: str, there: Iterable[Container], **key: str) -> Iterator[ledger.Entry]:
    """Write a container down, let the block start it, and write what it noted in `identity`.

    A stopped container of the lab gives its name to the new one.

    Raises:
        LabError: the name cannot stand, or a container has it.
    """
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} cannot be the name of a container", remedy="letters, digits, . and -, at most 64, such as web")
    taken = next((container for container in there if container.name == name), None)
    known = entries(kind).get(name)
    if taken is not None and (taken.state != "stopped" or known is None):
        whose = "" if known else ", and no lab made it"
        raise LabError(f"the container {taken} is there already", cause=f"its state is {taken.state}{whose}", remedy="choose another name")
    if known is not None:
        with trace.silent():
            ledger.undo_one(known)
    with ledger.making(kind, name=name, **key) as entry:
        yield entry


def process_of(entry: ledger.Entry, which: str) -> ending.Known | None:
    """Return a process that an entry names ("init", "supervisor"), while it lives."""
    words = entry.identity.get(which)
    if not words or not ledger.of_this_boot(entry):
        return None
    found = ending.Known(int(words[0]), int(words[1]))
    return found if lives(found) else None


def lives(process: ending.Known) -> bool:
    """Return whether a process is still there and has not ended."""
    fields = members.stat_fields(process.pid)
    return bool(fields) and fields[0] not in "ZX" and int(fields[19]) == process.start


def record(kind: str, entry: ledger.Entry, state: State = "running") -> Container:
    """Return an entry as a container: running while its first process lives."""
    init, rootfs = process_of(entry, "init"), Path(entry.key["rootfs"])
    return Container(kind.split()[0], entry.key["name"], state if init else "stopped", init.pid if init else None, rootfs, ours=True)


def wait_until_it_runs(init: ending.Known, starters: Iterable[str], timeout: float = 10.0) -> bool:
    """Wait until a process has left the programs that started it and runs its own; False where it ended instead."""
    deadline = time.monotonic() + timeout
    while lives(init):
        with suppress(OSError):
            if os.path.basename(os.readlink(f"/proc/{init.pid}/exe")).removesuffix(" (deleted)") not in starters:
                return True
        if time.monotonic() > deadline:
            raise LabError(f"process {init.pid} has not come to its program after {timeout:g} s")
        time.sleep(_TICK)
    return False


def terminate(process: ending.Known, timeout: float, number: int = signal.SIGTERM) -> bool:
    """Send a signal and wait for the end; return whether it came in time."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return True
    try:
        if not lives(process):
            return True
        signal.pidfd_send_signal(descriptor, number)
        watch = select.poll()
        watch.register(descriptor, select.POLLIN)
        return bool(watch.poll(timeout * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def end(entry: ledger.Entry) -> None:
    """Kill what is left of a container and remove the cgroups that were made for it, all of them in the lab's part."""
    for which in ("supervisor", "init"):
        process = process_of(entry, which)
        if process:
            ending.end([], root=process)
    place = entry.identity.get("cgroup") or entry.key.get("cgroup")
    for directory in [hierarchy.path / str(place) for hierarchy in hierarchies().mounted] if place else ():
        members.end(directory, 10)


def must_be_stopped(container: Container) -> None:
    """Refuse to forget a container that runs.

    Raises:
        LabError: it does.
    """
    if container.state != "stopped":
        raise LabError(f"the container {container} is {container.state}", remedy="stop it first")
