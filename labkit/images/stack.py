"""The layers of an image as directories that an overlay can stack: what an engine keeps of them on its disk.

In a layer's tar a whiteout is a file whose name begins with `.wh.`; overlayfs knows it as a character device 0/0, and an opaque directory
by an extended attribute. See: image-spec layer.md, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, cast

from labkit.errors import LabError
from labkit.images import layer
from labkit.images.image import ImageParts
from labkit.images.layout import Layout

_GZIP = b"\x1f\x8b"
_OPAQUE = "trusted.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def whiteouts(file: Path) -> tuple[str, ...]:
    """Return the paths that a layer takes away from those below, as it names them, and its opaque directories with a slash at the end.

    Shell:
        tar -tf FILE | grep '.wh.'

    Args:
        file: the layer's tar, compressed or not.
    """
    found = []
    with tarfile.open(file, "r:*") as tar:
        for member in tar:
            parent, _, name = member.name.removeprefix("./").rpartition("/")
            if name == layer.OPAQUE:
                found.append(f"{parent}/")
            elif name.startswith(layer.WHITEOUT):
                found.append(f"{parent}/{name.removeprefix(layer.WHITEOUT)}".lstrip("/"))
    return tuple(found)


def unpack(layout: Layout, image: ImageParts, place: Path) -> tuple[Path, ...]:
    """Unpack each layer of an image into a directory of its own; return these, the lowest first.

    Shell:
        mkdir PLACE/1; tar -xf LAYER -C PLACE/1; mknod PLACE/1/REMOVED c 0 0

    Args:
        layout: has the layers.
        image: the image.
        place: a directory; a layer that was unpacked there once stays as it is, and another one is replaced.

    Raises:
        LabError: a layer is not what its digest says, or the tar in it is not what the configuration says.
    """
    done = []
    for number, (descriptor, diff_id) in enumerate(zip(image.layers, image.config.diff_ids, strict=True), 1):
        directory = place / str(number)
        if not holds(directory, diff_id):
            layout.check(descriptor)
            partial = place / f"{number}.partial"
            shutil.rmtree(partial, ignore_errors=True)  # of one that was refused, or interrupted
            partial.mkdir()
            _unpack(layout.blob(descriptor.digest), diff_id, partial)
            _mark(directory).unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)
            partial.rename(directory)
            _mark(directory).write_text(f"{diff_id}\n")
        done.append(directory)
    return tuple(done)


def holds(directory: Path, diff_id: str) -> bool:
    """Tell whether a directory is that into which this layer was unpacked: beside it lies a file with its digest."""
    return directory.is_dir() and _mark(directory).is_file() and _mark(directory).read_text().strip() == diff_id


def _mark(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.diff_id")


def _unpack(file: Path, diff_id: str, directory: Path) -> None:
    """Unpack one layer; its whiteouts speak of the layers below alone, also where they stand behind a name of this one."""
    if (found := _diff_id(file)) != diff_id:
        raise LabError(f"layer {file.name} refused", cause=f"its tar has the digest {found}, and the configuration says {diff_id}")
    hidden = whiteouts(file)
    with TemporaryFile(dir=directory.parent) if hidden else file.open("rb") as tar:
        if hidden:
            _copy_others(file, cast(IO[bytes], tar))
        layer.apply(cast(IO[bytes], tar), directory)
    for path in hidden:
        _hide(directory, path)


def _diff_id(file: Path) -> str:
    """Return the digest of the tar in a file, compressed or not."""
    with file.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        tar = gzip.GzipFile(fileobj=raw) if packed else raw
        return f"sha256:{hashlib.file_digest(cast(IO[bytes], tar), 'sha256').hexdigest()}"  # type: ignore[arg-type]


def _copy_others(file: Path, to: IO[bytes]) -> None:
    """Copy a tar without its whiteouts."""
    with tarfile.open(file, "r:*") as tar, tarfile.open(fileobj=to, mode="w", format=tarfile.PAX_FORMAT) as kept:
        for member in tar:
            if not member.name.rpartition("/")[2].startswith(layer.WHITEOUT):
                kept.addfile(member, tar.extractfile(member) if member.isreg() else None)
    to.seek(0)


def _hide(root: Path, path: str) -> None:
    """Write a whiteout, or that a directory is opaque, as overlayfs has it; through no link, since the layer is a stranger's."""
    *parents, name = path.split("/")
    here = os.open(root, _DIRECTORY)
    try:
        for part in filter(None, parents):
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        if name:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=here)
        else:
            os.setxattr(f"/proc/self/fd/{here}", _OPAQUE, b"y")
    finally:
        os.close(here)
