"""Put the course's images into a registry: the real ones where their registry can be reached, else their stand-ins."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.images import standins
from labkit.images.catalogue import IMAGES, Image, find
from labkit.images.debian import architecture, full
from labkit.images.layout import Layout
from labkit.images.oci import INDEXES, Descriptor, ImageConfig, Index, Manifest
from labkit.images.recipes import RECIPES
from labkit.images.registry import Registry, RegistryError, UnreachableError

REAL, STAND_IN, ABSENT = "real", "stand-in", "absent"


@dataclass(frozen=True)
class Seeded:
    """One image of the course, as the registry has it.

    Attributes:
        image: which.
        origin: `real`, `stand-in` or `absent`.
        digest: of its manifest; "" when absent.
        size: bytes of its configuration and layers.
        note: what it is.
        why: why it was not the real one, where it has been tried now.
    """

    image: Image
    origin: str
    digest: str = ""
    size: int = 0
    note: str = ""
    why: str = ""


def listed(registry: Registry) -> tuple[Seeded, ...]:
    """Read from the registry which images of the course it has, and which of them are stand-ins.

    Raises:
        UnreachableError: the registry is down.
    """
    return tuple(_read(image, registry) for image in IMAGES)


def seed(
    names: Iterable[str], registry: Registry, *, upstream: Registry | None = None, refresh: bool = False, say: Callable[[str], object] = str
) -> tuple[Seeded, ...]:
    """Let the registry have these images; what it has already is left alone.

    Args:
        names: of the catalogue; none means all.
        registry: where they go.
        upstream: a registry that is asked instead of the one each image comes from.
        refresh: ask upstream and build again, whatever the registry has.
        say: told each line of progress.

    Raises:
        LabError: an image is not what its digest says, the disk is full, the registry is down. The images before it are seeded.
    """
    images = [find(name) for name in dict.fromkeys(names)] or list(IMAGES)
    registry.ping()
    sources = _Sources(upstream)
    with _workshop() as work:
        for image in images if refresh else ():
            _forget(image.recipe)
        return tuple(_seed_one(image, registry, sources, work, refresh, say) for image in images)


class _Sources:
    """The registries of the real images, each asked once whether it is there."""

    def __init__(self, instead: Registry | None) -> None:
        self._instead = instead
        self.named = instead is not None
        self._known: dict[str, Registry | UnreachableError] = {}

    def of(self, image: Image) -> Registry:
        host = self._instead.host if self._instead else image.upstream
        if host not in self._known:
            self._known[host] = self._probed(self._instead or Registry(host, timeout=5))
        known = self._known[host]
        if isinstance(known, UnreachableError):
            raise known
        return known

    def lost(self, image: Image, error: UnreachableError) -> None:
        """Ask this one no more: it has stopped to answer."""
        self._known[self._instead.host if self._instead else image.upstream] = error

    @staticmethod
    def _probed(registry: Registry) -> Registry | UnreachableError:
        try:
            registry.ping()
        except UnreachableError as error:
            return error
        except RegistryError as error:
            if error.status != 401:  # it wants a token for each repository: it is there
                return UnreachableError(error.message, cause=error.cause)
        return registry


def _seed_one(image: Image, registry: Registry, sources: _Sources, work: Path, refresh: bool, say: Callable[[str], object]) -> Seeded:
    found = _read(image, registry)
    if not refresh and _is_current(found, sources):
        return found
    say(f"{image.name}: looking for {image.release}")
    layout = Layout.create(work / "real")
    try:
        descriptor, why = _fetched(image, sources.of(image), layout), ""
    except (UnreachableError, _NotThereError) as error:
        if isinstance(error, UnreachableError):
            sources.lost(image, error)
        why = str(LabError(error.message, cause=error.cause))
        say(f"{image.name}: {why}; it gets a stand-in")
        layout = _stand_in(image.recipe, work)
        descriptor = layout.find(image.recipe)
    _push(layout, descriptor, image, registry)
    shutil.rmtree(work / "real")
    found = _read(image, registry)
    return replace(found, why=why)


class _NotThereError(LabError):
    """Upstream answers that it has no such image, or none for us."""


def _is_current(found: Seeded, sources: _Sources) -> bool:
    """Tell whether what the registry has stays; a stand-in goes when a source was named, or when its recipe has changed here."""
    if found.origin != STAND_IN:
        return found.origin == REAL
    if sources.named:
        return False
    recipe = found.image.recipe
    kept = _kept(recipe)
    if kept.path.is_dir():
        return kept.find(recipe).digest == found.digest
    return not list(_home().glob(f"{recipe}-*"))


def _read(image: Image, registry: Registry) -> Seeded:
    if registry.head(image.repository, image.tag) is None:
        return Seeded(image, ABSENT, note="not seeded")
    descriptor, data = registry.manifest(image.repository, image.tag)
    if descriptor.media_type in INDEXES:
        descriptor = Index.parse(data).for_platform(architecture())
        data = registry.manifest(image.repository, descriptor.digest)[1]
    manifest = Manifest.parse(data)
    labels = ImageConfig.parse(registry.read(image.repository, manifest.config)).execution.labels
    origin = STAND_IN if standins.STAND_IN in labels else REAL
    note = labels.get("org.opencontainers.image.description", "") if origin == STAND_IN else image.release
    return Seeded(image, origin, descriptor.digest, manifest.size(), note)


def _fetched(image: Image, source: Registry, layout: Layout) -> Descriptor:
    """Fetch the real image for this machine: the index by the catalogue's digest, and from there on each by the digest that names it."""
    try:
        descriptor, data = source.manifest(image.repository, image.digest)
        if descriptor.media_type in INDEXES:
            descriptor = Index.parse(data).for_platform(architecture())
            descriptor, data = source.manifest(image.repository, descriptor.digest)
        manifest = Manifest.parse(data)
        for each in (manifest.config, *manifest.layers):
            layout.take(source.blob(image.repository, each), each)
    except RegistryError as error:
        raise _NotThereError(error.message, cause=error.cause) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(layout.path, str(error.filename or layout.path)) from error
        raise
    return layout.add(data, descriptor.media_type)


