"""The store of images: each archive once, uncompressed and named by its digest, and the trees that were rendered from them.

See:
    appc spec aci.md, "Image ID"
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from labkit.appc.image_manifest import ImageManifest
from labkit.appc.types import ImageID, Pairs


@dataclass(frozen=True)
class StoredImage:
    """One image of the store.

    Attributes:
        key: `sha512-` and 64 hexadecimal digits: the image id, abbreviated as in rkt's store.
        name: of its manifest.
        version: its label `version`, or "".
        size: bytes of its archive and of the trees rendered from it.
        import_time: seconds since 1970.
        last_used: seconds since 1970.
        latest: whether it was fetched without a version.
    """

    key: ImageID
    name: str
    version: str
    size: int
    import_time: float
    last_used: float
    latest: bool


class Store:
    """The images below one state directory of rkt.

    Args:
        directory: the state directory, as /var/lib/rkt; `cas` in it is made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, file: Path, *, latest: bool = False) -> ImageID:
        """Check an archive, keep it uncompressed, and return its key (64 hexadecimal digits); one that is there already stays."""
        raise NotImplementedError

    def images(self) -> tuple[StoredImage, ...]:
        """Return the images, in the order in which they came."""
        raise NotImplementedError

    def find(self, text: str, labels: Pairs = ()) -> ImageID:
        """Return the key of the image that a person means: the beginning of an id, a name, `name:version`, `name,label=value`.

        Raises:
            LabError: there is none, or the beginning of an id fits several.
        """
        raise NotImplementedError

    def manifest(self, key: ImageID) -> ImageManifest:
        """Return the manifest of an image."""
        raise NotImplementedError

    def blob(self, key: ImageID) -> Path:
        """Return the archive of an image: a tar that is not compressed."""
        raise NotImplementedError

    def remove(self, key: ImageID) -> None:
        """Forget an image and the trees that were rendered from it."""
        raise NotImplementedError

    def rendered(self, key: ImageID) -> Path:
        """Return the root file system of an image with what it stands on (`cas/tree/ID/rootfs`), rendered once and checked before each use.

        Whoever uses it writes `tree_id(key)` into `pods/*/UUID/appsinfo/APP/treeStoreID` before: `gc` leaves such a tree alone.

        Raises:
            LabError: a dependency is not in the store; the tree is not any more what was rendered.
        """
        raise NotImplementedError

    def tree_id(self, key: ImageID) -> str:
        """Return the name of the tree of an image, `deps-sha512-...`: it is of the image and of what it stands on now."""
        raise NotImplementedError

    def verify(self, key: ImageID) -> None:
        """Read the archive of an image, and its tree where it was rendered, and compare both with what they were."""
        raise NotImplementedError

    def gc(self, *, grace_period: float = 24 * 3600) -> tuple[str, ...]:
        """Remove images not used for that many seconds, trees that no pod uses, what an interruption left; return the names."""
        raise NotImplementedError
