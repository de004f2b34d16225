"""An ACI as an OCI image: its rendered root as one layer, what its manifest says as a configuration; docker, podman and runc run it.

What OCI images have no word for is named, not lost in silence. See: image-spec config.md, layer.md
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit.appc.docker import ARCHITECTURES
from labkit.appc.image_manifest import App, ImageManifest, Port
from labkit.appc.store import Store
from labkit.appc.types import ImageID
from labkit.errors import LabError
from labkit.images import layer
from labkit.images.layout import Layout
from labkit.images.oci import CONFIG, LAYER_GZIP, MANIFEST, Descriptor, Execution, History, ImageConfig, Manifest, Platform
from labkit.kernel import rooted

LABEL = "appc."
"""How the labels begin that keep what the image was: `appc.name`, `appc.version`."""

_NO_LIMIT = 2**40
"""Later than the time of any file: the times of an ACI are kept as they are."""

_OF_OCI = {aci: oci for oci, aci in ARCHITECTURES.items()}


@dataclass(frozen=True)
class Converted:
    """An OCI image that was written.

    Attributes:
        manifest: what points to its manifest.
        name: by which the layout lists it.
        lost: what the ACI says and an OCI image cannot.
    """

    manifest: Descriptor
    name: str
    lost: tuple[str, ...]


def to_oci(store: Store, key: ImageID, layout: Layout, name: str = "latest") -> Converted:
    """Write an image of the store, with what it stands on, into an OCI layout.

    Shell:
        skopeo copy oci:LAYOUT:NAME docker-daemon:NAME  # afterwards; or podman pull oci:LAYOUT:NAME

    Args:
        store: has the image.
        key: of the image.
        layout: where it goes.
        name: by which it is listed there.

    Raises:
        LabError: a dependency is not in the store; the tree has a device.
    """
    manifest = store.manifest(key)
    root = store.rendered(key)
    created = _created(manifest)
    with TemporaryDirectory(prefix="aci-", dir=layout.path) as work:
        written = layer.write(Path(work, "layer"), root, epoch=_NO_LIMIT)
        packed = layout.adopt(written.path, LAYER_GZIP, written.descriptor.digest)
    when = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = manifest.label("arch") or "amd64"
    config = ImageConfig(
        Platform(_OF_OCI.get(machine, machine), manifest.label("os") or "linux"),
        (written.diff_id,),
        execution(manifest, root),
        (History(f"an ACI: {manifest.name}, {key}", when),),
        when,
    )
    pointer = layout.add(Manifest(layout.add(config.serialize(), CONFIG), (packed,)).serialize(), MANIFEST)
    layout.tag(pointer, name)
    return Converted(pointer, name, lost(manifest.app))


def execution(manifest: ImageManifest, root: Path) -> Execution:
    """Return how an OCI image of an ACI is run.

    Args:
        manifest: of the ACI.
        root: its tree: where a user is named by a file, the owner of this file is meant.
    """
    labels = {f"{LABEL}name": manifest.name, **{f"{LABEL}{label}": value for label, value in manifest.labels}}
    labels |= dict(manifest.annotations)
    app = manifest.app
    if app is None:
        return Execution(labels=labels)
    return Execution(
        entrypoint=app.exec,
        env=tuple(f"{variable}={value}" for variable, value in app.environment),
        user=f"{_owner(app.user, root, group=False)}:{_owner(app.group, root, group=True)}",
        working_dir=app.working_directory,
        exposed_ports=tuple(_exposed(port) for port in app.ports),
        volumes=tuple(point.path for point in app.mount_points),
        labels=labels,
    )


def lost(app: App | None) -> tuple[str, ...]:
    """Return what an app of appc says and the configuration of an OCI image has no word for."""
    if app is None:
        return ()
    said = [f"event handler {each.name}" for each in app.event_handlers]
    said += [f"isolator {each.name}" for each in app.isolators]
    said += [f"read-only mount point {each.name}" for each in app.mount_points if each.read_only]
    said += [f"name of port {each.name}" for each in app.ports]
    said += [f"name of mount point {each.name}" for each in app.mount_points]
    return (*said, *(["supplementary groups"] if app.supplementary_gids else []))


def _exposed(port: Port) -> str:
    last = f"-{port.port + port.count - 1}" if port.count > 1 else ""
    return f"{port.port}{last}/{port.protocol}"


def _owner(name: str, root: Path, *, group: bool) -> str:
    """Return a user or group as OCI has it: where a file is named, the number of who owns it."""
    if not name.startswith("/"):
        return name
    try:
        status = rooted.resolve(root, name).lstat()
    except OSError as error:
        raise LabError(f"app.{'group' if group else 'user'}: {name} is not in the image") from error
    return str(status.st_gid if group else status.st_uid)


def _created(manifest: ImageManifest) -> datetime:
    """Return when an image was made; 1970 where it does not say."""
    told = manifest.annotation("created")
    return datetime.fromisoformat(told).astimezone(UTC) if told else datetime.fromtimestamp(0, UTC)
