"""A web of our own for the tests: small ACIs, signed and published below the names of hosts, and the proxy that serves them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from labkit.appc import aci, publishing, sites
from labkit.appc.fetch import fetch
from labkit.appc.image_manifest import App, Dependency, ImageManifest
from labkit.appc.keystore import Keystore
from labkit.appc.publishing import Publication, Signer
from labkit.appc.store import Store
from labkit.appc.types import ImageID

HOST = "example.com"
TEMPLATE = "https://files.example.com/{name}/{version}/{os}/{arch}/image.{ext}"
KEY = "https://example.com/key.asc"


def manifest(name: str, version: str = "1", **more: object) -> ImageManifest:
    labels = (("version", version), ("os", "linux"), ("arch", "amd64"))
    return ImageManifest(name=name, labels=labels, app=App(("/hello",), "0", "0"), **more)  # type: ignore[arg-type]


def make(file: Path, found: ImageManifest, **files: str) -> Path:
    """Write an ACI with some files."""
    root = file.with_name(f"{file.name}.rootfs")
    root.mkdir()
    for name, text in {"hello": f"{found.name}\n", **files}.items():
        (root / name).write_text(text)
    aci.build(found, root, file, compression="gzip")
    return file


@dataclass
class World:
    """Hosts, a store and trusted keys.

    Attributes:
        place: a directory of its own.
        said: what was said.
    """

    place: Path
    store: Store
    keystore: Keystore
    said: list[str] = field(default_factory=list)

    @property
    def sites(self) -> Path:
        return self.place / "sites"

    def publish(self, found: ImageManifest, by: Signer | None, *, prefix: str = "", template: str = TEMPLATE, **files: str) -> Path:
        number = len(list(self.place.glob("*.aci")))
        file = make(self.place / f"{number}.aci", found, **files)
        return publishing.publish(self.sites, Publication(prefix or found.name, template, KEY), file, by)

    def fetch(self, text: str, *insecure: str, **more: object) -> ImageID:
        return fetch(self.store, self.keystore, text, insecure=frozenset(insecure), say=self.said.append, **more)  # type: ignore[arg-type]

    def trust(self, prefix: str = "") -> None:
        self.keystore.trust((self.sites / "example.com/key.asc").read_bytes(), prefix)


@contextmanager
def served(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sites.Server]:
    """Serve the hosts below `place/sites`, and let this process reach them."""
    certificate, key = place / "sites.crt", place / "sites.key"
    sites.certify(sites.hosts([place / "sites"]), certificate, key)
    with sites.Server([place / "sites"], certificate, key) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{server.address}")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


__all__ = ["Dependency", "World", "make", "manifest", "served"]
