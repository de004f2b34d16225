"""The commands `labkit images ...`: arguments in, one call down, tables out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from labkit.errors import LabError
from labkit.host.services import places
from labkit.images.registry import Registry
from labkit.images.seed import ABSENT, Seeded, listed
from labkit.images.seed import seed as seeded
from labkit.images.serving import serving

_registry = click.option("--registry", metavar="HOST:PORT", help="The registry; the lab's own if not given.")
_storage = click.option(
    "--storage", type=click.Path(file_okay=False, path_type=Path), help="A storage directory that no registry serves now."
)


@click.group()
def images() -> None:
    """List or seed the images that the course needs."""


@images.command(name="list")
@_registry
@_storage
def list_images(registry: str | None, storage: Path | None) -> None:
    """List the course's images: real, stand-in or absent."""
    with _opened(registry, storage) as place:
        click.echo(table(listed(place)))


@images.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_registry
@_storage
@click.option("--upstream", metavar="HOST", help="Ask this registry for the real images.")
@click.option("--refresh", is_flag=True, help="Fetch or build again what is there.")
def seed(names: tuple[str, ...], registry: str | None, storage: Path | None, upstream: str | None, *, refresh: bool) -> None:
    """Put the course's images, or those named, into the registry."""
    if os.geteuid() != 0:
        raise LabError("images seed unpacks Debian's packages with their owners and needs root", remedy="sudo labkit images seed")
    with _opened(registry, storage) as place:
        source = Registry(upstream, timeout=5) if upstream else None
        click.echo(table(seeded(names, place, upstream=source, refresh=refresh, say=click.echo)))


@contextmanager
def _opened(registry: str | None, storage: Path | None) -> Iterator[Registry]:
    if storage is None:
        yield Registry(registry or places().registry_address)
        return
    if registry is not None:
        raise LabError("--registry and --storage name two places", remedy="give one of them")
    with serving(storage) as place:
        yield place


def table(rows: tuple[Seeded, ...]) -> str:
    """Return the images as lines: name, tag, digest, size, origin, note."""
    cells = [("IMAGE", "TAG", "DIGEST", "SIZE", "ORIGIN", "WHAT")]
    for row in rows:
        size = "" if row.origin == ABSENT else f"{row.size / 1e6:.1f} MB"
        name = row.image.repository.removeprefix("library/")
        cells.append((name, row.image.tag, row.digest[:19], size, row.origin, row.note))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ("  ".join([*(text.ljust(width) for text, width in zip(line[:5], widths, strict=True)), line[5]]) for line in cells)
    return "\n".join(line.rstrip() for line in lines)
