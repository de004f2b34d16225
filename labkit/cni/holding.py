"""A lock that outlives its holder where its holder's children still work: they inherit it. See: flock(2).

Who was killed leaves a plugin behind that goes on. Whoever clears away waits for its end, or it would make again what was removed.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import LabError

SECONDS = 60.0
_TICK = 0.01


@contextmanager
def held(path: Path, *, shared: bool = False, seconds: float = SECONDS) -> Iterator[int]:
    """Hold a lock for the length of a block.

    Args:
        path: its file; it is made, and may be removed by who holds the lock.
        shared: with others that hold it so.
        seconds: for which it is waited.

    Returns:
        The descriptor; a child that inherits it holds the lock on.

    Raises:
        LabError: somebody else held it all the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    while (fd := _take(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)) < 0:
        if time.monotonic() > deadline:
            raise LabError(f"{path} is locked", cause="another process holds it, or a plugin that it has started")
        time.sleep(_TICK)
    try:
        yield fd
    finally:
        os.close(fd)


def _take(path: Path, operation: int) -> int:
    """Return the descriptor of the lock, or -1 where somebody else holds it, or has just removed its file."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), path.stat()):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return -1
