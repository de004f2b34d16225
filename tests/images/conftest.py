"""Registries and images for the tests: real ones, on free ports, with directories of their own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from labkit.images import catalogue, seed
from labkit.images.catalogue import Image
from labkit.images.debian import architecture
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, INDEX, LAYER, MANIFEST, Execution, ImageConfig, Index, Manifest, Platform
from labkit.images.registry import Registry
from labkit.images.serving import serving

LABKIT = Path(__file__).resolve().parents[2] / ".venv/bin/labkit"
SET_UP = Path(os.environ.get("LABKIT_STATE") or "/var/lib/labkit")
"""What the set-up of this machine has seeded; the tests have a state of their own."""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state directory."""
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Registry]:
    with serving(tmp_path / "lab") as registry:
        yield registry


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Registry]:
    with serving(tmp_path / "upstream") as registry:
        yield registry


@pytest.fixture
def tiny(upstream: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """A real image, for this machine and another, in the upstream registry, and the only one of the catalogue."""
    layout = Layout.create(tmp_path / "tiny")
    manifests = []
    for name in (architecture(), "s390x"):
        content = layout.add(f"what {name} runs".encode(), LAYER)
        config = ImageConfig(Platform(name, "linux"), (content.digest,), Execution(cmd=(name,)))
        manifest = Manifest(layout.add(config.serialize(), CONFIG), (content,))
        pointer = layout.add(manifest.serialize(), MANIFEST)
        manifests.append(type(pointer)(pointer.media_type, pointer.digest, pointer.size, platform=Platform(name, "linux")))
        for each in (content, manifest.config):
            with layout.blob(each.digest).open("rb") as file:
                upstream.put_blob("library/tiny", file, each)
        upstream.put_manifest("library/tiny", pointer.digest, manifest.serialize(), MANIFEST)
    digest = upstream.put_manifest("library/tiny", "latest", Index(tuple(manifests)).serialize(), INDEX)
    image = Image("tiny", "latest", "library/tiny", digest, "a tiny one", "hello-world", "127.0.0.1:9")
    for module in (catalogue, seed):
        monkeypatch.setattr(module, "IMAGES", (image,))
    return image


@pytest.fixture(scope="session")
def seeded() -> Iterator[Path]:
    """A state directory with every stand-in, kept and in the storage of a registry; built only where the set-up has not.

    It is below /var/lib, as on every machine: a user of their own, as whom the registries run, cannot enter a directory of pytest.
    """
    with TemporaryDirectory(dir="/var/lib", prefix="labkit-tests-") as directory:
        yield _seeded(Path(directory))


def _seeded(state: Path) -> Path:
    state.chmod(0o755)
    if (SET_UP / "images").is_dir():
        shutil.copytree(SET_UP / "images", state / "images", copy_function=os.link, ignore=shutil.ignore_patterns("unfinished"))
    argv = [LABKIT, "images", "seed", "--storage", state / "registry", "--upstream", "127.0.0.1:9"]
    subprocess.run(argv, env={**os.environ, "LABKIT_STATE": str(state)}, check=True)
    return state


@pytest.fixture
def kept(seeded: Path, state: Path) -> Path:
    """A state directory with the built stand-ins and nothing else."""
    shutil.copytree(seeded / "images", state / "images", copy_function=os.link)
    return state
