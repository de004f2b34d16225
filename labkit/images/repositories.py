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
_REGISTRY = "docker/registry/v2"


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
    with suppress(LabError):  # it is down: its storage is all there is
        registry = with_accounts()
        for tag in _tags(registry, name):
            if (there := registry.head(name, tag)) is not None:
                registry.delete(name, there.digest)
    with suppress(FileNotFoundError):
        remove(storage, name)


def remove(storage: Path, name: str) -> None:
    """Remove a repository from the storage of a registry, and the blobs that no other repository has.

    Args:
        storage: the registry's directory.
        name: of the repository.

    Raises:
        FileNotFoundError: there is none.
    """
    repositories = storage / _REGISTRY / "repositories"
    place = repositories / name
    own = set(_digests(place))
    shutil.rmtree(place)
    for parent in place.parents:
        if parent == repositories:
            break
        with suppress(OSError):  # another repository is in it
            parent.rmdir()
    for digest in own - set(_digests(repositories)):
        algorithm, _, encoded = digest.partition(":")
        shutil.rmtree(storage / _REGISTRY / "blobs" / algorithm / encoded[:2] / encoded, ignore_errors=True)


def _digests(place: Path) -> Iterator[str]:
    """Yield what the links below a directory name: layers, configurations, manifests, also those of deleted tags."""
    for link in place.rglob("link"):
        with suppress(OSError):  # somebody pushes or deletes meanwhile
            digest = link.read_text().strip()
            if is_digest(digest):
                yield digest
