"""An OCI layout on disk: `oci-layout`, `index.json` and `blobs/sha256/…`, each blob named by its digest.

See:
    image-spec image-layout.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from labkit.errors import LabError
from labkit.images.oci import LARGEST_DOCUMENT, MANIFESTS, Descriptor, ImageConfig, Index, Manifest, digest_of, is_digest

REF_NAME = "org.opencontainers.image.ref.name"
_VERSION = {"imageLayoutVersion": "1.0.0"}


class Layout:
    """One layout; it reads its files when asked and keeps nothing.

    Args:
        path: its directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Layout:
        """Make an empty layout in a new directory, or return the one that is there."""
        layout = cls(path)
        (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        if not (path / "oci-layout").exists():
            (path / "oci-layout").write_text(json.dumps(_VERSION))
            (path / "index.json").write_bytes(Index(()).serialize())
        return layout

    def index(self) -> Index:
        """Return what `index.json` lists.

        Raises:
            LabError: the directory is no layout, or of a version that is not known.
        """
        try:
            version = json.loads((self.path / "oci-layout").read_bytes())
            data = (self.path / "index.json").read_bytes()
        except (OSError, ValueError) as error:
            raise LabError(f"{self.path} is no OCI layout", cause=str(error)) from error
        if version != _VERSION:
            raise LabError(f"{self.path}/oci-layout: unknown version {version}", cause="image-spec image-layout.md asks for 1.0.0")
        return Index.parse(data)

    def find(self, ref_name: str) -> Descriptor:
        """Return the manifest of this name (`org.opencontainers.image.ref.name`).

        Raises:
            LabError: there is none, with those there are.
        """
        manifests = self.index().manifests
        for each in manifests:
            if each.annotations.get(REF_NAME) == ref_name:
                return each
        has = ", ".join(each.annotations.get(REF_NAME, each.digest) for each in manifests) or "nothing"
        raise LabError(f"{self.path} has no image {ref_name!r}", cause=f"it has {has}")

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return the manifest that `descriptor` points to, verified."""
        return Manifest.parse(self.read(descriptor))

    def config(self, manifest: Manifest) -> ImageConfig:
        """Return the configuration of an image, verified."""
        return ImageConfig.parse(self.read(manifest.config))

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """Write one blob and return what points to it."""
        digest = digest_of(data)
        path = self.blob(digest)
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial")
            partial.write_bytes(data)
            partial.rename(path)
        return Descriptor(media_type, digest, len(data))

    def adopt(self, file: Path, media_type: str, digest: str) -> Descriptor:
        """Take over a file of this file system as the blob of that digest."""
        size = file.stat().st_size
        file.rename(self.blob(digest))
        return Descriptor(media_type, digest, size)

    def take(self, pieces: Iterable[bytes], descriptor: Descriptor) -> Descriptor:
        """Write a blob that comes piece by piece, and is verified by whom it comes from; one that is there already stays."""
        path = self.blob(descriptor.digest)
        if not path.exists():
            partial = self.path / "partial"
            with partial.open("wb") as file:
                file.writelines(pieces)
            partial.rename(path)
        return descriptor

    def tag(self, descriptor: Descriptor, ref_name: str) -> None:
        """List a manifest in `index.json` under a name, in place of what had this name."""
        others = [each for each in self.index().manifests if each.annotations.get(REF_NAME) != ref_name]
        named = replace(descriptor, annotations={**descriptor.annotations, REF_NAME: ref_name})
        partial = self.path / "index.json.partial"
        partial.write_bytes(Index((*others, named)).serialize())
        partial.rename(self.path / "index.json")

    def blob(self, digest: str) -> Path:
        """Return the path of the blob of this digest.

        Raises:
            LabError: it is no digest; no text from a manifest leads out of the layout.
        """
        if not is_digest(digest):
            raise LabError(f"{digest!r} is no digest")
        algorithm, _, encoded = digest.partition(":")
        return self.path / "blobs" / algorithm / encoded

    def read(self, descriptor: Descriptor) -> bytes:
        """Return a small blob whole, verified.

        Raises:
            LabError: it is not there, too large to be a document, or other bytes than its name says.
        """
        if descriptor.size > LARGEST_DOCUMENT:
            raise LabError(f"{descriptor.digest}: {descriptor.size} bytes are no document")
        self.check(descriptor)
        return self.blob(descriptor.digest).read_bytes()

    def verify(self) -> list[Descriptor]:
        """Read every blob that the index leads to; return what was verified.

        Raises:
            LabError: the first blob that is missing, of another size, or other bytes than its name says.
        """
        return list(self._verified())

    def _verified(self) -> Iterator[Descriptor]:
        for each in self.index().manifests:
            if each.media_type in MANIFESTS:
                manifest = self.manifest(each)
                yield each
                for blob in (manifest.config, *manifest.layers):
                    self.check(blob)
                    yield blob

    def check(self, descriptor: Descriptor) -> None:
        """Read one blob and compare it with what points to it.

        Raises:
            LabError: it is missing, of another size, or other bytes than its name says.
        """
        path = self.blob(descriptor.digest)
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        except OSError as error:
            raise LabError(f"{path}: {error.strerror}", cause="the layout is not whole", remedy=f"remove {self.path}") from error
        if (size, found) != (descriptor.size, descriptor.digest):
            cause = f"{size} bytes of digest {found}, not {descriptor.size}"
            raise LabError(f"{path} is not what its name says", cause=cause, remedy=f"remove {self.path}")
