"""The commands `rkt image ...`: what is in the store, and what is done with it outside of pods."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from labkit.appc import aci
from labkit.appc.columns import ago, in_full, tabbed
from labkit.appc.garbage import seconds
from labkit.appc.settings import Settings, ValuedFlags, global_options
from labkit.appc.store import NotInStoreError, Store, StoredImage
from labkit.appc.types import ImageID, serialized
from labkit.errors import LabError

_FIELDS = ("id", "name", "size", "importtime", "lastused", "latest")
_HEADINGS = ("ID", "NAME", "SIZE", "IMPORT TIME", "LAST USED", "LATEST")
_SHORT = len("sha512-") + 12
_KEYS: dict[str, Callable[[StoredImage], object]] = {
    "id": lambda each: each.key,
    "name": lambda each: (each.name, each.version),
    "size": lambda each: each.size,
    "importtime": lambda each: each.import_time,
    "lastused": lambda each: each.last_used,
    "latest": lambda each: each.latest,
}


@click.group()
def image() -> None:
    """Operate on images in the store."""


_fields = click.option("--fields", default=",".join(_FIELDS[:-1]), show_default=True, help="The columns, and their order.")
_sort = click.option("--sort", default="importtime", show_default=True, help="The columns to sort by.")
_order = click.option("--order", type=click.Choice(("asc", "desc")), default="asc", show_default=True, help="The order to sort in.")
_overwrite = click.option("--overwrite", is_flag=True, help="Replace what is there.")
_rootfs_only = click.option("--rootfs-only", is_flag=True, help="Without the manifest.")


@image.command(name="list", cls=ValuedFlags)
@click.option("--full", is_flag=True, help="Ids, sizes and times in full.")
@click.option("--no-legend", is_flag=True, help="Without the headings.")
@click.option("--format", "form", type=click.Choice(("json", "json-pretty")), help="Print JSON.")
@_fields
@_sort
@_order
@global_options
def list_images(settings: Settings, fields: str, sort: str, order: str, form: str | None, *, full: bool, no_legend: bool) -> None:
    """List the images in the store."""
    found = list(settings.store().images())
    for field in reversed(_known(sort)):
        found.sort(key=_KEYS[field], reverse=order == "desc")  # type: ignore[arg-type]
    if form:
        click.echo(serialized([_record(each) for each in found], indent="\t" if form == "json-pretty" else None))
        return
    columns = [_FIELDS.index(field) for field in _known(fields)]
    rows = [_row(each, full=full) for each in found]
    table = [tuple(row[column] for column in columns) for row in (*([] if no_legend else [_HEADINGS]), *rows)]
    if table:
        click.echo(tabbed(table))


def _known(text: str) -> list[str]:
    fields = text.split(",")
    for field in fields:
        if field not in _FIELDS:
            raise LabError(f'invalid argument "{field}": one of {", ".join(_FIELDS)}')
    return fields


def _name(found: StoredImage) -> str:
    return f"{found.name}:{found.version}" if found.version else found.name


def _row(found: StoredImage, *, full: bool) -> tuple[str, ...]:
    latest = "true" if found.latest else "false"
    if full:
        return str(found.key), _name(found), str(found.size), in_full(found.import_time), in_full(found.last_used), latest
    return str(found.key)[:_SHORT], _name(found), bytes_in_words(found.size), ago(found.import_time), ago(found.last_used), latest


def _record(found: StoredImage) -> dict[str, object]:
    times = {"import_time": int(found.import_time * 1e9), "last_used_time": int(found.last_used * 1e9)}
    return {"id": str(found.key), "name": _name(found), **times, "size": found.size}


def bytes_in_words(count: int) -> str:
    """Return a size as rkt prints it: `512B`, `1.9MiB`, `12MiB`."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if value < 10 and unit != "B" else f"{value:.0f}{unit}"


