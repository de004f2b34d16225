"""Who listens on a Unix socket: the daemon behind a path, found by the socket's inode.

See: unix(7), proc_pid_net(5)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_ACCEPTS = 0x10000  # __SO_ACCEPTCON in the column Flags: it was given to listen(2)


def listeners(paths: Iterable[str | os.PathLike[str]], proc: str | Path = "/proc") -> dict[str, tuple[int, ...]]:
    """Return the processes that have the listening socket of each path open; a path on which nobody listens is left out.

    Shell:
        ss --listening --unix --processes

    Args:
        paths: of sockets, in the network namespace of the caller; symlinks on the way are followed.
        proc: where procfs is mounted.
    """
    wanted = {os.path.realpath(path): os.fspath(path) for path in paths}
    inodes = {inode: wanted[real] for inode, path in _listening(Path(proc)) if (real := os.path.realpath(path)) in wanted}
    found: dict[str, list[int]] = {}
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()) if inodes else ():
        for path in {inodes[inode] for inode in _sockets(f"{proc}/{pid}/fd") if inode in inodes}:
            found.setdefault(path, []).append(pid)
    return {path: tuple(pids) for path, pids in found.items()}


def _listening(proc: Path) -> Iterable[tuple[str, str]]:
    """Yield (inode, path) of the sockets that have a path and accept connections."""
    for line in (proc / "net/unix").read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]:
        words = line.split(None, 7)
        if len(words) == 8 and int(words[3], 16) & _ACCEPTS and words[7].startswith("/"):
            yield words[6], words[7]


def _sockets(directory: str) -> Iterable[str]:
    """Yield the inodes of the sockets that a process has open; of one that has ended, none."""
    try:
        for name in os.listdir(directory):
            link = os.readlink(f"{directory}/{name}")
            if link.startswith("socket:["):
                yield link[8:-1]
    except OSError:
        return
