"""An App Container image as a file: a tar of `manifest` and `rootfs`, compressed or not; built, named, checked and unpacked.

An archive is a stranger's until all of its entries were looked at: nothing is unpacked of one that breaks a rule.

See:
    appc spec aci.md, "Image Archives"
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, cast

from labkit.appc.documents import LARGEST_MANIFEST
from labkit.appc.image_manifest import ImageManifest
from labkit.appc.packing import WRITERS, copy_plain, plain, told
from labkit.appc.types import ImageID, serialized
from labkit.errors import LabError
from labkit.images import entries, layer
from labkit.images.entries import DAMAGED
from labkit.images.layer import LARGEST

MANIFEST, ROOTFS = "manifest", "rootfs"
MOST_ENTRIES = 500_000

_CHUNK = 2**20
_LARGEST_HEADER = 2 * LARGEST_MANIFEST
_PODS_OWN = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)}


def build(manifest: ImageManifest, rootfs: Path, file: Path, *, compression: str | None = None, epoch: int | None = None) -> ImageID:
    """Write an image; the same tree gives the same bytes.

    Shell:
        actool build DIRECTORY FILE.aci

    Args:
        manifest: of the image.
        rootfs: its root file system; devices and sockets have no place in it.
        file: where to write it; its name should end in `.aci`.
        compression: None, `gzip`, `bzip2` or `xz`.
        epoch: seconds since 1970 that no time is later than; None keeps all times.

    Returns:
        The image id.
    """
    data, rootfs = serialized(manifest.record()).encode(), rootfs.resolve()
    member = tarfile.TarInfo(MANIFEST)
    member.size, member.mtime = len(data), int(rootfs.stat().st_mtime) if epoch is None else epoch
    with file.open("wb") as raw, WRITERS[compression](raw) as packed, _writing(packed) as tar:
        tar.addfile(member, io.BytesIO(data))
        entries.add_all(tar, rootfs.parent, [rootfs.name], named=lambda _: ROOTFS, epoch=epoch)
        entries.add_all(tar, rootfs, layer.everything(rootfs), named=lambda path: f"{ROOTFS}/{path}", epoch=epoch)
    return image_id(file)


def _writing(packed: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK)


def image_id(file: Path) -> ImageID:
    """Return the name of an image: the digest of its tar, whatever it was compressed with.

    Shell:
        zcat FILE.aci | sha512sum

    Raises:
        LabError: the file cannot be read, or grows beyond all measure.
    """
    return copy_plain(file, None)


def check(file: Path, *, largest: int = LARGEST) -> ImageManifest:
    """Look at every entry of an image and return its manifest; no file of it is written.

    Shell:
        actool validate FILE.aci

    Raises:
        ManifestError: the manifest breaks a rule; the field is named.
        LabError: the archive does; the entry is named.
    """
    with plain(file, largest) as tar:
        return _checked(file, tar, largest)


def unpack(file: Path, rootfs: Path, *, largest: int = LARGEST) -> ImageManifest:
    """Unpack the root file system of an image that breaks no rule; devices that every pod has anyway are left out.

    Shell:
        tar -xf FILE.aci --strip-components 1 -C ROOTFS rootfs

    Args:
        file: the image.
        rootfs: an empty directory; it is made where there is none.
        largest: bytes of the archive and of all files together, beyond which it is refused.

    Raises:
        ManifestError: the manifest breaks a rule; the field is named.
        LabError: the archive does; the entry is named, and `rootfs` is as it was. Or the file system cannot hold an entry: what was
            unpacked before it stays.
    """
    with plain(file, largest) as tar:
        manifest = _checked(file, tar, largest)
        rootfs.mkdir(parents=True, exist_ok=True)
        _extract(tar, rootfs)
    return manifest


class _Guarded:
    """A file in which the headers of one entry cannot make tarfile read, and keep, as much as it has."""

    def __init__(self, file: IO[bytes]) -> None:
        self.left = 0
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"the header of an entry has more than {_LARGEST_HEADER} bytes")
        self.left -= size
        return self._read(size)


def _members(plain: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the entries, one at a time, and keep none of them."""
    plain.seek(0)
    guarded = _Guarded(plain)
    guarded.left = _LARGEST_HEADER
    last = "its first entry"
    try:
        with tarfile.open(fileobj=cast(IO[bytes], guarded), mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]
                last = repr(member.name)
                guarded.left = max(member.size, 0)
                yield tar, member
                guarded.left = _LARGEST_HEADER
    except DAMAGED as error:
        raise LabError(f"no whole tar archive after {last}", cause=str(error) or type(error).__name__) from error


