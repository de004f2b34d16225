"""An image fetched from a real registry: by an index, verified, and refused where the registry has other bytes."""

import os
import subprocess
from io import BytesIO
from pathlib import Path

import pytest

from labkit.errors import LabError
from labkit.images import conformance, image
from labkit.images.catalogue import Image
from labkit.images.debian import architecture
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER, MANIFEST, Descriptor, ImageConfig, Manifest, Platform, digest_of
from labkit.images.registry import Registry, RegistryError, UnreachableError


def stored(storage: Path, digest: str) -> Path:
    """Return the file in which a registry keeps a blob."""
    encoded = digest.partition(":")[2]
    return storage / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"


def test_the_manifest_for_this_machine_is_found_by_the_index(tiny: Image, upstream: Registry) -> None:
    found = image.in_registry(upstream, tiny.repository, "latest")
    assert found.name == f"{upstream.host}/{tiny.repository}:latest"
    assert found.digest == tiny.digest
    assert [each.platform.architecture for each in found.listed if each.platform] == [architecture(), "s390x"]
    assert found.config.platform.architecture == architecture()
    assert found == image.in_registry(upstream, tiny.repository, tiny.digest, found.name)


def test_it_is_fetched_into_a_layout_that_keeps_to_the_specification(tiny: Image, upstream: Registry, tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    for _ in range(2):
        fetched = image.fetch(upstream, tiny.repository, "latest", layout)
    assert conformance.validate(tmp_path / "layout") == ()
    on_disk = image.in_layout(layout, "latest")
    assert (on_disk.manifest.digest, on_disk.layers) == (fetched.manifest.digest, fetched.layers)
    assert len(layout.verify()) == 3


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
def test_bytes_that_are_not_those_of_the_digest_are_refused(part: str, tiny: Image, upstream: Registry, tmp_path: Path) -> None:
    found = image.in_registry(upstream, tiny.repository, "latest")
    digest = {"manifest": found.manifest, "config": found.config_descriptor, "layer": found.layers[0]}[part].digest
    file = stored(tmp_path / "upstream", digest)
    file.write_bytes(file.read_bytes().swapcase())
    layout = Layout.create(tmp_path / "layout")
    with pytest.raises(LabError):
        image.fetch(upstream, tiny.repository, "latest", layout)
    assert layout.index().manifests == ()
    assert not layout.blob(digest).exists()


def test_a_changed_layer_is_refused_with_both_digests(tiny: Image, upstream: Registry, tmp_path: Path) -> None:
    layer = image.in_registry(upstream, tiny.repository, "latest").layers[0]
    file = stored(tmp_path / "upstream", layer.digest)
    file.write_bytes(file.read_bytes().swapcase())
    with pytest.raises(LabError, match=f"{layer.digest} refused; cause: what came has the digest sha256:") as caught:
        image.fetch(upstream, tiny.repository, "latest", Layout.create(tmp_path / "layout"))
    assert caught.value.remedy == "do not trust this registry"


def test_a_name_that_is_not_there_and_a_registry_that_is_down_are_told_apart(lab: Registry) -> None:
    with pytest.raises(RegistryError) as caught:
        image.in_registry(lab, "library/none", "latest")
    assert caught.value.status == 404
    with pytest.raises(UnreachableError):
        image.in_registry(Registry("127.0.0.1:9"), "library/none", "latest")


def test_a_full_disk_keeps_nothing_half_and_the_next_try_goes_on(lab: Registry, tmp_path: Path) -> None:
    data = os.urandom(2**20)
    layer = Descriptor(LAYER, digest_of(data), len(data))
    config = ImageConfig(Platform(architecture(), "linux"), (layer.digest,)).serialize()
    pointer = Descriptor(CONFIG, digest_of(config), len(config))
    for content, descriptor in ((data, layer), (config, pointer)):
        lab.put_blob("large", BytesIO(content), descriptor)
    lab.put_manifest("large", "latest", Manifest(pointer, (layer,)).serialize(), MANIFEST)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", small], check=True)
    try:
        layout = Layout.create(small / "layout")
        with pytest.raises(OSError, match="No space left on device"):
            image.fetch(lab, "large", "latest", layout)
        assert layout.index().manifests == ()
        assert not layout.blob(layer.digest).exists()
        subprocess.run(["mount", "-o", "remount,size=4m", small], check=True)
        image.fetch(lab, "large", "latest", layout)
        assert conformance.validate(layout.path) == ()
    finally:
        subprocess.run(["umount", small], check=True)
