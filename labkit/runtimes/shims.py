"""The processes that stand between containerd and its containers: a shim each, and the `ctr` that asked for one.

A shim outlives the daemon, and so do the containers of a daemon that was killed. They are known by their command lines,
which have containerd's namespace and the container's id. See: containerd-shim-runc-v2
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from labkit.kernel.processes import ending
from labkit.runtimes import ours

_TICK = 0.02
_SETTLED = 0.5


def of(namespace: str, identifier: str, socket: Path) -> list[ending.Known]:
    """Return the shims of a container, or of a pod: there may be two where one is being made or removed."""
    told = {"-namespace": namespace, "-id": identifier, "-address": str(socket)}
    return [process for process, words in _command_lines("containerd-shim") if told.items() <= dict(pairwise(words)).items()]


def wait_for_one(namespace: str, identifier: str, socket: Path) -> None:
    """Give a shim a moment to appear that was asked for by who was killed: of it the daemon gives no notice."""
    deadline = time.monotonic() + _SETTLED
    while time.monotonic() < deadline and not of(namespace, identifier, socket):
        time.sleep(_TICK)


def wait_until_gone(namespace: str, identifier: str, socket: Path, timeout: float = 5.0) -> None:
    """Wait until the shims of a container have ended, which they do once it is deleted; kill what is left after `timeout`."""
    deadline = time.monotonic() + timeout
    while found := of(namespace, identifier, socket):
        if time.monotonic() > deadline:
            for shim in found:
                ending.end([], root=shim)
        time.sleep(_TICK)


def end_clients(word: str) -> None:
    """Kill every `ctr` that has this word on its command line: who started it was killed, and what it asks for must not come."""
    for process, words in _command_lines("ctr"):
        if word in words and ours.lives(process):
            ending.end([], root=process)


def _command_lines(program: str) -> Iterator[tuple[ending.Known, list[str]]]:
    """Yield the processes of a program, whose name begins like this, with their command lines."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        process = ending.known(int(pid))
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # gone meanwhile
        if process and os.path.basename(words[0]).startswith(program):
            yield process, words
