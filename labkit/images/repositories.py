"""Repositories that a lab will push into the registry with accounts: the lab's from its opening on, and gone after it.

A registry deletes manifests, and keeps the repository's name and its blobs: those are taken out of its storage.
See: https://distribution.github.io/distribution/spec/api/#deleting-an-image, docker-registry's `garbage-collect`
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.host.services.places import places
from labkit.images.oci import is_digest
from labkit.images.reference import with_accounts
from labkit.images.registry import Registry, RegistryError

_KIND = "repository claim"
_REPOSITORIES, _BLOBS = "docker/registry/v2/repositories", "docker/registry/v2/blobs"


def claim(name: str) -> None:
    """Take a repository for this lab that will be pushed: the undo removes it with all that it alone has.

    Args:
        name: of the repository, without the registry's.

    Raises:
        LabError: the registry has such a repository already, and no lab pushed it; or the registry cannot be asked.
    """
    if any(entry.kind == _KIND and entry.key["name"] == name for entry in ledger.live(ledger.owner())):
        return
    registry = with_accounts()
    if tags := _tags(registry, name):
        there = f"{registry.host}/{name}:{tags[0]}"
        raise LabError(f"the image {there} is there already and was not pushed by this lab", remedy="delete it, or push it elsewhere")
    ledger.intend(_KIND, name=name, storage=str(places().accounts_directory / "storage"))


def _tags(registry: Registry, name: str) -> list[str]:
    try:
        return registry.tags(name)
    except RegistryError as error:
        if error.status == 404:
            return []
        raise


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Delete what the tags name, as long as the registry answers; then the repository, and its blobs that no other one has."""
    name, storage = entry.key["name"], Path(entry.key["storage"])
    own = digests(storage, name)
    with suppress(LabError):  # it is down: its storage is all there is
        registry = with_accounts()
        for tag in _tags(registry, name):
            if (there := registry.head(name, tag)) is not None:
                registry.delete(name, there.digest)
    remove(storage, name, own)


def digests(storage: Path, name: str) -> set[str]:
    """Return the digests of the layers, configurations and manifests that a repository has, those without a tag among them.

    Args:
        storage: the registry's directory.
        name: of the repository.
    """
    return set(_linked(storage / _REPOSITORIES / name))


def remove(storage: Path, name: str, own: set[str]) -> None:
    """Remove a repository from the storage of a registry, and of its blobs those that no other repository has.

    Args:
        storage: the registry's directory.
        name: of the repository; one that is not there is removed already.
        own: the digests that it has, or had.
    """
    repositories = storage / _REPOSITORIES
    place = repositories / name
    shutil.rmtree(place, ignore_errors=True)
    for parent in place.parents:
        if parent == repositories:
            break
        with suppress(OSError):  # another repository is in it
            parent.rmdir()
    for digest in own - set(_linked(repositories)):
        algorithm, _, encoded = digest.partition(":")
        blob = storage / _BLOBS / algorithm / encoded[:2] / encoded
        shutil.rmtree(blob, ignore_errors=True)
        with suppress(OSError):  # another blob begins so
            blob.parent.rmdir()


def _linked(place: Path) -> Iterator[str]:
    """Yield what the links below a directory name."""
    for link in place.rglob("link"):
        with suppress(OSError):  # somebody pushes or deletes meanwhile
            digest = link.read_text().strip()
            if is_digest(digest):
                yield digest
