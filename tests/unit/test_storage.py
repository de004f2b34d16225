"""The store of podman as it lies on disk: images, and layers that several of them stand on."""

import json
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.images.storage import Storage, full_name


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    layers = [
        {"id": "a" * 64, "diff-digest": "sha256:1", "compressed-diff-digest": "sha256:2", "diff-size": 7},
        {"id": "b" * 64, "parent": "a" * 64, "diff-digest": "sha256:3", "diff-size": 8},
        {"id": "c" * 64, "parent": "b" * 64, "names": ["of a container"]},
    ]
    images = [
        {"id": "1" * 64, "digest": "sha256:4", "names": ["docker.io/library/debian:latest"], "layer": "a" * 64},
        {"id": "2" * 64, "names-history": ["docker.io/library/nginx:latest"], "layer": "b" * 64},
        {"id": "3" * 64, "names": None},
    ]
    for file, content in (("overlay-layers/layers.json", layers), ("overlay-images/images.json", images)):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(json.dumps(content))
    return Storage(tmp_path)


def test_images_are_found_by_the_name_that_is_typed(store: Storage):
    debian = store.image("debian")
    assert debian is not None
    assert (debian.id[0], debian.digest) == ("1", "sha256:4")
    assert store.image("nginx") is None, "it has lost its name"
    assert [one.history for one in store.images()] == [(), ("docker.io/library/nginx:latest",), ()]


def test_the_layers_of_an_image_come_from_the_lowest_up(store: Storage):
    first, second, third = store.images()
    assert [one.id[0] for one in store.chain(second)] == ["a", "b"]
    assert store.chain(first) == store.chain(second)[:1]
    assert store.chain(third) == ()
    assert store.directory(store.chain(first)[0]) == store.path / "overlay" / ("a" * 64) / "diff"
    assert [(one.blob, one.size) for one in store.layers()] == [("sha256:2", 7), ("", 8), ("", 0)]


def test_a_store_that_nobody_has_used_is_empty(tmp_path: Path):
    assert Storage(tmp_path).images() == Storage(tmp_path).layers() == ()


def test_a_store_that_cannot_be_read_says_so(tmp_path: Path):
    (tmp_path / "overlay-images").mkdir()
    (tmp_path / "overlay-images/images.json").write_text("{")
    with pytest.raises(LabError, match=r"images\.json cannot be read"):
        Storage(tmp_path).images()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("debian:buster-slim", "docker.io/library/debian:buster-slim"),
        ("student/web", "docker.io/student/web:latest"),
        ("localhost/mine", "localhost/mine:latest"),
        ("localhost:5001/mine:1", "localhost:5001/mine:1"),
    ],
)
def test_a_name_is_completed(typed: str, meant: str):
    assert full_name(typed) == meant
