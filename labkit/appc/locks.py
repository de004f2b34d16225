"""Locks between processes, each a file that is there for nothing else; a process that dies has none any more. See: flock(2)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(file: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for a lock and hold it.

    Shell:
        flock FILE COMMAND

    Args:
        file: made where it is not there; it stays.
        shared: with others that hold it shared; else alone.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