def _checked(file: Path, plain: IO[bytes], largest: int) -> ImageManifest:
    manifest: bytes | None = None
    kinds: dict[tuple[str, ...], bytes] = {}
    left = largest
    for tar, member in _members(plain):
        parts = _place(member)
        if not parts:
            continue
        _check_place(member, parts, kinds)
        _check_kind(member, kinds)
        left -= member.size if member.isreg() else 0
        if left < 0 or len(kinds) > MOST_ENTRIES:
            raise entries.refused(member, f"the image has more than {largest} bytes or {MOST_ENTRIES} entries")
        if parts == (MANIFEST,):
            manifest = _read(tar, member)
    if manifest is None:
        raise LabError(f"{file}: no manifest in it")
    if kinds.get((ROOTFS,)) != tarfile.DIRTYPE:
        raise LabError(f"{file}: no directory rootfs in it")
    return ImageManifest.parse(manifest)


def _place(member: tarfile.TarInfo) -> tuple[str, ...]:
    parts = entries.path_parts(member, member.name)
    if any(len(os.fsencode(part)) > 255 for part in parts) or len(os.fsencode(member.name)) > 4095:
        raise entries.refused(member, "its name is too long")
    return parts


_IMPLIED = b"implied"


def _check_place(member: tarfile.TarInfo, parts: tuple[str, ...], kinds: dict[tuple[str, ...], bytes]) -> None:
    """Refuse an entry outside of what an image is, one that is there twice, and one below what is no directory."""
    directory = member.isdir()
    if parts[0] not in (MANIFEST, ROOTFS):
        raise entries.refused(member, "only manifest and rootfs may stand at the top")
    if parts[0] == MANIFEST and (len(parts) > 1 or not member.isreg()):
        raise entries.refused(member, "the manifest must be a regular file")
    if parts == (ROOTFS,) and not directory:
        raise entries.refused(member, "rootfs must be a directory")
    before = kinds.get(parts)
    if before is not None and not (before == _IMPLIED and directory):
        raise entries.refused(member, "it is there twice")
    for depth in range(len(parts) - 1, 0, -1):
        above = kinds.setdefault(parts[:depth], _IMPLIED)
        if above not in (_IMPLIED, tarfile.DIRTYPE):
            raise entries.refused(member, f"{'/'.join(parts[:depth])!r} above it is no directory")
    kinds[parts] = tarfile.DIRTYPE if directory else member.type


def _check_kind(member: tarfile.TarInfo, kinds: dict[tuple[str, ...], bytes]) -> None:
    """Refuse what is no file, what leads out of the image, and what only a machine's administrator may say."""
    entries.check(member)
    if member.islnk():
        target = entries.path_parts(member, member.linkname)
        if target[:1] != (ROOTFS,) or kinds.get(target, tarfile.DIRTYPE) in (tarfile.DIRTYPE, _IMPLIED, tarfile.CHRTYPE):
            raise entries.refused(member, f"a link to {member.linkname!r}, which is no file of rootfs before it")
    if member.type in (tarfile.CHRTYPE, tarfile.BLKTYPE) and not _pods_own(member):
        raise entries.refused(member, f"a device, {member.devmajor}:{member.devminor}, which would open the machine's own")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk() or member.isdev()):
        raise entries.refused(member, f"it is of the type {member.type!r}, which no file has")
    if member.size < 0:
        raise entries.refused(member, f"its size is {member.size} bytes")
    if any(key.startswith("SCHILY.xattr.trusted.") for key in member.pax_headers):
        raise entries.refused(member, "an attribute of the kernel's own")


def _pods_own(member: tarfile.TarInfo) -> bool:
    return member.ischr() and (member.devmajor, member.devminor) in _PODS_OWN


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > LARGEST_MANIFEST:
        raise entries.refused(member, f"it has more than {LARGEST_MANIFEST} bytes")
    try:
        return cast(IO[bytes], tar.extractfile(member)).read()
    except DAMAGED as error:
        raise entries.refused(member, told(error)) from error


def _extract(plain: IO[bytes], rootfs: Path) -> None:
    directories: list[tuple[tarfile.TarInfo, tuple[str, ...]]] = []
    for tar, member in _members(plain):
        top, *inside = _place(member) or ("",)
        if top != ROOTFS or _pods_own(member):
            continue
        if member.isdir():
            directories.append((member, tuple(inside)))
        if inside:
            _put(tar, member, rootfs, inside)
    for member, parts in reversed(directories):  # what was put into a directory has changed its time
        root, way, name = (rootfs, parts[:-1], parts[-1]) if parts else (rootfs.parent, (), rootfs.name)
        _at(member, root, way, partial(entries.dress, member, name=name))


def _put(tar: tarfile.TarFile, member: tarfile.TarInfo, rootfs: Path, inside: list[str]) -> None:
    if member.islnk():
        member.linkname = "/".join(entries.path_parts(member, member.linkname)[1:])
    _at(member, rootfs, inside[:-1], partial(entries.put, tar, member, rootfs, name=inside[-1]))


def _at(member: tarfile.TarInfo, root: Path, way: Sequence[str], work: Callable[[int], None]) -> None:
    parent = entries.open_directory(member, root, way, make=True)
    try:
        work(parent)
    except (OSError, *DAMAGED) as error:
        raise entries.refused(member, told(error)) from error
    finally:
        os.close(parent)
