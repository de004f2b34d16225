"""The verbs of a lab for images: thin, each one call of labkit.images with the lab's places filled in."""

from __future__ import annotations

import shlex
from pathlib import Path

from labkit import show, trace
from labkit.course.containers import Containers
from labkit.course.targets import Target, target
from labkit.host.services.places import places
from labkit.images import image, search, stack
from labkit.images.image import ImageParts
from labkit.images.layout import Layout
from labkit.images.reference import Reference
from labkit.kernel import contents
from labkit.kernel.contents import Compared
from labkit.kernel.processes.process import Process
from labkit.kernel.xray import Machine
from labkit.show import View

_OCI = "oci:"
"""Before the name of a directory in place of a registry's, as skopeo has it."""


class Images(Containers):
    """What a lab can do with images: look for them, fetch them, take them apart."""

    def search(self) -> Process:
        """Start the search of the lab's registry that `docker search` and `podman search` ask for, or return the one that runs.

        Shell lines have its address as $INDEX; a terminal of the student's learns it with `. search.env`.

        Shell: python -m labkit.images.search 127.0.0.1:5000 $LAB/search &

        Raises:
            LabError: it does not come up, with the last line of its log.
        """
        self.must_be_open()
        known = self.started.get(search.NAME)
        if known is not None and known.alive:
            return known
        self.started[search.NAME] = process = search.serve(self.directory, places().registry_address)
        return process

    def image(self, name: str) -> ImageParts:
        """Return what an image is made of, from its name down, each part verified by the digest that leads to it.

        Shell: skopeo inspect --raw docker://NAME

        Args:
            name: as docker takes it, asked of the registry now; `oci:LAYOUT:TAG` is one on disk, in the lab's directory.

        Raises:
            UnreachableError: the registry is down.
            RegistryError: it has no such image, or not for us.
            LabError: something is not what its digest says.
        """
        self.must_be_open()
        if name.startswith(_OCI):
            layout, tag = self._layout(name.removeprefix(_OCI))
            return image.in_layout(layout, tag, name)
        reference = Reference.parse(name)
        return image.in_registry(reference.registry(), reference.repository, reference.tag, str(reference))

    def fetch(self, name: str, layout: str) -> ImageParts:
        """Fetch an image of a registry into an OCI layout in the lab's directory, every byte verified; what is there already stays.

        Shell: skopeo copy docker://NAME oci:$LAB/LAYOUT:TAG

        Args:
            name: as docker takes it.
            layout: of the directory.

        Raises:
            UnreachableError: the registry is down.
            RegistryError: it has no such image, or not for us.
            LabError: something is not what its digest says.
        """
        self.must_be_open()
        reference, place = Reference.parse(name), self.path(layout)
        registry = reference.registry()
        found = image.fetch(registry, reference.repository, reference.tag, Layout.create(place))
        source = f"docker://{registry.host}/{reference.repository}:{reference.tag}"
        ours = registry.host == places().registry_address
        how = "--src-tls-verify=false" if ours else "--src-authfile $DOCKER_CONFIG/config.json"
        trace.record(f"skopeo copy --quiet {how} {source} oci:{shlex.quote(str(place))}:{reference.tag}")
        return found

    def unpack(self, layout: str, place: str) -> tuple[str, ...]:
        """Unpack each layer of an image on disk into a directory of its own, for an overlay to stack; return these, the topmost first.

        Shell: mkdir $LAB/PLACE/1; tar -xf $LAB/LAYOUT/blobs/sha256/LAYER -C $LAB/PLACE/1

        Args:
            layout: of the directory with the image, `LAYOUT` or `LAYOUT:TAG`.
            place: of the directory that gets one for each layer; a layer that is there already stays.

        Raises:
            LabError: a layer is not what its digest says.
        """
        self.must_be_open()
        where, tag = self._layout(layout)
        parts, target_place = image.in_layout(where, tag), self.path(place)
        target_place.mkdir(exist_ok=True)
        done = stack.unpack(where, parts, target_place)
        for directory, layer in zip(done, parts.layers, strict=True):
            trace.record(_typed(where.blob(layer.digest), directory))
        return tuple(str(directory.relative_to(self.directory)) for directory in reversed(done))

    def whiteouts(self, layout: str) -> View:
        """Tabulate what each layer of an image on disk takes away from those below, as its tar has it.

        Shell: tar -tf $LAB/LAYOUT/blobs/sha256/LAYER | grep '[.]wh[.]'

        Args:
            layout: of the directory with the image, `LAYOUT` or `LAYOUT:TAG`.
        """
        self.must_be_open()
        where, tag = self._layout(layout)
        layers = enumerate(image.in_layout(where, tag).layers, 1)
        rows = [(f"layer {number}", path) for number, layer in layers for path in stack.whiteouts(where.blob(layer.digest))]
        return show.table(("layer", "takes away"), rows)

    def compare_roots(self, one: Target, other: Target) -> Compared:
        """Compare two root file systems, every name's kind, content, mode, owner and extended attributes.

        What is mounted over one of them is no part of it, and left out.

        Shell: rsync --dry-run -aAX --checksum --delete --itemize-changes $LAB/ONE/ /proc/PID/root/

        Args:
            one: a directory of the lab's, or a container as for `xray`: of this what its first process has as root.
            other: the same.

        Raises:
            LabError: nothing is called so.
        """
        self.must_be_open()
        return contents.compare(self._root(one), self._root(other))

    def _root(self, thing: Target) -> Path:
        if isinstance(thing, str) and self.path(thing).is_dir():
            return self.path(thing)
        return Path(f"/proc/{target(thing, self.started, Machine())[1]}/root")

    def _layout(self, name: str) -> tuple[Layout, str]:
        directory, _, tag = name.partition(":")
        return Layout(self.path(directory)), tag


def _typed(blob: Path, directory: Path) -> str:
    """Return how a layer is unpacked by hand: a whiteout of the tar becomes that of overlayfs."""
    place = shlex.quote(str(directory))
    lines = [f"mkdir -p {place}", f"tar -xf {shlex.quote(str(blob))} -C {place}"]
    for path in stack.whiteouts(blob):
        parent, _, name = path.rpartition("/")
        base = shlex.quote(f"{directory}/{parent}".rstrip("/"))
        lines.append(f"rm {base}/.wh.{shlex.quote(name or '.wh..opq')}")
        lines.append(f"mknod {base}/{shlex.quote(name)} c 0 0" if name else f"setfattr -n trusted.overlay.opaque -v y {base}")
    return "\n".join(lines)