@image.command(name="rm")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@global_options
def remove(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove images, by their ids or names."""
    store, removed = settings.store(), 0
    for name in names:
        try:
            key = store.find(name)
            named = store.manifest(key).name
            store.remove(key)
            _say_removed("rm", key, named)
            removed += 1
        except NotInStoreError as error:
            click.echo(f"rm: {error.message}", err=True)
    if removed:
        click.echo(f"rm: {removed} image(s) successfully removed", err=True)


def _say_removed(command: str, key: ImageID, name: str) -> None:
    click.echo(f'{command}: successfully removed aci for image: "{key}" ("{name}")', err=True)


@image.command(name="cat-manifest", cls=ValuedFlags)
@click.argument("name", metavar="IMAGE")
@click.option("--pretty-print/--no-pretty-print", default=True, help="Indent it.")
@global_options
def cat_manifest(settings: Settings, name: str, *, pretty_print: bool) -> None:
    """Print the manifest of an image."""
    store = settings.store()
    click.echo(serialized(store.manifest(store.find(name)).record(), indent="\t" if pretty_print else None))


@image.command(cls=ValuedFlags)
@click.argument("name", metavar="IMAGE")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@_overwrite
@global_options
def export(settings: Settings, name: str, file: Path, *, overwrite: bool) -> None:
    """Write an image to a file, uncompressed."""
    store = settings.store()
    blob = store.blob(store.find(name))
    if file.exists() and not overwrite:
        raise LabError("output ACI file exists (try --overwrite)")
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        shutil.copyfile(blob, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


@image.command(cls=ValuedFlags)
@click.argument("name", metavar="IMAGE")
@click.argument("output", type=click.Path(path_type=Path), metavar="DIRECTORY")
@_overwrite
@_rootfs_only
@global_options
def extract(settings: Settings, name: str, output: Path, *, overwrite: bool, rootfs_only: bool) -> None:
    """Unpack an image into a directory, without what it stands on."""
    store = settings.store()
    key = store.find(name)
    _written(store, key, output, lambda rootfs: _unpack(store.blob(key), rootfs), overwrite=overwrite, rootfs_only=rootfs_only)


def _unpack(blob: Path, rootfs: Path) -> None:
    aci.unpack(blob, rootfs)


@image.command(cls=ValuedFlags)
@click.argument("name", metavar="IMAGE")
@click.argument("output", type=click.Path(path_type=Path), metavar="DIRECTORY")
@_overwrite
@_rootfs_only
@global_options
def render(settings: Settings, name: str, output: Path, *, overwrite: bool, rootfs_only: bool) -> None:
    """Write an image into a directory as a pod would see it."""
    store = settings.store()
    key = store.find(name)
    _written(store, key, output, lambda rootfs: store.render_to(key, rootfs), overwrite=overwrite, rootfs_only=rootfs_only)


def _written(store: Store, key: ImageID, directory: Path, write: Callable[[Path], None], *, overwrite: bool, rootfs_only: bool) -> None:
    """Write a directory beside the one that is meant, and give it its name when it is whole."""
    if os.path.lexists(directory) and not overwrite:
        raise LabError("output directory exists (try --overwrite)")
    if directory.resolve() in (Path("/"), Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise LabError(f"{directory} is where this runs, and cannot be replaced")
    partial = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        write(partial if rootfs_only else partial / aci.ROOTFS)
        if not rootfs_only:
            (partial / aci.MANIFEST).write_text(serialized(store.manifest(key).record()))
        if directory.is_dir() and not directory.is_symlink():
            shutil.rmtree(directory)
        else:
            directory.unlink(missing_ok=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@image.command()
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@global_options
def verify(settings: Settings, names: tuple[str, ...]) -> None:
    """Read images, and the trees rendered from them, and compare both with what they were."""
    store = settings.store()
    for name in names:
        key = store.find(name)
        store.verify(key)
        click.echo(f'successfully verified checksum for image: "{store.manifest(key).name}" ("{key}")')


@image.command()
@click.option("--grace-period", default="24h0m0s", metavar="TIME", help="How long an image stays after it was last used.")
@global_options
def gc(settings: Settings, grace_period: str) -> None:
    """Remove images that were not used for a while, and trees that no pod uses."""
    collected = settings.store().gc(grace_period=seconds(grace_period))
    for tree in collected.trees:
        click.echo(f'gc: removed treestore "{tree}"', err=True)
    for each in collected.images:
        _say_removed("gc", each.key, each.name)
    if collected.images:
        click.echo(f"gc: {len(collected.images)} image(s) successfully removed", err=True)
