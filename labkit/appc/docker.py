"""An image of a docker registry as an ACI: its layers laid over each other in one root, its configuration as an image manifest.

The names of ports and volumes, the labels and the annotations are those that docker2aci gave. See: image-spec config.md, conversion.md
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from labkit.appc import aci
from labkit.appc.image_manifest import App, ImageManifest, MountPoint, Port
from labkit.appc.types import Pairs
from labkit.errors import LabError
from labkit.images import layer
from labkit.images.image import ImageParts, in_registry
from labkit.images.oci import LAYER_ZSTD, Descriptor, Execution
from labkit.images.reference import DOCKER, Reference
from labkit.images.registry import Registry

HUB = "registry-1.docker.io"
"""How docker.io is called in the name of an ACI: the host that docker2aci asked."""

ARCHITECTURES = {"arm64": "aarch64", "386": "i386", "arm": "armv7l"}
"""OCI's name of an architecture to appc's, where they differ."""

ANNOTATION = "appc.io/docker/"
"""How the annotations begin that keep what the image was in its registry."""


def aci_name(reference: Reference) -> str:
    """Return the name that the ACI of an image gets: the registry and the repository, `:` written as `_`."""
    host = HUB if reference.host == DOCKER else reference.host
    return f"{host}/{reference.repository}".replace(":", "_")


def convert(text: str, work: Path, *, say: Callable[[str], object] = str) -> Path:
    """Fetch an image from its registry and write it as an ACI; return the file.

    Shell:
        docker2aci docker://TEXT

    Args:
        text: the image's name, as it is typed behind `docker://`.
        work: an empty directory, for the layers and the root.
        say: told each layer.

    Raises:
        UnreachableError: the registry is down.
        RegistryError: 404, there is no such image; 401, not without an account.
        LabError: a blob is not what its digest says; a layer would leave the root; a field has no place in a manifest of appc.
    """
    reference = Reference.parse(text)
    registry = reference.registry()
    parts = in_registry(registry, reference.repository, reference.tag, str(reference))
    manifest = manifest_of(parts, reference, text)
    root = work / "rootfs"
    root.mkdir(mode=0o755)
    for each in parts.layers:
        _unpack(registry, reference.repository, each, work / "layer", root)
        say(f"Downloading {each.digest[:19]}: {each.size / 1e6:.2f} MB/{each.size / 1e6:.2f} MB")
    file = work / "image.aci"
    aci.build(manifest, root, file, epoch=_newest(root))
    return file


def _newest(root: Path) -> int:
    """Return the time of the newest file: a directory that was changed while it was unpacked is no younger, and the ACI the same again."""
    found = (os.lstat(os.path.join(place, name)).st_mtime for place, _, names in os.walk(root) for name in names)
    return int(max(found, default=0))


def _unpack(registry: Registry, repository: str, descriptor: Descriptor, file: Path, root: Path) -> None:
    if descriptor.media_type == LAYER_ZSTD:
        raise LabError(f"layer {descriptor.digest}: compressed with zstd", cause="tar and gzip are read")
    with file.open("wb") as packed:
        packed.writelines(registry.blob(repository, descriptor))
    with file.open("rb") as packed:
        layer.apply(packed, root)
    file.unlink()


def manifest_of(parts: ImageParts, reference: Reference, text: str) -> ImageManifest:
    """Return the manifest of the ACI of an image.

    Args:
        parts: of the image.
        reference: its name.
        text: its name as it was typed.

    Raises:
        ManifestError: something of it has no place in a manifest of appc.
    """
    found = parts.config.platform
    labels = (("arch", ARCHITECTURES.get(found.architecture, found.architecture)), ("os", found.os), ("version", reference.tag))
    manifest = ImageManifest(
        name=aci_name(reference),
        labels=labels,
        app=_app(parts.config.execution),
        annotations=_annotations(parts, reference, text),
    )
    return ImageManifest.parse(manifest.record())  # every rule is checked


def _app(execution: Execution) -> App | None:
    """Return how the image is run; None where it does not say."""
    words = (*execution.entrypoint, *execution.cmd)
    if not words:
        return None
    user, colon, group = execution.user.partition(":")
    user = user or "0"
    variables = dict(each.partition("=")[::2] for each in execution.env)
    return App(
        exec=words,
        user=user,
        group=group if colon and group else user,  # docker takes the group of /etc/passwd, which appc cannot say
        working_directory=execution.working_dir or "/",
        environment=tuple(variables.items()),
        mount_points=tuple(MountPoint(volume_name(path), path) for path in sorted(execution.volumes)),
        ports=tuple(_port(each) for each in sorted(execution.exposed_ports)),
    )


def volume_name(path: str) -> str:
    """Return what a volume of docker is called among mount points: `volume-var-lib-data`."""
    return "-".join(["volume", *filter(None, re.split(r"[^a-z0-9]+", path.lower()))])


def _port(text: str) -> Port:
    """Read `80/tcp`, `53/udp`, `8000-8010/tcp`, `80`."""
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
        raise LabError(f"exposed port {text!r}: no number of a port")
    return Port(f"{numbers}-{protocol or 'tcp'}", protocol or "tcp", int(first), int(last or first) - int(first) + 1)


def _annotations(parts: ImageParts, reference: Reference, text: str) -> Pairs:
    config = json.loads(parts.config.raw or b"{}")
    execution = parts.config.execution
    author = config.get("author")
    found = {
        "author": author if isinstance(author, str) else "",
        "created": parts.config.created,
        f"{ANNOTATION}originalname": text,
        f"{ANNOTATION}registryurl": HUB if reference.host == DOCKER else reference.host,
        f"{ANNOTATION}repository": reference.repository,
        f"{ANNOTATION}imageid": parts.layers[-1].digest if parts.layers else "",  # of the topmost layer, as docker2aci had it
        f"{ANNOTATION}manifesthash": parts.manifest.digest,
        f"{ANNOTATION}entrypoint": json.dumps(list(execution.entrypoint)) if execution.entrypoint else "",
        f"{ANNOTATION}cmd": json.dumps(list(execution.cmd)) if execution.cmd else "",
    }
    return tuple((name, value) for name, value in found.items() if value)
