"""overlayfs: directories of the kernel merged into one, changes kept apart in the upper one.

See: Documentation/filesystems/overlayfs.rst in the kernel's sources
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from labkit.errors import LabError, SyscallError, UnsupportedError
from labkit.kernel import branches, mounts, syscalls
from labkit.kernel.branches import is_opaque, is_whiteout
from labkit.kernel.state import MountState, UnionState

__all__ = ["Overlay", "is_opaque", "is_whiteout"]

_PAGE = 4096  # bytes that mount(2) takes as data, the closing zero included
_FORBIDDEN = {",": "a comma", "\\": "a backslash", '"': "a quotation mark", "\n": "a line break"}


class Overlay:
    """One overlay mount, mounted or not.

    Args:
        lowerdir: read-only directories, the topmost first.
        upperdir: the directory that takes every change; without one, the overlay is read-only.
        workdir: an empty directory on the file system of `upperdir`, for the kernel's use.
        merged: the directory where the layers are seen as one.
    """

    def __init__(
        self, lowerdir: Sequence[str | Path] | str | Path, upperdir: str | Path | None, workdir: str | Path | None, merged: str | Path
    ) -> None:
        lower = [lowerdir] if isinstance(lowerdir, str | Path) else lowerdir
        self.lowerdir = tuple(Path(os.path.abspath(directory)) for directory in lower)
        self.upperdir = Path(os.path.abspath(upperdir)) if upperdir is not None else None
        self.workdir = Path(os.path.abspath(workdir)) if workdir is not None else None
        self.merged = Path(os.path.abspath(merged))

    @classmethod
    def find(cls, merged: str | Path) -> Overlay:
        """Return the overlay that is mounted on a directory, whoever mounted it.

        Raises:
            LabError: none is.
        """
        mount = mounts.at(os.path.realpath(merged))
        if mount is None or mount.fstype != "overlay":
            raise LabError(f"no overlay is mounted on {merged}")
        lower, upper, work = layers(mount)
        return cls(lower, upper or None, work or None, mount.mountpoint)

    @property
    def mounted(self) -> bool:
        """Whether an overlay is mounted on `merged` now."""
        there = mounts.at(os.path.realpath(self.merged))
        return there is not None and there.fstype == "overlay"

    @property
    def options(self) -> str:
        """The options as typed after `mount -t overlay overlay -o`."""
        lower = ":".join(str(directory).replace(":", "\\:") for directory in self.lowerdir)
        upper = f",upperdir={self.upperdir},workdir={self.workdir}" if self.upperdir else ""
        return f"lowerdir={lower}{upper}"

    def mount(self) -> Overlay:
        """Mount it; where it is mounted already, nothing is done.

        Shell:
            mount -t overlay overlay -o lowerdir=TOP:BOTTOM,upperdir=UPPER,workdir=WORK MERGED

        Returns:
            Itself.

        Raises:
            LabError: a directory is not there or cannot be written in the options; `merged` has a mount of another kind.
            UnsupportedError: this kernel has no overlay.
            SyscallError: EINVAL where `upperdir` and `workdir` lie on different mounts, or on a file system that cannot be upper.

        See: mount(2)
        """
        self._check()
        try:
            mounts.mount("overlay", self.merged, "overlay", self.options)
        except SyscallError as error:
            error.see = "Documentation/filesystems/overlayfs.rst"
            if error.errno == errno.ENODEV and error.cause:
                raise UnsupportedError("overlayfs", error.cause, remedy="modprobe overlay") from error
            error.cause = error.cause or self._cause(error.errno or 0)
            raise
        return self

    def unmount(self) -> None:
        """Detach it; where it is not mounted, nothing is done. The layers stay as they are.

        Shell:
            umount MERGED

        Raises:
            LabError: what is mounted there is not the lab's.
            SyscallError: EBUSY, with the processes that use it.
        """
        if mounts.is_mounted_on(os.path.realpath(self.merged)):
            mounts.unmount(self.merged)

    def state(self) -> UnionState:
        """Return the layers and every name in them, read from the layers themselves."""
        return UnionState(
            fstype="overlay",
            merged=str(self.merged),
            branches=(*((("upperdir", str(self.upperdir)),) if self.upperdir else ()), *(("lowerdir", str(one)) for one in self.lowerdir)),
            workdir=str(self.workdir or ""),
            mounted=self.mounted,
            files=branches.walk(self._layers(), branches.overlay),
        )

    def origin(self, path: str | Path) -> Path | None:
        """Return the lower file that the upper layer's copy was made from, as copy-up noted it.

        Args:
            path: relative to the merged directory; a renamed file is known by its new name.

        Returns:
            Its path in the lower layer; None where the upper layer has no copy.

        Raises:
            LabError: no layer has this name, or the note leads to no file of the lower layers.
        """
        relative = posixpath.normpath(os.fspath(path))
        if not any(os.path.lexists(layer / relative) for layer in self._layers()):
            raise LabError(f"no layer of {self.merged} has {relative}")
        if self.upperdir is None or not branches.was_copied_up(self.upperdir / relative):
            return None
        handle = branches.origin_handle(self.upperdir / relative)
        found = self._by_handle(relative, handle) if handle else self._by_name(relative)
        if found is None:
            raise LabError(f"{relative} is a copy of a file that no lower layer has any more")
        return found

    def __repr__(self) -> str:
        return f"<overlay on {self.merged}, {'mounted' if self.mounted else 'not mounted'}>"

    def _layers(self) -> list[Path]:
        return [*([self.upperdir] if self.upperdir else []), *self.lowerdir]

    def _by_name(self, relative: str) -> Path | None:
        """Return the uppermost lower file of this name: the file system of the lower layer has no handles to go by."""
        return next((layer / relative for layer in self.lowerdir if os.path.lexists(layer / relative)), None)

    def _by_handle(self, relative: str, handle: tuple[int, bytes]) -> Path | None:
        named = [layer / relative for layer in self.lowerdir if os.path.lexists(layer / relative)]
        every = (Path(where, name) for layer in self.lowerdir for where, dirs, files in os.walk(layer) for name in (*files, *dirs))
        return next((one for found in (named, every) for one in found if syscalls.name_to_handle_at(one) == handle), None)

    def _check(self) -> None:
        """Refuse, before anything is changed, what cannot be mounted."""
        if not self.lowerdir:
            raise LabError("overlay: no lowerdir is given", remedy="name at least one directory")
        if (self.upperdir is None) != (self.workdir is None):
            raise LabError("overlay: upperdir and workdir go together", remedy="give both, or none for a read-only overlay")
        if self.upperdir is None and len(self.lowerdir) < 2:
            raise LabError("overlay: one lowerdir alone has nothing to be merged with", remedy="a second lowerdir, or an upperdir")
        changes = [("upperdir", self.upperdir), ("workdir", self.workdir), ("merged", self.merged)]
        for role, place in [*(("lowerdir", one) for one in self.lowerdir), *changes]:
            if place is not None:
                _check_directory(role, place)
        if len(os.fsencode(self.options)) >= _PAGE:
            raise LabError(f"overlay: the options have {len(os.fsencode(self.options))} bytes, and mount(2) takes {_PAGE - 1}")

    def _cause(self, number: int) -> str | None:
        """Measure why the kernel refused."""
        if number == errno.EINVAL and self.upperdir and self.workdir:
            if mounts.mount_id(self.upperdir) != mounts.mount_id(self.workdir):
                return "upperdir and workdir lie on different mounts"
            upper, work = os.path.realpath(self.upperdir), os.path.realpath(self.workdir)
            if f"{work}/".startswith(f"{upper}/") or f"{upper}/".startswith(f"{work}/"):
                return "one of upperdir and workdir lies in the other"
            below = next(mount for mount in mounts.mountinfo() if mount.id == mounts.mount_id(upper))
            if below.fstype == "overlay" or below.fstype.startswith("fuse"):
                return f"upperdir lies on {below.fstype}, which cannot take an overlay's changes"
        return None


def _check_directory(role: str, place: Path) -> None:
    if not place.is_dir():
        raise LabError(f"overlay: {role} {place} is {'no directory' if place.exists() else 'not there'}", remedy=f"mkdir -p {place}")
    # A merged directory is no option, and mount(8) and the kernel disagree on how a comma in an option is escaped.
    bad = next((words for letter, words in _FORBIDDEN.items() if letter in str(place)), None)
    if role != "merged" and bad:
        raise LabError(f"overlay: {role} {str(place)!r} has {bad} in its name, which mount options cannot carry", remedy="rename it")


def layers(mount: MountState) -> tuple[list[str], str, str]:
    """Return lowerdir (the topmost first), upperdir and workdir of an overlay, as it was mounted; "" for what it has not."""
    options = dict(option.partition("=")[::2] for option in mount.super_options if not option.startswith("lowerdir+="))
    lower = _split(options.get("lowerdir", "")) + [word[10:] for word in mount.super_options if word.startswith("lowerdir+=")]
    return lower, options.get("upperdir", ""), options.get("workdir", "")


def _split(lowerdir: str) -> list[str]:
    """Split at the colons that are not escaped."""
    words = [""]
    letters = iter(lowerdir)
    for letter in letters:
        if letter == ":":
            words.append("")
        else:
            words[-1] += next(letters, "") if letter == "\\" else letter
    return [word for word in words if word]
