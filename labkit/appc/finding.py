"""Which image of the store is meant: by the beginning of its id, by its name and labels, or by what another image says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from labkit.appc.image_manifest import Dependency, ImageManifest
from labkit.appc.types import ImageID, ManifestError, Pairs
from labkit.errors import LabError


class NotInStoreError(LabError):
    """Say that the store has no such image."""


@dataclass(frozen=True)
class StoredImage:
    """One image of the store.

    Attributes:
        key: `sha512-` and 64 hexadecimal digits: the image id, abbreviated as in rkt's store.
        manifest: its manifest.
        size: bytes of its archive and of the trees rendered from it.
        import_time: seconds since 1970.
        last_used: seconds since 1970.
        latest: whether it was fetched without a version.
    """

    key: ImageID
    manifest: ImageManifest
    size: int
    import_time: float
    last_used: float
    latest: bool

    @property
    def name(self) -> str:
        """The name in its manifest."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """Its label `version`, or ""."""
        return self.manifest.label("version") or ""


def meant(images: Iterable[StoredImage], text: str, labels: Pairs = ()) -> StoredImage:
    """Return the image that a person means; of several that fit a name, the one that came last.

    Args:
        images: those there are, in the order in which they came.
        text: the beginning of an id, a name, `name:version`, or `name,label=value`.
        labels: that it must have, too.

    Raises:
        NotInStoreError: there is none.
        LabError: the beginning of an id fits several.
    """
    if text.startswith("sha512-"):
        return by_id(images, text)
    named, *more = text.split(",")
    name, _, version = named.partition(":")
    typed = [(key, value) for key, _, value in (each.partition("=") for each in more)]
    wanted = {*labels, *typed, *([("version", version)] if version else [])}
    fitting = [each for each in images if each.name == name and wanted <= set(each.manifest.labels)]
    if not fitting:
        raise NotInStoreError(f'cannot find aci satisfying name: "{text}"')
    return fitting[-1]


def by_id(images: Iterable[StoredImage], text: str) -> StoredImage:
    """Return the image whose id begins so, or is so abbreviated.

    Raises:
        NotInStoreError: there is none.
        LabError: there are several.
    """
    try:
        wanted = ImageID.parse(text)
    except ManifestError as error:
        raise NotInStoreError("no image IDs found", cause=str(error)) from error
    fitting = [each for each in images if each.key.matches(wanted)]
    if not fitting:
        raise NotInStoreError("no image IDs found")
    if len(fitting) > 1:
        raise LabError(f'ambiguous image ID: "{text}"', cause=f"it is the beginning of {len(fitting)} ids")
    return fitting[0]


def depended(images: Iterable[StoredImage], dependency: Dependency) -> StoredImage:
    """Return the image that another one stands on.

    Raises:
        NotInStoreError: there is none.
        LabError: the one of that id has another name, or other labels.
    """
    if dependency.image_id is None:
        return meant(images, dependency.image_name, dependency.labels)
    found = by_id(images, str(dependency.image_id))
    if found.name != dependency.image_name or not set(dependency.labels) <= set(found.manifest.labels):
        raise LabError(f"dependency {dependency.image_name} has the id {found.key}", cause=f"this is {found.name} in the store")
    return found
