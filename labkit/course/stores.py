"""The verbs of a lab for the store of podman on its disk."""

from __future__ import annotations

from labkit import show
from labkit.course.images import Images
from labkit.images.storage import Storage, StoredImage
from labkit.runtimes import podman_store
from labkit.show import View

_SHORT = 12


class Stores(Images):
    """What a lab can tell of its podman's store."""

    def storage(self) -> Storage:
        """Return the store in which the lab's podman keeps images: what is asked of it is read from its files now."""
        return Storage(podman_store.graph(self.directory))

    def stored(self) -> View:
        """Tabulate the layers on disk: the directory of each, the digest of its content, and who stands on it.

        Shell: jq . $LAB/storage/overlay-images/images.json $LAB/storage/overlay-layers/layers.json
        """
        store = self.storage()
        images = [(_called(image), {layer.id for layer in store.chain(image)}) for image in store.images()]
        rows = []
        for layer in store.layers():
            above = sorted(name for name, chain in images if layer.id in chain)
            digest = layer.digest.partition(":")[2][:_SHORT]
            rows.append((f"overlay/{layer.id[:_SHORT]}…", digest or "its own files", ", ".join(above) or "a container"))
        return show.table(("directory", "content", "who stands on it"), rows)


def _called(image: StoredImage) -> str:
    return ", ".join(name.removeprefix("docker.io/library/").removesuffix(":latest") for name in image.names) or "an image without a name"
