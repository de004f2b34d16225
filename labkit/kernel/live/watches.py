"""Directories watched by inotify: what was made, removed and written in them. See: inotify(7)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress

from labkit.errors import SyscallError
from labkit.kernel import syscalls

_EVENT = struct.Struct("=iIII")
_MASK = (
    syscalls.IN_CREATE | syscalls.IN_DELETE | syscalls.IN_MODIFY | syscalls.IN_MOVED_FROM | syscalls.IN_MOVED_TO
    | syscalls.IN_DELETE_SELF | syscalls.IN_ONLYDIR
)  # fmt: skip
COMES_AND_GOES = syscalls.IN_CREATE | syscalls.IN_DELETE | syscalls.IN_MOVED_FROM | syscalls.IN_MOVED_TO
_BUFFER = 1 << 16


class Watches:
    """One inotify descriptor and the directories that it watches. A watch keeps no file system from being unmounted."""

    def __init__(self) -> None:
        self.descriptor = syscalls.inotify_init1()
        self._directories: dict[int, str] = {}
        self._numbers: dict[str, int] = {}

    def add(self, directory: str) -> bool:
        """Watch a directory, and return whether its events will come: not if it is gone, or too many are watched."""
        try:
            number = syscalls.inotify_add_watch(self.descriptor, directory, _MASK)
        except SyscallError:
            return False
        self._numbers.pop(self._directories.get(number, ""), None)
        self._directories[number] = directory
        self._numbers[directory] = number
        return True

    def watches(self, directory: str) -> bool:
        """Whether a directory is watched."""
        return directory in self._numbers

    def read(self) -> Iterator[tuple[str, int, str]]:
        """Yield (directory, IN_*, name) of what happened; an empty directory where events were lost."""
        with suppress(BlockingIOError):
            while True:
                yield from self._parse(os.read(self.descriptor, _BUFFER))

    def _parse(self, data: bytes) -> Iterator[tuple[str, int, str]]:
        offset = 0
        while offset + _EVENT.size <= len(data):
            number, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = data[offset : offset + length].rstrip(b"\0")
            offset += length
            directory = self._directories.get(number, "")
            if mask & syscalls.IN_IGNORED:  # it is gone
                self._numbers.pop(self._directories.pop(number, ""), None)
            elif directory or mask & syscalls.IN_Q_OVERFLOW:
                yield directory, mask, os.fsdecode(name)

    def close(self) -> None:
        """Stop watching."""
        os.close(self.descriptor)
