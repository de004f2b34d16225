"""Who listens where a service should, and which processes an instance of ours has started."""

from __future__ import annotations

import os
import re
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

    kind = {"registry": "tcp", "accounts": "tcp", "lxc-bridge": "udp"}.get(name, "unix")
    for connection in psutil.net_connections(kind):
        if connection.pid and _listens_there(name, connection, places):
            return connection.pid, comm(connection.pid)
    return 0, ""


def _listens_there(name: str, connection: Any, places: Places) -> bool:
    address = connection.laddr
    if name in ("registry", "accounts"):
        return bool(connection.status == "LISTEN" and address.port == getattr(places, name))
    if name == "lxc-bridge":
        return bool(address) and f"{address.ip}:{address.port}" == f"{places.bridge_address.partition('/')[0]}:53"
    path = {
        "docker": places.docker,
        "containerd": places.containerd,
        "lxd": places.lxd / "unix.socket",
        "incus": places.incus / "unix.socket",
    }[name]
    return bool(address) and os.path.realpath(str(address)) == os.path.realpath(path)


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


def state_of(pid: int) -> Path | None:
    """Return the state directory of the instance that started a process; None if none did, or it is not to be seen."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    found = re.search(rb"(?:^|\0)LABKIT_SERVICES_OF=([^\0]+)", environment)
    return Path(os.fsdecode(found[1])) if found else None


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

