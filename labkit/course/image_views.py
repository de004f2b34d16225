"""The verbs of a lab that look into images and into what containers made of them: from what lies on disk alone."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from labkit import show, trace
from labkit.course import examples
from labkit.course.presenting import present
from labkit.course.targets import Target
from labkit.course.volume_views import VolumeViews
from labkit.images import saved
from labkit.images.saved import Saved
from labkit.kernel import upper
from labkit.kernel.upper import PathChange
from labkit.runtimes import docker_images
from labkit.show import View

Image = str | Path
"""The name of an image of docker; or the place of an OCI layout or a saved archive."""


class ImageViews(VolumeViews):
    """What a lab can show of images."""

    module: ModuleType

    def example(self, name: str) -> None:
        """Write the files of an example of this lab below its directory, those that are not there yet, and show them as they are.

        Shell: labkit example LAB NAME

        Raises:
            LabError: the lab has none of this name.
        """
        self.must_be_open()
        present(examples.give(self.directory, examples.find(getattr(self.module, "EXAMPLES", {}), name)))
        trace.record(shlex.join(["labkit", "example", self.id, name]))

    def saved(self, image: Image) -> Saved:
        """Read an image: how it is run, and its history with the layers.

        Shell: docker image save NAME | tar -x

        Raises:
            LabError: there is none.
        """
        with self._on_disk(image) as place:
            return saved.read(place)

    def layers(self, image: Image, *known: Image) -> View:
        """Show which instruction made which layer of an image, its size, and what it adds, changes and removes.

        Shell: docker image save NAME | tar -x; cat manifest.json; tar -tf LAYER

        Args:
            image: what to show.
            known: other images: what is theirs from the beginning on is told in one line, and each layer that one of them has says so.

        Raises:
            LabError: there is none.
        """
        others = {self._called(one): self.saved(one) for one in known}
        return show.layers_view(self._called(image), self.saved(image), others)

    def settings(self, image: Image, below: Image | None = None) -> View:
        """Tabulate what an image says about how a container of it is run.

        Shell: docker image save NAME | tar -x; cat CONFIG

        Args:
            image: what to show.
            below: another image: what it says alike is left out.

        Raises:
            LabError: there is none.
        """
        base = self.saved(below).settings if below else {}
        return show.settings_view(self._called(image), self.saved(image).settings, base)

    def in_image(self, image: Image, path: str) -> bytes | None:
        """Return what a file of an image holds; None where it has none of this path.

        Args:
            image: what to read.
            path: relative to its root.

        Raises:
            LabError: there is none.
        """
        with self._on_disk(image) as place:
            return saved.file(place, path)

    def changes(self, thing: Target) -> View:
        """Show what a container has changed in its root file system: read from the upper layer of its overlay.

        Shell: docker container diff NAME

        Args:
            thing: as for `xray`.

        Raises:
            LabError: nothing is called so, or its root is no overlay.
        """
        _, name, _ = self._read(thing)
        return show.changes_view(name, self.changed(thing))

    def changed(self, thing: Target) -> tuple[PathChange, ...]:
        """Return what `changes` shows."""
        _, _, pid = self._read(thing)
        return upper.changes(pid)

    @contextmanager
    def _on_disk(self, image: Image) -> Iterator[Path]:
        self.must_be_open()
        if isinstance(image, Path):
            yield self.path(image)
            return
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=".image-") as directory:
            yield docker_images.save(image, Path(directory) / "image.tar")

    def _called(self, image: Image) -> str:
        return self.short(str(self.path(image))) if isinstance(image, Path) else image
