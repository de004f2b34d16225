"""Manifests, indexes and configurations: read exactly, and refused by the field that is wrong."""

import json

import pytest

from labkit.errors import LabError
from labkit.images import elf
from labkit.images.catalogue import IMAGES, find
from labkit.images.oci import Descriptor, Execution, History, ImageConfig, Index, Manifest, Platform, digest_of, is_digest

DIGEST = digest_of(b"")
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 7}
MANIFEST = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": LAYER, "layers": [LAYER, LAYER]}


def as_bytes(record: dict) -> bytes:
    return json.dumps(record, indent=3).encode()  # not as we would write it


def test_what_was_read_is_written_byte_for_byte() -> None:
    data = as_bytes({**MANIFEST, "unknownToUs": [1, 2]})
    assert Manifest.parse(data).serialize() == data
    index = as_bytes({"schemaVersion": 2, "manifests": [LAYER], "later": {}})
    assert Index.parse(index).serialize() == index


def test_a_docker_manifest_of_schema_2_is_a_manifest_too() -> None:
    docker = {**MANIFEST, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"}
    manifest = Manifest.parse(as_bytes(docker))
    assert manifest.media_type == docker["mediaType"]
    assert manifest.size() == 21


def test_what_we_make_is_read_back_the_same() -> None:
    execution = Execution(("sh", "-c"), ("/entry",), ("A=b",), "65535:0", "/srv", ("80/tcp",), ("/data",), "SIGQUIT", {"io.labkit": "yes"})
    history = (History("RUN x", "2025-08-09T00:00:00Z", empty_layer=True),)
    config = ImageConfig(Platform("arm64", "linux", "v8"), (DIGEST,), execution, history, "2025-08-09T00:00:00Z")
    assert ImageConfig.parse(config.serialize()) == config
    pointer = Descriptor("application/json", DIGEST, 0, {"a": "b"}, Platform("amd64", "linux"))
    assert Manifest.parse(Manifest(pointer, (pointer,), {"x": "y"}).serialize()) == Manifest(pointer, (pointer,), {"x": "y"})
    assert Index.parse(Index((pointer,)).serialize()) == Index((pointer,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schemaVersion": 1}, "manifest.schemaVersion: must be 2, not 1"),
        ({"config": None}, "manifest.config: must be an object"),
        ({"layers": [LAYER, {**LAYER, "digest": "sha256:../../etc/passwd"}]}, "manifest.layers[1].digest: 'sha256:../../etc/passwd' is no"),
        ({"layers": [{**LAYER, "size": -1}]}, "manifest.layers[0].size: must be a number of bytes"),
        ({"layers": [{**LAYER, "size": True}]}, "manifest.layers[0].size: must be a number of bytes"),
        ({"layers": "none"}, "manifest.layers: must be a list of objects"),
        ({"layers": [{"digest": DIGEST, "size": 1}]}, "manifest.layers[0].mediaType: is missing"),
        ({"annotations": {"a": 1}}, "manifest.annotations: must hold texts only"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named_with_its_clause(change: dict, said: str) -> None:
    with pytest.raises(LabError) as caught:
        Manifest.parse(as_bytes({**MANIFEST, **change}))
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith("; cause: image-spec manifest.md asks for it")


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"schemaVersion": 2', b"[" * 100_000, b" " * (5 * 2**20)], ids=range(6))
def test_what_is_no_document_is_refused_in_one_line(data: bytes) -> None:
    for kind in (Manifest, Index, ImageConfig):
        with pytest.raises(LabError) as caught:
            kind.parse(data)
        assert "\n" not in str(caught.value)


def test_an_index_gives_the_manifest_for_this_machine_or_says_which_it_has() -> None:
    manifests = tuple(Descriptor("m", digest_of(each.encode()), 1, platform=Platform(each, "linux")) for each in ("amd64", "riscv64"))
    assert Index(manifests).for_platform("riscv64") == manifests[1]
    with pytest.raises(LabError, match="its platforms are linux/amd64, linux/riscv64"):
        Index(manifests).for_platform("arm64")


def test_the_catalogue_pins_each_image_once_and_finds_it_by_every_name() -> None:
    assert all(is_digest(image.digest) for image in IMAGES)
    assert len({image.reference for image in IMAGES}) == len(IMAGES)
    for name in ("alpine", "alpine:latest", "docker.io/library/alpine:latest", "library/alpine:latest"):
        assert find(name).name == "alpine"
    with pytest.raises(LabError, match="did you mean nginx"):
        find("ngnix")


def test_the_smallest_program_is_a_static_executable_for_both_machines() -> None:
    for architecture, machine in (("amd64", 62), ("arm64", 183)):
        program = elf.program("hello\n", architecture)
        assert program[:5] == b"\x7fELF\x02"
        assert int.from_bytes(program[18:20], "little") == machine
        assert len(program) < 250
    with pytest.raises(LabError, match="only for amd64, arm64"):
        elf.program("hello\n", "vax")
