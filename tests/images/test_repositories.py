"""What a lab pushes into the registry with accounts is gone after it, and nothing else is."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit import ledger
from labkit.errors import LabError
from labkit.images import repositories
from labkit.images.oci import CONFIG, LAYER, MANIFEST, Descriptor, ImageConfig, Manifest, Platform, digest_of
from labkit.images.registry import Registry, RegistryError, UnreachableError

SHARED = b"a layer that two repositories have"


@pytest.fixture
def accounts(lab: Registry, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry in the place of the one with accounts, its storage in `tmp_path/lab`."""
    (tmp_path / "accounts").mkdir()
    (tmp_path / "accounts/storage").symlink_to(tmp_path / "lab")
    monkeypatch.setattr(repositories, "places", lambda: SimpleNamespace(accounts_directory=tmp_path / "accounts"))
    monkeypatch.setattr(repositories, "with_accounts", lambda: lab)
    ledger.own("5.1")
    yield lab
    ledger.own("")


def push(registry: Registry, repository: str, tag: str, *layers: bytes) -> set[str]:
    """Push an image, and return the digests of all that it is made of."""
    config = ImageConfig(Platform("amd64", "linux"), tuple(map(digest_of, layers)), created=repository).serialize()
    blobs = [(config, Descriptor(CONFIG, digest_of(config), len(config)))]
    blobs += [(each, Descriptor(LAYER, digest_of(each), len(each))) for each in layers]
    for data, descriptor in blobs:
        registry.put_blob(repository, BytesIO(data), descriptor)
    manifest = Manifest(blobs[0][1], tuple(descriptor for _, descriptor in blobs[1:])).serialize()
    return {registry.put_manifest(repository, tag, manifest, MANIFEST), *(descriptor.digest for _, descriptor in blobs)}


def kept(storage: Path) -> set[str]:
    return {f"sha256:{path.parent.name}" for path in storage.rglob("data")}


def test_a_repository_goes_with_all_that_it_alone_has(accounts: Registry, tmp_path: Path) -> None:
    others = push(accounts, "lfstudent/canary", "latest", SHARED)
    repositories.claim("lfstudent/alpine")
    repositories.claim("lfstudent/alpine")
    ours = push(accounts, "lfstudent/alpine", "training", SHARED, b"ours") | push(accounts, "lfstudent/alpine", "other", b"more")
    assert kept(tmp_path / "lab") == ours | others
    ledger.undo("5.1")
    assert kept(tmp_path / "lab") == others
    assert accounts.catalog() == ["lfstudent/canary"]
    assert accounts.read("lfstudent/canary", Descriptor(LAYER, digest_of(SHARED), len(SHARED))) == SHARED
    assert not list((tmp_path / "lab").rglob("alpine"))
    assert push(accounts, "lfstudent/alpine", "training", b"ours")  # nothing keeps the name from being used again


def test_the_directory_above_goes_with_the_last_repository_in_it(accounts: Registry, tmp_path: Path) -> None:
    repositories.claim("lfstudent/alpine")
    push(accounts, "lfstudent/alpine", "training", b"ours")
    ledger.undo("5.1")
    assert accounts.catalog() == []
    assert not list((tmp_path / "lab").rglob("lfstudent"))
    assert kept(tmp_path / "lab") == set()


def test_one_that_was_never_pushed_is_no_trouble(accounts: Registry) -> None:
    repositories.claim("lfstudent/alpine")
    ledger.undo("5.1")
    assert ledger.live() == []


def test_a_name_that_is_taken_is_refused_and_what_has_it_stays(accounts: Registry, tmp_path: Path) -> None:
    others = push(accounts, "lfstudent/alpine", "training", b"somebody's")
    with pytest.raises(LabError, match="lfstudent/alpine:training is there already and was not pushed by this lab"):
        repositories.claim("lfstudent/alpine")
    assert ledger.live() == []
    ledger.undo("5.1")
    assert kept(tmp_path / "lab") == others


def test_where_the_registry_is_down_nothing_is_claimed_and_what_was_goes_out_of_its_storage(
    accounts: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories.claim("lfstudent/alpine")
    push(accounts, "lfstudent/alpine", "training", b"ours")
    monkeypatch.setattr(repositories, "with_accounts", lambda: Registry("127.0.0.1:9"))
    with pytest.raises(UnreachableError, match=r"registry 127.0.0.1:9 cannot be reached; cause: connection refused"):
        repositories.claim("lfstudent/other")
    ledger.undo("5.1")
    assert kept(tmp_path / "lab") == set()
    with pytest.raises(RegistryError):
        accounts.manifest("lfstudent/alpine", "training")


def test_a_name_that_leads_elsewhere_is_refused(accounts: Registry) -> None:
    with pytest.raises(LabError, match="is no name of a repository"):
        repositories.claim("../storage")
    assert ledger.live() == []
