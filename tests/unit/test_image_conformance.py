"""An OCI layout on disk: each rule that is broken is named with field and clause."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.images.conformance import validate
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER, MANIFEST, History, ImageConfig, Manifest, Platform, digest_of

Change = Callable[[dict[str, object]], object]


def an_image(path: Path, config: Change = dict, manifest: Change = dict, index: Change = dict) -> Path:
    """Make a layout of one image, with its documents changed by these functions."""
    layout = Layout.create(path)
    layer = layout.add(b"layer", LAYER)
    said = json.loads(ImageConfig(Platform("amd64", "linux"), (layer.digest,), history=(History("ADD"),)).serialize())
    config(said)
    described = layout.add(json.dumps(said).encode(), CONFIG)
    said = json.loads(Manifest(described, (layer,)).serialize())
    manifest(said)
    layout.tag(layout.add(json.dumps(said).encode(), MANIFEST), "one")
    said = json.loads((path / "index.json").read_bytes())
    index(said)
    (path / "index.json").write_text(json.dumps(said))
    return path


def test_an_image_that_keeps_to_the_specification_has_no_problem(tmp_path: Path):
    assert validate(an_image(tmp_path)) == ()


BROKEN = {
    "index.schemaVersion": ("index", lambda said: said.update(schemaVersion=1), "must be 2, not 1", "image-index.md"),
    "index.manifests[0].size": ("index", lambda said: said["manifests"][0].pop("size"), "is missing", "image-index.md"),
    "index.manifests[0].digest": ("index", lambda said: said["manifests"][0].update(digest="sha256:1"), "is no digest", "image-index.md"),
    "manifest.config": ("manifest", lambda said: said.pop("config"), "is missing", "manifest.md"),
    "manifest.config.mediaType": ("manifest", lambda said: said["config"].pop("mediaType"), "is missing", "manifest.md"),
    "manifest.layers": ("manifest", lambda said: said.pop("layers"), "is missing", "manifest.md"),
    "manifest.mediaType": ("manifest", lambda said: said.update(mediaType="text/plain"), "is text/plain, and its", "descriptor.md"),
    "configuration.architecture": ("config", lambda said: said.pop("architecture"), "is missing", "config.md"),
    "configuration.rootfs": ("config", lambda said: said.pop("rootfs"), "is missing", "config.md"),
    "configuration.rootfs.type": ("config", lambda said: said["rootfs"].update(type="tar"), "must be layers", "config.md"),
    "configuration.rootfs.diff_ids": (
        "config",
        lambda said: said["rootfs"]["diff_ids"].pop(),
        "0 entries, and the manifest 1",
        "config.md",
    ),
    "configuration.history": ("config", lambda said: said["history"][0].update(empty_layer=True), "tells of 0 layers", "config.md"),
}


@pytest.mark.parametrize("field", BROKEN)
def test_each_broken_rule_is_named_with_its_field_and_its_clause(field: str, tmp_path: Path):
    document, change, message, clause = BROKEN[field]
    problems = validate(an_image(tmp_path, **{document: change}))
    assert [problem.field for problem in problems] == [field]
    assert message in problems[0].message
    assert problems[0].clause.startswith(f"image-spec {clause}")


def test_blobs_that_are_not_what_they_are_called_are_all_named(tmp_path: Path):
    layout = Layout(an_image(tmp_path))
    manifest = layout.manifest(layout.find("one"))
    layout.blob(digest_of(b"layer")).write_bytes(b"other")
    layout.blob(manifest.config.digest).unlink()
    problems = validate(tmp_path)
    assert [problem.field for problem in problems] == ["manifest.layers[0]", "manifest.config"]
    assert all(problem.clause.startswith("image-spec image-layout.md, Blobs") for problem in problems)
    assert "5 bytes of digest sha256:" in problems[0].message


def test_what_is_no_layout_is_told_so(tmp_path: Path):
    assert (
        validate(tmp_path)[0].clause == "image-spec image-layout.md: oci-layout, of a known imageLayoutVersion, and index.json MUST exist"
    )
    (an_image(tmp_path) / "oci-layout").write_text('{"imageLayoutVersion": "9"}')
    assert "unknown version" in validate(tmp_path)[0].message
