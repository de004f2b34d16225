"""An image as it lies on disk, whole: the archive of `docker image save`, or an OCI layout; and what each of its layers changes.

Docker 20 writes an archive with a manifest.json alone, newer ones an OCI layout with this file beside it; both are read by it.
See: image-spec image-layout.md, layer.md; docker-save(1)
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from labkit.errors import LabError
from labkit.images.instructions import instruction
from labkit.images.layer import OPAQUE, WHITEOUT
from labkit.images.layout import Layout
from labkit.images.oci import LARGEST_DOCUMENT, ImageConfig

Facts = tuple[int, int, int, bytes]


@dataclass(frozen=True)
class Step:
    """One entry of an image's history, and the layer that it made.

    Attributes:
        instruction: as a Dockerfile has it.
        diff_id: the digest of the layer's tar; "" where only the configuration was changed.
        size: bytes of the files in the layer.
        added: paths that the layers below do not have.
        changed: paths that they have; a directory only where its mode or owner changes.
        removed: paths that the layer takes away.
    """

    instruction: str
    diff_id: str = ""
    size: int = 0
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saved:
    """An image that was read.

    Attributes:
        settings: how a container of it is run, the `config` of its configuration as it is written there.
        steps: its history, the lowest first.
    """

    settings: Mapping[str, Any]
    steps: tuple[Step, ...]

    @property
    def layers(self) -> tuple[Step, ...]:
        """The steps that made a layer."""
        return tuple(step for step in self.steps if step.diff_id)


def read(place: Path) -> Saved:
    """Read an image.

    Args:
        place: an archive with one image, or the directory of an OCI layout with one.

    Raises:
        LabError: it is neither, or not whole.
    """
    with _opened(place) as (config, layers):
        return Saved(json.loads(config).get("config") or {}, tuple(_steps(ImageConfig.parse(config), layers)))


@contextmanager
def _opened(place: Path) -> Iterator[tuple[bytes, Iterator[IO[bytes]]]]:
    """Open an image: its configuration, and each layer when it is asked for."""
    try:
        with _layout(place) if place.is_dir() else _archive(place) as found:
            yield found
    except (tarfile.TarError, EOFError, KeyError, ValueError, OSError) as error:
        raise LabError(f"{place} is no saved image", cause=str(error) or type(error).__name__) from error


@contextmanager
def _archive(place: Path) -> Iterator[tuple[bytes, Iterator[IO[bytes]]]]:
    """Open the archive of `docker image save`: the configuration, and each layer's tar when it is asked for."""
    with tarfile.open(place) as archive:
        told = json.loads(_document(archive, "manifest.json"))
        if len(told) != 1:
            raise LabError(f"{place} has {len(told)} images", cause="one is read")
        yield _document(archive, told[0]["Config"]), (_member(archive, name) for name in told[0]["Layers"])


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(archive.getmember(name))  # of a link what it leads to, as Docker 20 has for a layer that is there twice
    if found is None:
        raise KeyError(f"{name} is no file")
    return found


def _document(archive: tarfile.TarFile, name: str) -> bytes:
    return _member(archive, name).read(LARGEST_DOCUMENT)


@contextmanager
def _layout(place: Path) -> Iterator[tuple[bytes, Iterator[IO[bytes]]]]:
    layout = Layout(place)
    images = layout.index().manifests
    if len(images) != 1:
        raise LabError(f"{place} has {len(images)} images", cause="one is read")
    manifest = layout.manifest(images[0])
    with ExitStack() as opened:
        yield (
            layout.read(manifest.config),
            (opened.enter_context(layout.blob(each.digest).open("rb")) for each in manifest.layers),
        )


def _steps(config: ImageConfig, layers: Iterator[IO[bytes]]) -> Iterator[Step]:
    """Yield the history with what each layer changes in those below it; a layer that no entry tells of comes last."""
    below: dict[str, Facts] = {}
    left = list(config.diff_ids)
    for entry in config.history:
        if instruction(entry).startswith("ONBUILD "):
            continue  # the classic builder notes it, BuildKit does not: it stands in the settings
        if entry.empty_layer or not left:
            yield Step(instruction(entry))
        else:
            yield _step(instruction(entry), left.pop(0), next(layers), below)
    for diff_id in left:
        yield _step("(no history)", diff_id, next(layers), below)


def _step(made_by: str, diff_id: str, layer: IO[bytes], below: dict[str, Facts]) -> Step:
    """Read one layer, and let `below` have what the layers up to it show."""
    here, whiteouts, opaque = _members(layer)
    gone = {path for path in below if path not in here and _hidden(path, whiteouts, opaque)}
    kept = {path for path, member in here.items() if member.isdir() and below.get(path) == _facts(member)}
    changed = {path for path in here if path in below} - kept
    removed = (path for path in gone if path.rpartition("/")[0] not in gone)  # of a directory the topmost alone
    size = sum(member.size for member in here.values())
    added = (path for path in here if path not in below)
    step = Step(made_by, diff_id, size, tuple(sorted(added)), tuple(sorted(changed)), tuple(sorted(removed)))
    for path in gone:
        del below[path]
    below.update((path, _facts(member)) for path, member in here.items())
    return step


def _members(layer: IO[bytes]) -> tuple[dict[str, tarfile.TarInfo], set[str], set[str]]:
    """Return what a layer has, which paths it takes away, and the directories of which it hides all that lies below."""
    here, whiteouts, opaque = dict[str, tarfile.TarInfo](), set[str](), set[str]()
    with tarfile.open(fileobj=layer, mode="r:*") as tar:
        for member in tar:
            path = PurePosixPath(member.name.strip("/"))
            if path.name == OPAQUE:
                opaque.add(str(path.parent))
            elif path.name.startswith(WHITEOUT):
                whiteouts.add(str(path.with_name(path.name.removeprefix(WHITEOUT))))
            elif path.name:
                here[str(path)] = member
    return here, whiteouts, opaque


def _hidden(path: str, whiteouts: set[str], opaque: set[str]) -> bool:
    parents = [str(each) for each in PurePosixPath(path).parents]
    return not whiteouts.isdisjoint([path, *parents]) or not opaque.isdisjoint(parents)


def _facts(member: tarfile.TarInfo) -> Facts:
    return member.mode & 0o7777, member.uid, member.gid, member.type  # Docker 20 writes the kind into the mode, too


def file(place: Path, path: str) -> bytes | None:
    """Return the content of a file of an image; None where it has none.

    Args:
        place: as for `read`.
        path: relative to the root; through no link.

    Raises:
        LabError: there is no image, or it is not whole.
    """
    content = None
    with _opened(place) as (_, layers):
        for layer in layers:
            here, whiteouts, opaque = _members(layer)
            if path in here:
                layer.seek(0)
                content = _content(layer, here[path])
            elif _hidden(path, whiteouts, opaque):
                content = None
    return content


def _content(layer: IO[bytes], member: tarfile.TarInfo) -> bytes | None:
    with tarfile.open(fileobj=layer, mode="r:*") as tar:
        found = tar.extractfile(member.name) if member.isreg() else None
        return found.read() if found else None
