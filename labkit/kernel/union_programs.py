"""What can serve a union in user space: the command line of each program, and reading it back from a running daemon.

unionfs-fuse is the one that the course speaks of. Where it is gone, fuse-overlayfs does the same with one writable
branch, the topmost: copy-up, whiteouts. mergerfs can neither: what lies in a read-only branch is changed in its place.
See: unionfs(8), fuse-overlayfs(1), mergerfs(1)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from labkit.errors import LabError, UnsupportedError
from labkit.kernel.commands import PACKAGES

PROGRAMS = ("unionfs", "fuse-overlayfs", "mergerfs")
"""What can serve a union, the preferred one first."""

Branches = Sequence[tuple[Path, str]]
"""(directory, "RW" or "RO"), the topmost first."""


def choose(wanted: str | None, branches: Branches) -> str:
    """Return the program that is to serve these branches: as wanted, else the first that is installed and can.

    Raises:
        LabError: the wanted one is unknown, or cannot serve these branches.
        UnsupportedError: none is installed.
    """
    if wanted is not None and wanted not in PROGRAMS:
        raise LabError(f"union: {wanted!r} is unknown here", remedy=f"one of {', '.join(PROGRAMS)}")
    candidates = [program for program in ((wanted,) if wanted else PROGRAMS) if _can_serve(program, branches)]
    if not candidates:
        raise LabError(f"union: {wanted} can write to the topmost branch only", remedy='one "RW", and that first')
    found = next((program for program in candidates if shutil.which(program)), None)
    if found is None:
        packages = " or ".join(PACKAGES[program] for program in candidates)
        raise UnsupportedError(" or ".join(candidates), "no such command in PATH", remedy=f"apt-get install {packages}")
    return found


def _can_serve(program: str, branches: Branches) -> bool:
    return program != "fuse-overlayfs" or all(mode == "RO" for _, mode in branches[1:])


def work_directory(program: str, branches: Branches) -> Path | None:
    """Return the directory that the program needs for itself, beside the writable branch; None where it needs none."""
    if program != "fuse-overlayfs" or not branches or branches[0][1] != "RW":
        return None
    return branches[0][0].with_name(f".{branches[0][0].name}.work")


def command(program: str, branches: Branches, merged: Path) -> list[str]:
    """Return the command that mounts it, as typed: its daemon goes to the background."""
    words = ":".join(f"{directory}={mode}" for directory, mode in branches)
    plain = ":".join(str(directory) for directory, _ in branches)
    writable = any(mode == "RW" for _, mode in branches)
    if program == "unionfs":
        return [program, "-o", "cow", words, str(merged)] if writable else [program, plain, str(merged)]
    if program == "mergerfs":
        # "First found": a new file goes where unionfs puts it; the free space asked for is 4 GiB else.
        # A branch's RO keeps new names out, no more: only a mount that is read-only itself refuses to change a file.
        return [program, "-o", "category.create=ff,minfreespace=0" if writable else "ro", words, str(merged)]
    work = work_directory(program, branches)
    below = ":".join(str(directory) for directory, _ in branches[1:])
    options = f"lowerdir={below},upperdir={branches[0][0]},workdir={work}" if work else f"lowerdir={plain}"
    return [program, "-o", options, str(merged)]


def daemon(program: str, where: str) -> int | None:
    """Return the pid of the daemon that serves a mount point, by its command line."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            words, operands = _words(int(name), "cmdline"), _operands(int(name))
            is_program = bool(words) and os.path.basename(words[0]) in (program, f"{program}-fuse")
            if is_program and operands and os.path.realpath(_absolute(int(name), operands[-1])) == where:
                return int(name)
    return None


def served(program: str, pid: int) -> list[tuple[Path, str]]:
    """Return the branches in a daemon's command line, with their modes."""
    if program == "fuse-overlayfs":
        options = dict(word.partition("=")[::2] for word in _options(pid))
        below = [(directory, "RO") for directory in options.get("lowerdir", "").split(":") if directory]
        found = [(options["upperdir"], "RW"), *below] if "upperdir" in options else below
    else:
        default = "RO" if program == "unionfs" else "RW"
        pairs = (word.partition("=") for word in _operands(pid)[0].split(":"))
        found = [(directory, mode or default) for directory, _, mode in pairs]
    return [(Path(_absolute(pid, directory)), mode) for directory, mode in found]


def _operands(pid: int) -> list[str]:
    """Return the words of a command line that are no options."""
    found, words = [], iter(_words(pid, "cmdline")[1:])
    for word in words:
        if word == "-o":
            next(words, None)
        elif not word.startswith("-"):
            found.append(word)
    return found


def _options(pid: int) -> Iterator[str]:
    words = _words(pid, "cmdline")
    for index, word in enumerate(words):
        if word.startswith("-o"):
            text = word[2:] or (words[index + 1] if index + 1 < len(words) else "")
            yield from text.split(",")


def _absolute(pid: int, path: str) -> str:
    """Return a path as the daemon's shell meant it: the daemon itself has left for / since."""
    started_in = next((word[4:] for word in _words(pid, "environ") if word.startswith("PWD=")), "/")
    return os.path.normpath(os.path.join(started_in, path))


def _words(pid: int, file: str) -> list[str]:
    try:
        return [os.fsdecode(word) for word in Path(f"/proc/{pid}/{file}").read_bytes().split(b"\0") if word]
    except OSError:
        return []
