"""Look into a root directory as a process in it would: links lead inside it, never out. See: path_resolution(7), chroot(2)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import SyscallError
from labkit.kernel.processes import execution

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for in a container."""

ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
"""What a container's program gets: nothing of the notebook's."""

_MOST_LINKS = 40


def resolve(root: Path, path: str) -> Path:
    """Return where on the host a path lies that is meant inside a root; it need not be there.

    Raises:
        SyscallError: ELOOP.
    """
    found: list[str] = []
    left, links = [part for part in reversed(path.split("/")) if part], 0
    while left:
        part = left.pop()
        if part in (".", ".."):
            found = found[:-1] if part == ".." else found
            continue
        place = root.joinpath(*found, part)
        if not place.is_symlink():
            found.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise SyscallError("open", errno.ELOOP, [f'"{path}"'], cause=f"more than {_MOST_LINKS} links follow each other")
        target = os.readlink(place)
        found = [] if target.startswith("/") else found
        left += [word for word in reversed(target.split("/")) if word]
    return root.joinpath(*found)


def program(root: Path, name: str) -> Path:
    """Return where on the host the program lies that execvp(3) in this root would run.

    Raises:
        SyscallError: what execve(2) would answer: ENOENT (no such file, or its loader or interpreter is not there), EACCES.
    """
    folders = [""] if "/" in name else PATH.split(":")
    refused: SyscallError | None = None
    for inside in (os.path.join(folder, name) for folder in folders):
        place = resolve(root, inside)
        if not place.exists():
            continue
        if place.is_dir() or not place.stat().st_mode & 0o111:
            refused = refused or SyscallError("execve", errno.EACCES, [f'"{inside}"'], cause=execution.why_not(str(place), errno.EACCES))
            continue
        kind, needed = execution.interpreter_of(str(place))
        if needed and not resolve(root, needed).exists():
            raise SyscallError("execve", errno.ENOENT, [f'"{inside}"'], cause=f"{inside} is there, its {kind} {needed} is not")
        return place
    where = f"there is no file {name}" if "/" in name else f"there is no {name} in {PATH}"
    raise refused or SyscallError("execve", errno.ENOENT, [f'"{name}"'], cause=where)


def must_be_directory(root: Path, argv: Sequence[str]) -> Path:
    """Return the root directory as it really lies, once `argv` could run in it.

    Raises:
        SyscallError: ENOENT, ENOTDIR of the directory; what execve(2) would say of the program.
    """
    real = Path(os.path.realpath(root))
    if not real.is_dir():
        raise SyscallError("chroot", errno.ENOTDIR if real.exists() else errno.ENOENT, [f'"{root}"'])
    program(real, argv[0])
    return real
