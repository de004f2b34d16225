"""Whether an OCI layout on disk keeps to the image specification: each problem names the field and the clause.

See:
    image-spec image-layout.md, image-index.md, manifest.md, config.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from labkit.errors import LabError, Problem, SpecificationError
from labkit.images.layout import Layout
from labkit.images.oci import MANIFESTS, Descriptor, ImageConfig, Manifest

_FILES = "image-spec image-layout.md: oci-layout, of a known imageLayoutVersion, and index.json MUST exist"
_BLOBS = "image-spec image-layout.md, Blobs: the content of blobs/ALGORITHM/ENCODED MUST match the digest"


def validate(path: Path) -> tuple[Problem, ...]:
    """Return what breaks the specification, from the index down; of each document the first field.

    Args:
        path: the directory with `oci-layout`, `index.json` and `blobs`.
    """
    layout = Layout(path)
    try:
        manifests = layout.index().manifests
    except LabError as error:
        return (_problem("index", error, _FILES),)
    return tuple(
        problem
        for number, each in enumerate(manifests)
        if each.media_type in MANIFESTS
        for problem in _image(layout, f"index.manifests[{number}]", each)
    )


def _image(layout: Layout, field: str, descriptor: Descriptor) -> Iterator[Problem]:
    """Find what is wrong with a manifest, and with what it points to."""
    try:
        manifest = layout.manifest(descriptor)
    except LabError as error:
        yield _problem(field, error)
        return
    if manifest.media_type != descriptor.media_type:
        message = f"is {manifest.media_type}, and its descriptor says {descriptor.media_type}"
        yield Problem("manifest.mediaType", message, "image-spec descriptor.md: mediaType is the media type of the referenced content")
    for number, layer in enumerate(manifest.layers):
        try:
            layout.check(layer)
        except LabError as error:
            yield _problem(f"manifest.layers[{number}]", error)
    try:
        config = layout.config(manifest)
    except LabError as error:
        yield _problem("manifest.config", error)
        return
    yield from _counts(manifest, config)


def _counts(manifest: Manifest, config: ImageConfig) -> Iterator[Problem]:
    """Find a configuration that speaks of other layers than the manifest."""
    layers = len(manifest.layers)
    if len(config.diff_ids) != layers:
        message = f"has {len(config.diff_ids)} entries, and the manifest {layers} layers"
        clause = "image-spec config.md: diff_ids is an array of layer content hashes, in order from first to last"
        yield Problem("configuration.rootfs.diff_ids", message, clause)
    made = sum(not each.empty_layer for each in config.history)
    if config.history and made != layers:
        clause = "image-spec config.md: empty_layer marks the history items without a filesystem diff"
        yield Problem("configuration.history", f"tells of {made} layers, and the manifest has {layers}", clause)


def _problem(field: str, error: LabError, clause: str = _BLOBS) -> Problem:
    """Return the problem that an error speaks of: a broken field, or a file that is not what it has to be."""
    if isinstance(error, SpecificationError):
        return error.problem
    return Problem(field, f"{error.message}{f': {error.cause}' if error.cause else ''}", clause)
