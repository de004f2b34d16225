"""The course's two ACIs, as the set-up has built them: what they are called, what they say of themselves, that they are signed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from appc_hosts import World, served

from labkit.appc import course_images, discovery
from labkit.appc.fetch import STAND_IN
from labkit.appc.keystore import Keystore, read_key
from labkit.appc.store import Store
from labkit.appc.web import Web
from labkit.images.debian import architecture

ETCD = "https://github.com/coreos/etcd/releases/download/v3.1.7/etcd-v3.1.7-linux-amd64.aci"
KEYS = {"coreos.com/etcd": "coreos.com/dist/pubkeys/aci-pubkeys.gpg", "quay.io/coreos": "quay.io/aci-signing-key"}
SET_UP = Path(os.environ.get("LABKIT_STATE") or "/var/lib/labkit") / "images/aci"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The hosts of the course: built by the set-up, or now."""
    if (SET_UP / "sites").is_dir():
        (tmp_path / "sites").symlink_to(SET_UP / "sites")
    else:
        monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
        (tmp_path / "sites").symlink_to(course_images.seed())
    there = World(tmp_path, Store(tmp_path / "rkt"), Keystore(tmp_path / "etc"))
    with served(tmp_path, monkeypatch):
        yield there


def test_the_lines_of_the_course_fetch_them(course: World) -> None:
    if architecture() != "amd64":
        pytest.skip("the course names amd64")
    key = course.fetch(ETCD, "image", policy="update")
    found = course.store.manifest(key)
    assert (found.name, found.label("version"), found.label("arch")) == ("coreos.com/etcd", "v3.1.7", "amd64")
    assert course.store.find("coreos.com/etcd:v3.1.7") == key
    assert found.app
    assert found.app.exec == ("/etcd",)
    real = found.annotation(f"{STAND_IN}.version")
    assert real
    assert f"image: the lab's own, in place of coreos.com/etcd:v3.1.7: etcd {real} of Debian 13" in course.said
    assert any(line.startswith("image: github.com is asked through the proxy http://127.0.0.1:") for line in course.said)


@pytest.mark.parametrize("name", ["coreos.com/etcd:v3.1.7", "quay.io/coreos/alpine-sh:latest", "quay.io/coreos/alpine-sh"])
def test_discovery_leads_to_them_and_their_signature_counts(course: World, name: str) -> None:
    for prefix, key in KEYS.items():
        course.keystore.trust((course.sites / key).read_bytes(), prefix)
    assert course.fetch(name) in {image.key for image in course.store.images()}
    assert f"  {course_images.SIGNER}" in course.said


def test_their_programs_are_in_them(course: World) -> None:
    etcd = course.store.rendered(course.fetch("coreos.com/etcd:v3.1.7", "image"))
    assert {"etcd", "etcdctl", "data-dir"} <= set(os.listdir(etcd))
    shell = course.store.rendered(course.fetch("quay.io/coreos/alpine-sh", "image"))
    assert (shell / "bin/sh").is_symlink()
    assert 'LABKIT_STAND_IN="alpine"' in (shell / "etc/os-release").read_text()


def test_nobody_has_the_secret_key(course: World) -> None:
    assert [path for path in course.sites.rglob("*") if b"PRIVATE KEY" in (path.read_bytes()[:200] if path.is_file() else b"")] == []


@pytest.mark.parametrize(
    ("prefix", "key"),
    [("coreos.com/etcd", "coreos.com/dist/pubkeys/aci-pubkeys.gpg"), ("quay.io/coreos/alpine-sh", "quay.io/aci-signing-key")],
)
def test_discovery_leads_to_the_keys(course: World, prefix: str, key: str) -> None:
    web = Web(timeout=10)
    assert discovery.keys(prefix, web) == (f"https://{key}",)
    assert read_key(web.page(f"https://{key}")).users == (course_images.SIGNER,)
