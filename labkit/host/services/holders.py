"""Who listens where a service should, and which processes an instance of ours has started."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labkit.host.services.places import Places

KILL_SECONDS = 10.0


def holder(name: str, places: Places) -> tuple[int, str]:
    """Return the process that listens at the place of a service, as (pid, comm); (0, "") where it is not to be seen."""
    import psutil

    port = {"registry": places.registry, "accounts": places.accounts}.get(name)
    path = {"docker": places.docker, "containerd": places.containerd, "lxd": places.lxd / "unix.socket"}.get(name)
    for connection in psutil.net_connections("tcp" if port else "unix"):
        if not connection.pid:
            continue
        address: Any = connection.laddr
        if (connection.status == psutil.CONN_LISTEN and address.port == port) if port else _same(address, path):
            return connection.pid, comm(connection.pid)
    return 0, ""


def comm(pid: int) -> str:
    """Return the name of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def command(pid: int) -> bytes:
    """Return the arguments of a process, each with a null byte after it; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def listens(pid: int) -> list[str]:
    """Return the paths of the unix sockets that a process holds."""
    import psutil

    try:
        return [str(connection.laddr) for connection in psutil.Process(pid).net_connections("unix") if connection.laddr]
    except psutil.NoSuchProcess:
        return []


def marked(places: Places, name: str | None = None) -> list[int]:
    """Return the processes that carry the mark of this instance in their environment; of one service, or of all."""
    wanted = {f"LABKIT_SERVICES_OF={places.state}".encode()} | ({f"LABKIT_SERVICE={name}".encode()} if name else set())
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue  # gone meanwhile
            if wanted <= set(environment.split(b"\0")):
                found.append(int(pid))
    return found


def is_marked(pid: int, places: Places) -> bool:
    """Tell whether a process was started by this instance."""
    try:
        return f"LABKIT_SERVICES_OF={places.state}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def end(pids: Iterable[int], *, politely: float = 0.0) -> None:
    """End processes and all that descends from them, the descendants first; wait until they are gone.

    Args:
        pids: the processes.
        politely: seconds that they have to end after SIGTERM; 0 kills them at once.
    """
    import psutil

    trees = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            trees += [*reversed(process.children(recursive=True)), process]
        except psutil.NoSuchProcess:
            continue
    if politely:
        _signal(trees, signal.SIGTERM)
        psutil.wait_procs(trees, timeout=politely)
    _signal(trees, signal.SIGKILL)
    deadline = time.monotonic() + KILL_SECONDS
    while any(_lives(process) for process in trees) and time.monotonic() < deadline:
        time.sleep(0.02)


def _signal(processes: Iterable[object], number: int) -> None:
    import psutil

    for process in processes:
        if isinstance(process, psutil.Process):
            try:
                process.send_signal(number)  # it looks at the start time first: a number used again is not hit
            except psutil.NoSuchProcess:
                continue


def _lives(process: object) -> bool:
    import psutil

    try:
        return isinstance(process, psutil.Process) and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _same(address: object, path: Path | None) -> bool:
    return bool(address) and path is not None and os.path.realpath(str(address)) == os.path.realpath(path)
