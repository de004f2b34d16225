"""Overlay mounts, and which files of their upper layers are being written.

That something is mounted poll(2) on /proc/self/mountinfo tells, that a file comes or goes inotify. A write through an overlay is
told of the merged file alone, and not of the one in the upper layer: the sizes and times of the latest files are polled.
See: proc_pid_mountinfo(5), Documentation/filesystems/overlayfs.rst
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

from labkit.kernel.live.frame import LayerFile, Layers, Member
from labkit.kernel.live.watches import Watches
from labkit.kernel.mounts.table import mountinfo

SHOWN = 8
"""Files of a layer that are shown."""

_LATEST = 64
_MOST_ENTRIES, _MOST_WATCHED = 2000, 256
_WRITTEN_SECONDS = 2.0
_REST = 2.0


@dataclass
class _Upper:
    """The upper layer of an overlay from one look to the next."""

    directory: str
    latest: list[str] = field(default_factory=list)
    times: dict[str, tuple[int, int]] = field(default_factory=dict)
    written: dict[str, float] = field(default_factory=dict)
    count: int = 0
    dirty: bool = True


class Overlays:
    """The overlay mounts that this process sees, and those that the others see in mount namespaces of their own."""

    def __init__(self) -> None:
        self.watches = Watches()
        self.mountinfo = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._home = os.stat("/proc/self/ns/mnt").st_ino
        self._texts: dict[int, tuple[bytes, tuple[Layers, ...]]] = {}
        self._uppers: dict[str, _Upper] = {}
        self._found: dict[str, Layers] = {}
        self._looked = -_REST
        self.mounted = True
        self.rows: MappingProxyType[str, Layers] = MappingProxyType({})

    def take_events(self) -> bool:
        """Take what inotify tells of the upper layers."""
        told = False
        for directory, _, _ in self.watches.read():
            for upper in self._uppers.values():
                if not directory or f"{directory}/".startswith(f"{upper.directory}/"):
                    upper.dirty = told = True
        return told

    def refresh(self, now: float, processes: Mapping[str, Member]) -> bool:
        """Look at the mounts where something may have changed, and at the latest files; return whether anything did."""
        if self.mounted or now - self._looked > _REST:
            self.mounted, self._looked = False, now
            self._found = {row.key: row for row in self._mounts(processes)}
            self._uppers = {key: self._uppers.get(key) or _Upper(key) for key, row in self._found.items() if row.upper}
        rows = {key: self._with_files(row, now) for key, row in self._found.items()}
        kept = {key: old if (old := self.rows.get(key)) == row else row for key, row in rows.items()}
        if kept.keys() == self.rows.keys() and all(self.rows[key] is row for key, row in kept.items()):
            return False
        self.rows = MappingProxyType(kept)
        return True

    def _mounts(self, processes: Mapping[str, Member]) -> Iterator[Layers]:
        representatives = {self._home: 0}
        for row in processes.values():
            if "mount" in row.own:
                representatives.setdefault(dict(row.namespaces)["mount"], row.pid)
        self._texts = {inode: known for inode, known in self._texts.items() if inode in representatives}
        seen: set[str] = set()
        for inode, pid in representatives.items():
            for layers in self._mounts_of(inode, pid):
                if layers.key not in seen:
                    seen.add(layers.key)
                    yield layers

    def _mounts_of(self, inode: int, pid: int) -> tuple[Layers, ...]:
        with suppress(OSError), open(f"/proc/{pid or 'self'}/mountinfo", "rb") as file:
            text = file.read()
            known = self._texts.get(inode)
            if known is None or known[0] != text:
                known = self._texts[inode] = (text, tuple(_overlays(pid)) if b" - overlay " in text else ())
            return known[1]
        return ()

    def _with_files(self, row: Layers, now: float) -> Layers:
        upper = self._uppers.get(row.key)
        if upper is None:
            return row
        directory = upper.directory if os.path.isdir(upper.directory) else f"/proc/{row.pid or 'self'}/root{upper.directory}"
        if upper.dirty:
            self._walk(upper, directory)
        files = tuple(_looked_at(upper, directory, now))
        return Layers(row.merged, row.lowers, row.upper, files[:SHOWN], upper.count, row.pid)

    def _walk(self, upper: _Upper, directory: str) -> None:
        """Find the latest files of a layer, and watch its directories."""
        upper.dirty = False
        found: list[tuple[int, str]] = []
        stack, watched = [directory], 0
        while stack and len(found) < _MOST_ENTRIES:
            here = stack.pop()
            if watched < _MOST_WATCHED and (self.watches.watches(here) or self.watches.add(here)):
                watched += 1
            with suppress(OSError), os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
                    else:
                        found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path[len(directory) + 1 :]))
        upper.count = len(found)
        upper.latest = [path for _, path in sorted(found, reverse=True)[:_LATEST]]

    def close(self) -> None:
        """Close every file."""
        self.watches.close()
        os.close(self.mountinfo)


def _overlays(pid: int) -> Iterator[Layers]:
    with suppress(OSError):
        for mount in mountinfo(pid or "self"):
            if mount.fstype == "overlay":
                options = dict(option.partition("=")[::2] for option in mount.super_options)
                lowers = _lowers(mount.super_options, options.get("lowerdir", ""))
                yield Layers(mount.mountpoint, lowers, options.get("upperdir", ""), pid=pid)


def _lowers(options: Iterable[str], joined: str) -> tuple[str, ...]:
    each = tuple(option.partition("=")[2] for option in options if option.startswith("lowerdir+="))
    return each or tuple(path for path in joined.replace("\\:", "\0").split(":") if path)


def _looked_at(upper: _Upper, directory: str, now: float) -> Iterator[LayerFile]:
    found = []
    for path in upper.latest:
        try:
            status = os.lstat(f"{directory}/{path}")
        except OSError:
            upper.dirty = True
            continue
        before, upper.times[path] = upper.times.get(path), (status.st_mtime_ns, status.st_size)
        if before is not None and before != upper.times[path]:
            upper.written[path] = now
        written = path in upper.written and now - upper.written[path] < _WRITTEN_SECONDS
        found.append((status.st_mtime_ns, LayerFile(path, status.st_size, _kind(status), written)))
    return (file for _, file in sorted(found, key=lambda one: one[0], reverse=True))


def _kind(status: os.stat_result) -> str:
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return "whiteout"
    if stat.S_ISLNK(status.st_mode):
        return "symlink"
    return "file" if stat.S_ISREG(status.st_mode) else "other"
