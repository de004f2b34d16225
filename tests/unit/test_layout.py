"""A layout on disk: written, found again, verified."""

from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER, MANIFEST, ImageConfig, Manifest, Platform, digest_of


def an_image(path: Path) -> Layout:
    layout = Layout.create(path)
    content = layout.add(b"layer", LAYER)
    config = layout.add(ImageConfig(Platform("amd64", "linux"), (content.digest,)).serialize(), CONFIG)
    layout.tag(layout.add(Manifest(config, (content,)).serialize(), MANIFEST), "one")
    return layout


def test_an_image_is_found_by_its_name_and_verified(tmp_path: Path) -> None:
    layout = an_image(tmp_path)
    manifest = layout.manifest(layout.find("one"))
    assert layout.config(manifest).platform == Platform("amd64", "linux")
    assert [each.digest for each in layout.verify()][1:] == [manifest.config.digest, manifest.layers[0].digest]
    with pytest.raises(LabError, match="it has one"):
        layout.find("two")


def test_a_name_is_given_anew_and_the_layout_made_again_is_the_same(tmp_path: Path) -> None:
    layout = an_image(tmp_path)
    layout.tag(layout.find("one"), "one")
    assert an_image(tmp_path).index() == layout.index()
    assert len(layout.index().manifests) == 1


def test_a_blob_that_was_changed_cut_or_removed_is_refused_with_its_path(tmp_path: Path) -> None:
    layout = an_image(tmp_path)
    blob = layout.blob(digest_of(b"layer"))
    for damage in (b"other", b"lay"):
        blob.write_bytes(damage)
        with pytest.raises(LabError, match="is not what its name says"):
            layout.verify()
    blob.unlink()
    with pytest.raises(LabError, match="the layout is not whole"):
        layout.verify()


def test_no_digest_leads_out_of_the_layout(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is no digest"):
        Layout(tmp_path).blob("sha256:../../../etc/shadow")


def test_what_is_no_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is no OCI layout"):
        Layout(tmp_path).index()
    Layout.create(tmp_path)
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "9"}')
    with pytest.raises(LabError, match="unknown version"):
        Layout(tmp_path).index()
