"""An image as a tree of digests, and two roots compared: what the text says."""

from dataclasses import replace

import pytest
from show_states import EQUAL, IMAGE, LAYERS, UNEQUAL

from labkit import show
from labkit.show.image import MOST_LAYERS, NO_INDEX, size


def test_each_part_is_shown_with_digest_size_and_media_type():
    lines = show.image_tree(IMAGE).text.splitlines()
    assert lines[0] == "docker.io/library/nginx:latest"
    assert [line.split()[0] for line in lines[1:3]] == ["index", "manifest"]
    assert lines[4].split() == ["├─", "layer", "1", "sha256:cccccccccccc", "29.6", "MB", "vnd.oci.image.layer.v1.tar+gzip"]
    assert "index: lists 2 manifests" in lines
    assert "config: linux/amd64, runs nginx -g daemon off;" in lines
    assert lines[-2:] == ["layer 1: ADD", "layer 2: COPY"], "an instruction that made no layer is none"


def test_without_an_index_it_says_so():
    assert NO_INDEX in show.image_tree(replace(IMAGE, index=None, listed=())).text
    assert NO_INDEX not in show.image_tree(IMAGE).text


def test_of_many_layers_the_rest_is_counted():
    text = show.image_tree(replace(IMAGE, layers=LAYERS * 10)).text
    assert f"layer {MOST_LAYERS} " in text
    assert f"layer {MOST_LAYERS + 1} " not in text
    assert f"… {20 - MOST_LAYERS} more layers" in text


@pytest.mark.parametrize(
    ("number", "written"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (29_628_611, "29.6 MB"), (2 * 10**12, "2000.0 GB")]
)
def test_sizes_are_written_as_engines_write_them(number: int, written: str):
    assert size(number) == written


def test_roots_that_are_equal_and_roots_that_are_not():
    equal, unequal = show.contents_view(EQUAL).text, show.contents_view(UNEQUAL).text
    assert "the two are equal" in equal
    assert "297 names" in equal
    assert "dev, proc" in equal
    assert "etc/passwd  mode, owner" in unequal
    assert "equal" not in unequal
