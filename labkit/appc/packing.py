"""The file of an image, compressed or not, as the tar that is in it.

See:
    gzip(1), bzip2(1), xz(1)
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, cast

from labkit.appc.types import ImageID
from labkit.errors import LabError
from labkit.images.layer import LARGEST

_CHUNK = 2**20
_XZ_MEMORY = 2**27

WRITERS: dict[str | None, Callable[[IO[bytes]], Any]] = {
    None: nullcontext,
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6, mtime=0, filename=""),
    "bzip2": lambda raw: bz2.BZ2File(raw, "wb"),
    "xz": lambda raw: lzma.LZMAFile(raw, "wb"),  # noqa: SIM115  whoever asks for one closes it
}
"""How a file is compressed: each opens what is written to."""


def copy_plain(file: Path, to: IO[bytes] | None, *, largest: int = LARGEST) -> ImageID:
    """Write the tar in a file, uncompressed, and return its name.

    Args:
        file: a tar, or one compressed with gzip, bzip2 or xz.
        to: where to write; None only reads.
        largest: bytes of the tar, beyond which it is refused.

    Raises:
        LabError: the file cannot be read, is damaged, or grows beyond `largest`.
    """
    digest, left = hashlib.sha512(), largest
    try:
        with _regular(file) as raw:
            for data in _pieces(raw):
                left -= len(data)
                if left < 0:
                    raise LabError(f"{file}: refused", cause=f"it has more than {largest} bytes once it is uncompressed")
                digest.update(data)
                if to:
                    to.write(data)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise LabError(f"{file}: {told(error)}") from error
    return ImageID(f"sha512-{digest.hexdigest()}")


@contextmanager
def _regular(file: Path) -> Iterator[IO[bytes]]:
    with open(file, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as raw:
        if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
            raise LabError(f"{file}: no regular file")
        yield raw


def told(error: BaseException) -> str:
    """Return what an error of the system, or of what reads an archive, says in one line."""
    known = isinstance(error, OSError) and error.strerror
    return known.lower() if isinstance(known, str) else f"no whole archive: {str(error) or type(error).__name__}"


def _pieces(raw: IO[bytes]) -> Iterator[bytes]:
    """Yield what is in a file, uncompressed, none of it longer than one piece."""
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"BZh"):
        return _uncompressed(raw, bz2.BZ2Decompressor)
    if magic == b"\xfd7zXZ\0":
        return _uncompressed(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    source = gzip.GzipFile(fileobj=raw) if magic.startswith(b"\x1f\x8b") else raw
    return iter(lambda: source.read(_CHUNK), b"")


def _uncompressed(raw: IO[bytes], new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> Iterator[bytes]:
    data = raw.read(_CHUNK)
    while data:  # each time one stream: several may follow each other
        machine = new()
        while not machine.eof:
            if machine.needs_input and not data:
                raise EOFError("it ends too early")
            yield machine.decompress(data, _CHUNK)
            data = raw.read(_CHUNK) if machine.needs_input else b""
        data = machine.unused_data.lstrip(b"\0") or raw.read(_CHUNK)


@contextmanager
def plain(file: Path, largest: int) -> Iterator[IO[bytes]]:
    """Open the tar of a file: the file itself, or a copy that is not compressed.

    Raises:
        LabError: as `copy_plain`.
    """
    try:
        with _regular(file) as raw:
            packed = raw.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7")
            if not packed:
                yield raw
                return
    except OSError as error:
        raise LabError(f"{file}: {told(error)}") from error
    with TemporaryFile() as copy:
        copy_plain(file, cast(IO[bytes], copy), largest=largest)
        yield cast(IO[bytes], copy)
