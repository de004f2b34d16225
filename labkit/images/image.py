"""An image from its name down: index, manifest, configuration, layers; each is taken only if it has the digest that leads to it.

See:
    image-spec spec.md, "Understanding the Specification"; distribution-spec, "Pull"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labkit.errors import LabError
from labkit.images.debian import architecture
from labkit.images.layout import Layout
from labkit.images.oci import INDEX, INDEXES, MANIFESTS, Descriptor, ImageConfig, Index, Manifest, digest_of
from labkit.images.registry import Registry


@dataclass(frozen=True)
class ImageParts:
    """What an image is made of.

    Attributes:
        name: by which it was asked for.
        index: what points to the index; None where the name points to the manifest at once.
        listed: the manifests that the index lists.
        manifest: what points to the manifest.
        config_descriptor: what points to the configuration.
        config: the configuration.
        layers: what points to the layers, the lowest first.
    """

    name: str
    index: Descriptor | None
    listed: tuple[Descriptor, ...]
    manifest: Descriptor
    config_descriptor: Descriptor
    config: ImageConfig
    layers: tuple[Descriptor, ...]

    @property
    def digest(self) -> str:
        """What the name points to: the digest that engines show."""
        return (self.index or self.manifest).digest


def in_registry(registry: Registry, repository: str, tag: str, name: str = "") -> ImageParts:
    """Return the parts of an image of a registry, for this machine where it has several; its layers are not fetched.

    Args:
        registry: where it is.
        repository: its name there.
        tag: or digest.
        name: how it is called; that of registry and repository by default.

    Raises:
        UnreachableError: the registry is down.
        RegistryError: 404, there is no such image; 401, not without an account.
        LabError: something is not what its digest says.
    """
    descriptor, data = registry.manifest(repository, tag)
    index: Descriptor | None = None
    listed: tuple[Descriptor, ...] = ()
    if descriptor.media_type in INDEXES:
        index, listed = descriptor, Index.parse(data).manifests
        descriptor, data = registry.manifest(repository, Index.parse(data).for_platform(architecture()).digest)
    called = name or f"{registry.host}/{repository}:{tag}"
    return _parts(called, index, listed, descriptor, data, lambda blob: registry.read(repository, blob))


def in_layout(layout: Layout, ref_name: str = "", name: str = "") -> ImageParts:
    """Return the parts of an image of an OCI layout on disk; its `index.json` is the index.

    Args:
        layout: where it is.
        ref_name: its name there; "" where the layout has one image.
        name: how it is called; that of the directory by default.

    Raises:
        LabError: there is none, or several; something is not what its digest says.
    """
    index = layout.index()
    if ref_name:
        descriptor = layout.find(ref_name)
    elif len(index.manifests) == 1:
        descriptor = index.manifests[0]
    else:
        raise LabError(f"{layout.path} has {len(index.manifests)} images", remedy="name one of them")
    if descriptor.media_type not in MANIFESTS:
        raise LabError(f"{layout.path}: {descriptor.digest} is no manifest", cause=f"its media type is {descriptor.media_type}")
    file = index.serialize()
    pointer = Descriptor(INDEX, digest_of(file), len(file))
    return _parts(name or str(layout.path), pointer, index.manifests, descriptor, layout.read(descriptor), layout.read)


def _parts(
    name: str,
    index: Descriptor | None,
    listed: tuple[Descriptor, ...],
    descriptor: Descriptor,
    data: bytes,
    read: Callable[[Descriptor], bytes],
) -> ImageParts:
    manifest = Manifest.parse(data)
    config = ImageConfig.parse(read(manifest.config))
    return ImageParts(name, index, listed, descriptor, manifest.config, config, manifest.layers)


def fetch(registry: Registry, repository: str, tag: str, layout: Layout) -> ImageParts:
    """Fetch an image into a layout on disk, every byte verified, and name it there by its tag.

    Shell:
        skopeo copy docker://REGISTRY/REPOSITORY:TAG oci:LAYOUT:TAG

    Raises:
        UnreachableError: the registry is down.
        RegistryError: 404, there is no such image.
        LabError: something is not what its digest says; the layout does not list the image then.
    """
    found = in_registry(registry, repository, tag)
    for each in (found.config_descriptor, *found.layers):
        layout.take(registry.blob(repository, each), each)
    _, data = registry.manifest(repository, found.manifest.digest)
    layout.tag(layout.add(data, found.manifest.media_type), tag)
    return found