def _push(layout: Layout, descriptor: Descriptor, image: Image, registry: Registry) -> None:
    """Push the blobs first and the tag last: an image that is in the registry is whole."""
    manifest = layout.manifest(descriptor)
    for each in (*manifest.layers, manifest.config):
        with layout.blob(each.digest).open("rb") as content:
            registry.put_blob(image.repository, content, each)
    registry.put_manifest(image.repository, image.tag, manifest.serialize(), descriptor.media_type)


def _stand_in(recipe: str, work: Path) -> Layout:
    """Return the layout of a stand-in, built now unless it is kept from before."""
    kept = _kept(recipe)
    if not kept.path.is_dir():
        below = RECIPES[recipe].base
        base = _stand_in(below, work) if below else None
        place = work / recipe
        layout = Layout.create(place / "layout")
        standins.build(recipe, layout, _directory(place / "work"), base=base)
        _forget(recipe)
        layout.path.rename(kept.path)  # at once: what is kept is whole
        shutil.rmtree(place)
    return kept


def _forget(recipe: str) -> None:
    for old in _home().glob(f"{recipe}-*"):
        shutil.rmtree(old)


def _home() -> Path:
    return ledger.state() / "images"


def _kept(recipe: str) -> Layout:
    return Layout(_home() / f"{recipe}-{standins.key(recipe)}")


def _directory(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@contextmanager
def _workshop() -> Iterator[Path]:
    """Make a directory for what is half made, and take it away: also the one of a run that was killed. One run at a time."""
    home = _home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(home / "unfinished", ignore_errors=True)
            try:
                yield _directory(home / "unfinished")
            finally:
                shutil.rmtree(home / "unfinished", ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(home, str(error.filename or home)) from error
        raise
