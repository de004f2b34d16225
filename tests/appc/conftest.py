"""Fixtures of the room appc: keys, stores, hosts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from appc_hosts import World, manifest, served

from labkit import ledger
from labkit.appc import publishing
from labkit.appc.keystore import Keystore
from labkit.appc.publishing import Signer
from labkit.appc.store import Store


@pytest.fixture(scope="session", autouse=True)
def nothing_of_no_lab(own_state: Path) -> Iterator[None]:
    """Remove at the end what pods outside of a lab share, their part of each hierarchy: the next run has another ledger."""
    yield
    ledger.undo()


@pytest.fixture(scope="session")
def ann() -> Iterator[Signer]:
    with publishing.signer("Ann <ann@example.com>") as signer:
        yield signer


@pytest.fixture(scope="session")
def eve() -> Iterator[Signer]:
    with publishing.signer("Eve <eve@example.com>") as signer:
        yield signer


@pytest.fixture
def world(tmp_path: Path, ann: Signer, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Hosts with one image, `example.com/web:1`, signed by Ann, whom nobody trusts yet."""
    there = World(tmp_path, Store(tmp_path / "rkt"), Keystore(tmp_path / "etc", tmp_path / "usr"))
    there.publish(manifest("example.com/web"), ann)
    with served(tmp_path, monkeypatch):
        yield there
