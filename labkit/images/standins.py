"""Images that take the place of the real ones where no registry can be reached: built from Debian's packages, and saying so.

The same packages give the same bytes on every machine: always of one Debian release, files of one time, layers in one order.
"""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from labkit.images import debian, elf, layer, oci, recipes
from labkit.images.debian import EPOCH, Bench, architecture, full
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, History, ImageConfig, Manifest, Platform
from labkit.images.recipes import RECIPES, Recipe

STAND_IN = "io.labkit.stand-in"
"""The label that every stand-in carries: the name of the image whose place it takes."""

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def key(name: str) -> str:
    """Return what a built stand-in is kept under: it changes whenever the code that makes it, or the machine, does."""
    modules = (__file__, *(str(each.__file__) for each in (debian, elf, layer, oci, recipes)))
    sources = b"".join(Path(module).read_bytes() for module in modules)
    return hashlib.sha256(b"\0".join((name.encode(), architecture().encode(), sources))).hexdigest()[:16]


def build(name: str, layout: Layout, work: Path, *, base: Layout | None = None) -> Descriptor:
    """Make a stand-in and tag it with its name in a layout.

    Args:
        name: of the recipe.
        layout: an empty layout on the same file system as `work`.
        work: an empty directory.
        base: the layout of the stand-in below, where the recipe has one.

    Raises:
        LabError: Debian's mirror cannot be reached, the disk is full.
    """
    recipe = RECIPES[name]
    try:
        below = _adopted(base, recipe.base, layout) if base else []
        written = _layer(recipe, layout, work, below)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(work, str(error.filename or layout.path)) from error
        raise
    return _tagged(name, layout, [*below, written])


def _adopted(base: Layout, name: str, layout: Layout) -> list[tuple[Descriptor, str, History]]:
    manifest = base.manifest(base.find(name))
    config = base.config(manifest)
    for each in manifest.layers:
        if not layout.blob(each.digest).exists():
            os.link(base.blob(each.digest), layout.blob(each.digest))
    return list(zip(manifest.layers, config.diff_ids, config.history, strict=True))


def _layer(recipe: Recipe, layout: Layout, work: Path, below: list[tuple[Descriptor, str, History]]) -> tuple[Descriptor, str, History]:
    tree, lower = work / "tree", work / "lower"
    tree.mkdir()
    lower.mkdir()
    for descriptor, _, _ in below:
        with layout.blob(descriptor.digest).open("rb") as packed:
            layer.apply(packed, lower)
    recipe.fill(Bench(work, architecture(), (lower,) if below else ()), tree)
    tree.chmod(0o755)
    paths, removed = layer.difference(lower, tree) if below else (None, [])
    written = layer.write(work / "layer", tree, epoch=EPOCH, paths=paths, removed=removed)
    descriptor = layout.adopt(written.path, LAYER_GZIP, written.descriptor.digest)
    made_by = f"labkit images seed  # {recipe.title}"
    return descriptor, written.diff_id, History(made_by, _created())


def _tagged(name: str, layout: Layout, layers: list[tuple[Descriptor, str, History]]) -> Descriptor:
    recipe = RECIPES[name]
    labels = {
        "org.opencontainers.image.title": f"stand-in of {name}",
        "org.opencontainers.image.description": recipe.title,
        "org.opencontainers.image.vendor": "labkit",
        "org.opencontainers.image.created": _created(),
        STAND_IN: name,
    }
    execution = replace(recipe.execution, env=recipe.execution.env or (_PATH,), labels=labels)
    history = tuple(entry for _, _, entry in layers)
    config = ImageConfig(Platform(architecture(), "linux"), tuple(diff_id for _, diff_id, _ in layers), execution, history, _created())
    pointer = layout.add(config.serialize(), CONFIG)
    manifest = Manifest(pointer, tuple(descriptor for descriptor, _, _ in layers))
    tagged = layout.add(manifest.serialize(), MANIFEST)
    layout.tag(tagged, name)
    return tagged


def _created() -> str:
    return datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
