"""Measure why a file cannot be executed. Standard library only: the launcher's children use it."""

from __future__ import annotations

import errno
import os
import struct


def why_not(path: str, number: int) -> str | None:
    """Measure why a file cannot be executed.

    Args:
        path: the file.
        number: the errno of execve(2).

    Returns:
        The cause, or None where nothing was found; a file that is not there has none to give.
    """
    if os.path.islink(path) and not os.path.exists(path):
        return f"{path} is a symbolic link to {os.readlink(path)}, which is not there"
    if not os.path.exists(path):
        return None
    if number == errno.EACCES:
        if os.path.isdir(path):
            return f"{path} is a directory"
        if not os.stat(path).st_mode & 0o111:
            return f"{path} has no execute permission (mode {os.stat(path).st_mode & 0o7777:04o})"
        return f"{path} lies on a mount with noexec" if os.statvfs(path).f_flag & os.ST_NOEXEC else None
    kind, interpreter = interpreter_of(path)
    if number == errno.ENOENT and interpreter and not os.path.exists(interpreter):
        return f"{path} is there, its {kind} {interpreter} is not"
    return f"{path} is neither a program nor a script with #!" if number == errno.ENOEXEC and not kind else None


def interpreter_of(path: str) -> tuple[str, str]:
    """Return what a program needs to be run: ("script interpreter" or "loader", its path), or two empty strings.

    See: execve(2), elf(5) for PT_INTERP
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            if head.startswith(b"#!"):
                words = head[2:].split(b"\n", 1)[0].split()
                return "script interpreter", os.fsdecode(words[0]) if words else ""
            if head[:4] != b"\x7fELF":
                return "", ""
            wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
            offset, size, count = (
                struct.unpack_from(order + "Q", head, 32)[0] if wide else struct.unpack_from(order + "I", head, 28)[0],
                *struct.unpack_from(order + "HH", head, 54 if wide else 42),
            )
            for number in range(count):
                file.seek(offset + number * size)
                header = file.read(size)
                if struct.unpack_from(order + "I", header)[0] == 3:  # PT_INTERP
                    layout = (order + "Q16xQ", 8) if wide else (order + "I8xI", 4)
                    start, length = struct.unpack_from(layout[0], header, layout[1])
                    file.seek(start)
                    return "loader", os.fsdecode(file.read(length).rstrip(b"\0"))
    except (OSError, struct.error, IndexError):
        pass
    return "", ""
