"""What labs 4.5 and 5.2 read of rkt's store: the image, and whether its signature was asked for."""

import json
from pathlib import Path

from labkit.appc import aci
from labkit.appc.image_manifest import App, ImageManifest
from labkit.appc.store import Store
from labkit.course import rkt_images

NAME = "example.com/web:1"


def stored(place: Path) -> Path:
    """Return rkt's directory, with one image in its store."""
    (place / "rootfs").mkdir()
    found = ImageManifest(name="example.com/web", labels=(("version", "1"),), app=App(("/web",), "0", "0"))
    aci.build(found, place / "rootfs", place / "web.aci")
    Store(place / "rkt").put(place / "web.aci")
    return place / "rkt"


def test_an_image_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert rkt_images.found(tmp_path / "rkt", NAME) is None
    assert rkt_images.manifest(tmp_path / "rkt", NAME) is None
    verdict = rkt_images.checked(tmp_path / "rkt", tmp_path / "rkt.d", NAME)
    assert (verdict.passed, verdict.measured, verdict.cause) == (False, f"the store has no {NAME}", "no key is trusted for example.com/web")


def test_it_counts_only_what_came_with_a_look_at_its_signature(tmp_path: Path) -> None:
    data = stored(tmp_path)
    key = rkt_images.found(data, NAME)
    assert key
    assert not rkt_images.checked(data, tmp_path / "rkt.d", NAME).passed
    (data / "cas/remote").mkdir()
    for signed in (False, True):
        (data / "cas/remote/of.json").write_text(json.dumps({"aciURL": "https://a/b", "blobKey": str(key), "signed": signed}))
        assert rkt_images.checked(data, tmp_path / "rkt.d", NAME).passed is signed
    (data / "cas/remote/of.json").write_text("{")
    assert not rkt_images.signed(data, key)
