"""The layers of an image as directories that an overlay can stack: what an engine keeps of them on its disk.

In a layer's tar a whiteout is a file whose name begins with `.wh.`; overlayfs knows it as a character device 0/0, and an opaque directory
by an extended attribute. See: image-spec layer.md, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
        place: a directory; a layer that was unpacked there once stays as it is.

    Raises:
        LabError: a layer is not what its digest says, or the tar in it is not what the configuration says.
    """
    done = []
    for number, (descriptor, diff_id) in enumerate(zip(image.layers, image.config.diff_ids, strict=True), 1):
        directory = place / str(number)
        if not directory.is_dir():
            layout.check(descriptor)
            partial = place / f"{number}.partial"
            partial.mkdir()
            _unpack(layout.blob(descriptor.digest), diff_id, partial)
            partial.rename(directory)
        done.append(directory)
    return tuple(done)


def _unpack(file: Path, diff_id: str, directory: Path) -> None:
    with _plain(file) as tar:
        layer.apply(cast(IO[bytes], tar), directory)
        found = tar.rest()
    if found != diff_id:
        raise LabError(f"layer {file.name} refused", cause=f"its tar has the digest {found}, and the configuration says {diff_id}")
    for path in whiteouts(file):
        _hide(directory, path)


class _Digesting:
    """A tar that is digested while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def rest(self) -> str:
        """Read to the end, and return the digest of it all."""
        while self.read(2**20):
            pass
        return f"sha256:{self._digest.hexdigest()}"


@contextmanager
def _plain(file: Path) -> Iterator[_Digesting]:
    with file.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        yield _Digesting(cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw)


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
