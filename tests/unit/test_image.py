"""An image read from its name down: out of an index, out of a layout on disk, and refused where bytes are not what their digest says."""

import gzip
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.images import image, stack
from labkit.images.debian import architecture
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER, LAYER_GZIP, MANIFEST, Descriptor, ImageConfig, Index, Manifest, Platform, digest_of
from labkit.images.reference import Reference

ALPINE = "sha256:" + "a" * 64


def tar(**files: str) -> bytes:
    """Return a tar of these files; `_` in a name stands for a slash."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("_", "/"))
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def layout_of(path: Path, *tars: bytes, diff_ids: tuple[str, ...] = ()) -> Layout:
    layout = Layout.create(path)
    layers = [layout.add(tars[0], LAYER), *(layout.add(gzip.compress(each, mtime=0), LAYER_GZIP) for each in tars[1:])]
    config = ImageConfig(Platform(architecture(), "linux"), diff_ids or tuple(map(digest_of, tars)))
    manifest = Manifest(layout.add(config.serialize(), CONFIG), tuple(layers))
    layout.tag(layout.add(manifest.serialize(), MANIFEST), "one")
    return layout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpine", ("docker.io", "library/alpine", "latest")),
        ("lfstudent/alpine:training", ("docker.io", "lfstudent/alpine", "training")),
        ("docker.io/library/nginx", ("docker.io", "library/nginx", "latest")),
        ("localhost/alpine", ("localhost", "alpine", "latest")),
        ("localhost:5001/lfstudent/alpine:training", ("localhost:5001", "lfstudent/alpine", "training")),
        ("registry.k8s.io/pause:3.6", ("registry.k8s.io", "pause", "3.6")),
        (f"alpine@{ALPINE}", ("docker.io", "library/alpine", ALPINE)),
    ],
)
def test_a_name_is_read_as_engines_read_it(name: str, expected: tuple[str, str, str]) -> None:
    found = Reference.parse(name)
    assert (found.host, found.repository, found.tag) == expected


@pytest.mark.parametrize("name", ["", ":latest", "localhost:5001/", "alpine@sha256:short"])
def test_what_names_no_image_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="is no name of an image"):
        Reference.parse(name)


def test_a_layout_is_read_from_its_index_down(tmp_path: Path) -> None:
    layout = layout_of(tmp_path / "layout", tar(motd="hello"), tar(etc_motd="bye"))
    found = image.in_layout(layout, name="oci:layout")
    assert found == image.in_layout(layout, "one", "oci:layout")
    assert found.index is not None
    assert found.digest == digest_of((tmp_path / "layout/index.json").read_bytes())
    assert [each.digest for each in found.listed] == [found.manifest.digest]
    assert len(found.layers) == len(found.config.diff_ids) == 2


def test_of_several_images_one_has_to_be_named(tmp_path: Path) -> None:
    layout = layout_of(tmp_path / "layout", tar(motd="hello"))
    layout.tag(replace(layout.find("one"), annotations={}), "two")
    with pytest.raises(LabError, match="has 2 images"):
        image.in_layout(layout)
    with pytest.raises(LabError, match="has no image 'three'; cause: it has one, two"):
        image.in_layout(layout, "three")


def test_an_index_of_an_index_is_no_image(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    layout.tag(layout.add(Index(()).serialize(), "application/vnd.oci.image.index.v1+json"), "one")
    with pytest.raises(LabError, match="is no manifest"):
        image.in_layout(layout)


def test_each_layer_gets_a_directory_and_one_that_is_there_stays(tmp_path: Path) -> None:
    layout = layout_of(tmp_path / "layout", tar(motd="hello", etc_hosts="x"), tar(etc_motd="bye"))
    (tmp_path / "layers").mkdir()
    first, second = stack.unpack(layout, image.in_layout(layout), tmp_path / "layers")
    assert (first / "motd").read_text() == "hello"
    assert sorted(os.listdir(second)) == ["etc"]
    (first / "mine").touch()
    assert stack.unpack(layout, image.in_layout(layout), tmp_path / "layers") == (first, second)
    assert (first / "mine").exists()
    assert sorted(os.listdir(tmp_path / "layers")) == ["1", "1.diff_id", "2", "2.diff_id"]


def test_another_layer_takes_the_place_of_the_one_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    for text in ("hello", "bye"):
        layout = layout_of(tmp_path / text, tar(base="same"), tar(motd=text, **{text: ""}))
        first, second = stack.unpack(layout, image.in_layout(layout), tmp_path / "layers")
        (first / "mine").touch()
    assert (second / "motd").read_text() == "bye"
    assert sorted(os.listdir(second)) == ["bye", "motd"]


def test_whiteouts_are_named_by_what_they_take_away(tmp_path: Path) -> None:
    packed = tmp_path / "layer"
    for text in (tar(**{"etc_.wh.profile": "", ".wh.motd": "", "var_.wh..wh..opq": "", "etc_kept": ""}),):
        packed.write_bytes(text)
        assert stack.whiteouts(packed) == ("etc/profile", "motd", "var/")
        packed.write_bytes(gzip.compress(text))
        assert stack.whiteouts(packed) == ("etc/profile", "motd", "var/")


def test_a_changed_layer_is_refused_and_nothing_is_unpacked(tmp_path: Path) -> None:
    layout = layout_of(tmp_path / "layout", tar(motd="hello"))
    found = image.in_layout(layout)
    blob = layout.blob(found.layers[0].digest)
    blob.write_bytes(blob.read_bytes().replace(b"hello", b"hallo"))
    (tmp_path / "layers").mkdir()
    with pytest.raises(LabError, match=r"is not what its name says; cause: .* bytes of digest sha256:"):
        stack.unpack(layout, found, tmp_path / "layers")
    assert os.listdir(tmp_path / "layers") == []


def test_a_tar_that_the_configuration_does_not_know_is_refused(tmp_path: Path) -> None:
    layout = layout_of(tmp_path / "layout", tar(motd="hello"), diff_ids=(ALPINE,))
    (tmp_path / "layers").mkdir()
    with pytest.raises(LabError, match=rf"cause: its tar has the digest sha256:.*, and the configuration says {ALPINE}"):
        stack.unpack(layout, image.in_layout(layout), tmp_path / "layers")
    assert os.listdir(tmp_path / "layers") == ["1.partial"]
    layout = layout_of(tmp_path / "whole", tar(motd="hello"))
    stack.unpack(layout, image.in_layout(layout), tmp_path / "layers")
    assert sorted(os.listdir(tmp_path / "layers")) == ["1", "1.diff_id"], "what was refused is in nobody's way"


def test_a_changed_configuration_is_refused(tmp_path: Path) -> None:
    layout = layout_of(tmp_path / "layout", tar(motd="hello"))
    blob = layout.blob(image.in_layout(layout).config_descriptor.digest)
    blob.write_bytes(blob.read_bytes().replace(b"linux", b"minix"))
    with pytest.raises(LabError, match="is not what its name says"):
        image.in_layout(layout)


def test_a_blob_that_comes_broken_is_not_kept(tmp_path: Path) -> None:
    def broken():
        yield b"he"
        raise LabError("other bytes")

    layout = Layout.create(tmp_path / "layout")
    pointer = Descriptor(LAYER, digest_of(b"hello"), 5)
    with pytest.raises(LabError, match="other bytes"):
        layout.take(broken(), pointer)
    assert not layout.blob(pointer.digest).exists()
    layout.take([b"he", b"llo"], pointer)
    layout.check(pointer)
