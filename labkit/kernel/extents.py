"""Where the blocks of a file lie, and with whom it shares them: FIEMAP. See: ioctl_fiemap(2), Documentation/filesystems/fiemap.rst."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator

_FIEMAP, _SYNC = 0xC020660B, 1  # FS_IOC_FIEMAP, FIEMAP_FLAG_SYNC of <linux/fiemap.h>
_LAST, _SHARED = 0x1, 0x2000  # FIEMAP_EXTENT_LAST, FIEMAP_EXTENT_SHARED
_HEAD, _EXTENT = "QQIIII", "QQQ16xI12x"
_MANY = 256
_WHOLE = 2**64 - 1


def shared(path: str | os.PathLike[str]) -> float:
    """Return which part of a file's blocks other files have, too: 0.0 where it has its own, 1.0 where a snapshot was not written to.

    Shell:
        filefrag -v FILE

    Raises:
        OSError: EOPNOTSUPP, its file system does not tell.
    """
    every = list(_extents(path))
    total = sum(length for length, _ in every)
    return sum(length for length, flags in every if flags & _SHARED) / total if total else 0.0


def _extents(path: str | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    """Yield length and flags of each extent."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    start = 0
    try:
        while True:
            room = bytearray(struct.pack(_HEAD, start, _WHOLE - start, _SYNC, 0, _MANY, 0) + bytes(_MANY * struct.calcsize(_EXTENT)))
            fcntl.ioctl(descriptor, _FIEMAP, room)
            found = struct.unpack_from(_HEAD, room)[3]
            parts = [struct.unpack_from(_EXTENT, room, struct.calcsize(_HEAD) + at * struct.calcsize(_EXTENT)) for at in range(found)]
            for _logical, _physical, length, flags in parts:
                yield length, flags
            if not parts or parts[-1][3] & _LAST:
                return
            start = parts[-1][0] + parts[-1][2]
    finally:
        os.close(descriptor)
