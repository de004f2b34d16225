"""Options of mount(8) taken apart: flags of mount(2) by their words, and what goes to the file system."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.kernel import syscalls
from labkit.kernel.state import MountState

FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "sync": syscalls.MS_SYNCHRONOUS,
    "dirsync": syscalls.MS_DIRSYNC,
    "nosymfollow": syscalls.MS_NOSYMFOLLOW,
    "noatime": syscalls.MS_NOATIME,
    "nodiratime": syscalls.MS_NODIRATIME,
    "relatime": syscalls.MS_RELATIME,
    "strictatime": syscalls.MS_STRICTATIME,
    "lazytime": syscalls.MS_LAZYTIME,
}
"""Options of mount(8) that are flags of mount(2); every other option goes to the file system."""

OPPOSITE = {"rw": "ro", "async": "sync", **{name[2:]: name for name in ("nosuid", "nodev", "noexec", "noatime", "nosymfollow")}}

_ATIME = syscalls.MS_NOATIME | syscalls.MS_RELATIME | syscalls.MS_STRICTATIME  # one of them at a time


def flags_of(words: Sequence[str]) -> int:
    """Return the flags of mount(2) that options stand for; of two opposite ones the later counts."""
    flags = 0
    for word in words:
        flags &= ~_ATIME if FLAGS.get(word, 0) & _ATIME else ~0
        flags |= FLAGS.get(word, 0)
        flags &= ~FLAGS[OPPOSITE[word]] if word in OPPOSITE else ~0
    return flags


def data_of(words: Sequence[str]) -> str | None:
    """Return the options that are no flags, joined by commas; None where there are none."""
    return ",".join(word for word in words if word not in FLAGS and word not in OPPOSITE) or None


def kept_flags(mounted: MountState, words: Sequence[str]) -> list[str]:
    """Return the flags by their words that a mount has after a change of some."""
    flags = flags_of([*mounted.options, *words])
    kept = [word for word, value in FLAGS.items() if flags & value]
    return kept if "ro" in kept else ["rw", *kept]
