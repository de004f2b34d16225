"""What podman, buildah and CRI-O keep on disk: images, and the layers below them, each layer once for all who stand on it.

Two files name them, `overlay-images/images.json` and `overlay-layers/layers.json`; what is in a layer lies in `overlay/ID/diff`.
No engine is asked. See: containers-storage.conf(5)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabError


@dataclass(frozen=True)
class StoredImage:
    """One image.

    Attributes:
        id: the digest of its configuration, without `sha256:`.
        names: those that it has now, as `docker.io/library/nginx:latest`; none where it is dangling.
        history: every name that it ever had here.
        digest: of its manifest.
        layer: the id of its topmost layer; "" where it has none.
    """

    id: str
    names: tuple[str, ...]
    history: tuple[str, ...]
    digest: str
    layer: str


@dataclass(frozen=True)
class StoredLayer:
    """One layer.

    Attributes:
        id: the name of its directory.
        parent: the layer that it stands on; "" for the lowest.
        digest: of its content as a tar archive, as the configuration of an image has it; "" for that of a container.
        blob: of the archive as it came, compressed, as a registry has it; "" where it did not come from one.
        size: bytes of its content.
    """

    id: str
    parent: str
    digest: str
    blob: str
    size: int


class Storage:
    """One store, read anew each time.

    Args:
        path: its directory, the `graphroot`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def images(self) -> tuple[StoredImage, ...]:
        """Return the images, in the order in which they came.

        Raises:
            LabError: the file that lists them cannot be read.
        """
        return tuple(
            StoredImage(one["id"], _texts(one, "names"), _texts(one, "names-history"), one.get("digest", ""), one.get("layer", ""))
            for one in self._listed("overlay-images/images.json")
        )

    def image(self, name: str) -> StoredImage | None:
        """Return the image of a name: `nginx` is `docker.io/library/nginx:latest`."""
        full = full_name(name)
        return next((one for one in self.images() if full in one.names), None)

    def layers(self) -> tuple[StoredLayer, ...]:
        """Return the layers, those of containers among them.

        Raises:
            LabError: the file that lists them cannot be read.
        """
        return tuple(
            StoredLayer(
                one["id"], one.get("parent", ""), one.get("diff-digest", ""), one.get("compressed-diff-digest", ""), one.get("diff-size", 0)
            )
            for one in self._listed("overlay-layers/layers.json")
        )

    def chain(self, image: StoredImage) -> tuple[StoredLayer, ...]:
        """Return the layers of an image, the lowest first."""
        known = {one.id: one for one in self.layers()}
        return tuple(reversed(list(_down(image.layer, known))))

    def directory(self, layer: StoredLayer) -> Path:
        """Return where the content of a layer lies."""
        return self.path / "overlay" / layer.id / "diff"

    def _listed(self, file: str) -> list[dict[str, Any]]:
        try:
            found = json.loads((self.path / file).read_text())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise LabError(f"{self.path / file} cannot be read", cause=str(error)) from error
        return list(found or ())


def full_name(name: str) -> str:
    """Return a name with all that is left out where it is typed: registry, `library/` and tag."""
    host, slash, _ = name.partition("/")
    has_host = bool(slash) and (host == "localhost" or "." in host or ":" in host)
    path = name if has_host else f"docker.io/{name}" if slash else f"docker.io/library/{name}"
    return path if ":" in path.rpartition("/")[2] else f"{path}:latest"


def _down(layer: str, known: dict[str, StoredLayer]) -> Iterator[StoredLayer]:
    while layer in known:
        yield known[layer]
        layer = known[layer].parent


def _texts(record: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(record.get(key) or ())
