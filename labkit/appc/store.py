"""The store of images: each archive once, uncompressed and named by its digest, and the trees that were rendered from them.

It lies in `cas` of rkt's state directory. What is in it is whole: it is made elsewhere and gets its name at last.

See:
    appc spec aci.md, "Image ID"; flock(2)
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, cast

from labkit.appc import aci, trees
from labkit.appc.finding import NotInStoreError, StoredImage, depended, meant
from labkit.appc.image_manifest import ImageManifest
from labkit.appc.locks import held
from labkit.appc.packing import copy_plain
from labkit.appc.render import Piece, pieces, render
from labkit.appc.types import ImageID, Pairs, serialized
from labkit.errors import LabError

__all__ = ["Collected", "NotInStoreError", "Store", "StoredImage"]

_KEY = len("sha512-") + 64
_FRESH = 60.0
_ABANDONED = 3600.0


@dataclass(frozen=True)
class Collected:
    """What `Store.gc` removed: names of trees, and images."""

    trees: tuple[str, ...]
    images: tuple[StoredImage, ...]


class Store:
    """The images below one state directory of rkt.

    Args:
        directory: the state directory, as /var/lib/rkt; `cas` in it is made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cas = directory / "cas"

    def put(self, file: Path, *, latest: bool = False) -> ImageID:
        """Check an archive and keep it, uncompressed; one that is there already stays.

        Args:
            file: an image.
            latest: it was asked for without a version.

        Returns:
            Its key: the image id with 64 hexadecimal digits.

        Raises:
            ManifestError, LabError: the archive breaks a rule; nothing is kept of it.
        """
        with self._open(), NamedTemporaryFile(dir=self._place("tmp"), delete=False) as made:
            partial_file = Path(made.name)
            try:
                key = _key(copy_plain(file, cast(IO[bytes], made)))
                made.flush()
                manifest = aci.check(partial_file)
                with held(self._place("imagelocks") / str(key)):
                    self._keep(key, manifest, partial_file, latest)
            finally:
                partial_file.unlink(missing_ok=True)
        return key

    def images(self) -> tuple[StoredImage, ...]:
        """Return the images, in the order in which they came.

        Raises:
            LabError: what the store says of an image cannot be read.
        """
        rendered = trees.sizes(self.cas / "tree")
        files = (self.cas / "db").glob("sha512-*")
        found = [each for each in map(partial(self._stored, rendered), sorted(files)) if each]
        return tuple(sorted(found, key=lambda each: each.import_time))

    def find(self, text: str, labels: Pairs = ()) -> ImageID:
        """Return the key of the image that a person means.

        Args:
            text: the beginning of an id, a name, `name:version`, or `name,label=value`.
            labels: that it must have, too.

        Raises:
            NotInStoreError: there is none.
            LabError: the beginning of an id fits several.
        """
        return meant(self.images(), text, labels).key

    def manifest(self, key: ImageID) -> ImageManifest:
        """Return the manifest of an image.

        Raises:
            NotInStoreError: the image is not there.
        """
        return ImageManifest.parse(self._read("imageManifest", key))

    def blob(self, key: ImageID) -> Path:
        """Return the archive of an image: a tar that is not compressed.

        Raises:
            NotInStoreError: the image is not there.
        """
        file = self._file("blob", key)
        if not file.is_file():
            raise NotInStoreError(f'image "{key}" is not in the store')
        return file

    def remove(self, key: ImageID) -> None:
        """Forget an image, and its trees unless a pod uses them.

        Raises:
            NotInStoreError: the image is not there.
        """
        self.blob(key)
        with held(self._place(".") / "lock"):
            self._forget(key)
            trees.remove_unused(self.cas / "tree", self.used_trees(), only=key)

    def rendered(self, key: ImageID) -> Path:
        """Return the root file system of an image with what it stands on (`cas/tree/ID/rootfs`), rendered once and checked before each use.

        Whoever uses it writes `tree_id(key)` into `pods/*/UUID/appsinfo/APP/treeStoreID` soon: `gc` leaves such a tree alone.

        Raises:
            NotInStoreError: the image, or one that it stands on, is not there.
            LabError: the tree is not any more what was rendered.
        """
        found = self._pieces(key)
        tree = self.cas / "tree" / trees.name_of(found)
        with self._open(), held(self._place("treestorelocks") / tree.name):
            if tree.is_dir():
                trees.check(tree)
            else:
                trees.make(tree, found, lambda rootfs: render(found, self.blob, rootfs))
            for piece in found:
                self.use(piece.key)
        return tree / "rootfs"

    def tree_id(self, key: ImageID) -> str:
        """Return the name of the tree of an image, `deps-sha512-...`: it is of the image and of what it stands on now.

        Raises:
            NotInStoreError: the image, or one that it stands on, is not there.
        """
        return trees.name_of(self._pieces(key))

    def use(self, key: ImageID) -> None:
        """Note that an image was used just now."""
        with suppress(FileNotFoundError):  # somebody removed it meanwhile
            os.utime(self.cas / "db" / str(key))

    def verify(self, key: ImageID) -> None:
        """Read the archive of an image, and its tree where it was rendered, and compare both with what they were.

        Raises:
            LabError: one of them is not what it was.
        """
        found = _key(copy_plain(self.blob(key), None))
        if found != key:
            raise LabError(f"archive {key} is not what its name says", cause=f"it has the digest {found}", remedy=f"rkt image rm {key}")
        tree = self.cas / "tree" / self.tree_id(key)
        if tree.is_dir():
            trees.check(tree, whole=True)

    def gc(self, *, grace_period: float = 24 * 3600) -> Collected:
        """Remove images not used for that many seconds, trees that no pod uses, and what an interruption left."""
        with held(self._place(".") / "lock"):
            used = self.used_trees()
            busy = {key for tree in used for key in trees.images_of(self.cas / "tree" / tree)}
            old = [each for each in self.images() if each.last_used <= time.time() - grace_period and each.key not in busy]
            fresh = {tree.name for tree in (self.cas / "tree").glob("deps-*") if tree.stat().st_mtime > time.time() - _FRESH}
            removed = trees.remove_unused(self.cas / "tree", used | (fresh if grace_period else set()))
            for each in old:
                self._forget(each.key)
            self._sweep()
        return Collected(removed, tuple(old))

    def used_trees(self) -> set[str]:
        """Return the names of the trees that pods use."""
        found = set()
        for file in self.directory.glob("pods/*/*/appsinfo/*/treeStoreID"):
            try:
                found.add(file.read_text().strip())
            except OSError:
                continue  # the pod went meanwhile
        return found

    def render_to(self, key: ImageID, rootfs: Path) -> None:
        """Write the root file system of an image with what it stands on into a new directory: a copy that is the caller's.

        Raises:
            NotInStoreError: the image, or one that it stands on, is not there.
        """
        render(self._pieces(key), self.blob, rootfs)
        self.use(key)

    def _pieces(self, key: ImageID) -> tuple[Piece, ...]:
        images = self.images()
        return pieces(key, self.manifest, lambda dependency: depended(images, dependency).key)

    def _keep(self, key: ImageID, manifest: ImageManifest, file: Path, latest: bool) -> None:
        note = self._place("db") / str(key)
        if not note.exists():
            for kind in ("blob", "imageManifest"):
                self._file(kind, key).parent.mkdir(parents=True, exist_ok=True)
            self._file("imageManifest", key).write_text(serialized(manifest.record()))
            file.chmod(0o644)
            file.rename(self._file("blob", key))
        elif not latest:
            return
        came = json.loads(note.read_bytes())["importTime"] if note.exists() else time.time()
        told = {"name": manifest.name, "importTime": came, "latest": latest}
        unfinished = self._place("tmp") / f"{key}.{os.getpid()}"
        unfinished.write_text(json.dumps(told))
        unfinished.rename(note)

    def _stored(self, rendered: dict[ImageID, int], note: Path) -> StoredImage | None:
        key = ImageID(note.name)
        try:
            told, used = json.loads(note.read_bytes()), note.stat().st_mtime
            came, latest = float(told["importTime"]), bool(told["latest"])
            manifest, size = self.manifest(key), self.blob(key).stat().st_size + rendered.get(key, 0)
        except (FileNotFoundError, NotInStoreError):
            return None  # it went meanwhile
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LabError(f"{note} cannot be read", cause=str(error), remedy=f"rkt image rm {key}") from error
        return StoredImage(key, manifest, size, came, used, latest)

    def _forget(self, key: ImageID) -> None:
        for file in (self.cas / "db" / str(key), self._file("imageManifest", key), self._file("blob", key)):
            file.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what no operation uses: none runs now."""
        old = time.time() - _ABANDONED  # what is fetched just now lies in tmp, too
        left = [each for each in (self.cas / "tmp").glob("*") if each.lstat().st_mtime < old]
        for each in (*left, *(self.cas / "tree").glob("*.partial")):
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        for file in (*(self.cas / "blob").glob("sha512/*/*"), *(self.cas / "imageManifest").glob("sha512/*/*")):
            if not (self.cas / "db" / file.name).exists():
                file.unlink()

    def _file(self, kind: str, key: ImageID) -> Path:
        digits = str(key).removeprefix("sha512-")
        return self.cas / kind / "sha512" / digits[:2] / str(key)

    def _read(self, kind: str, key: ImageID) -> bytes:
        try:
            return self._file(kind, key).read_bytes()
        except FileNotFoundError as error:
            raise NotInStoreError(f'image "{key}" is not in the store') from error

    def _place(self, name: str) -> Path:
        place = self.cas / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    @contextmanager
    def _open(self) -> Iterator[None]:
        with held(self._place(".") / "lock", shared=True):
            yield


def _key(found: ImageID) -> ImageID:
    return ImageID(str(found)[:_KEY])
