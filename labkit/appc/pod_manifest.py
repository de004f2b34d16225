"""The pod manifest: the apps of a pod, the volumes they share, the limits of all of them, the ports that the host hands on.

See:
    appc spec pods.md, "Pod Manifest Schema"
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.appc.app import App, Port, isolators_record, pairs_record, port_record, present, read_port
from labkit.appc.documents import Fields, document
from labkit.appc.image_manifest import read_annotations, read_labels
from labkit.appc.isolator_values import Isolator, isolators
from labkit.appc.types import AC_VERSION, ImageID, Pairs, ac_identifier, ac_name, semver, shown

KIND = "PodManifest"
VERSION = "1.30.0"
"""The last version of rkt: a pod manifest that rkt has made has it in place of the specification's."""

HOST, EMPTY = "host", "empty"

_MODE = re.compile("[0-7]{1,5}")
_LARGEST_ID = 2**32 - 2


@dataclass(frozen=True)
class Volume:
    """Keep what an app writes: in a directory of the host, or in one that goes with the pod.

    Attributes:
        kind: `host` or `empty`.
        source: of kind `host`, the directory on the host.
        recursive: of kind `host`, whether what is mounted below `source` comes with it; None is as True.
        mode: of kind `empty`, the permissions in octal digits; None is as `0755`.
        uid: of kind `empty`, the owner; None is as 0.
        gid: of kind `empty`, the group; None is as 0.
    """

    name: str
    kind: str
    source: str = ""
    read_only: bool = False
    recursive: bool | None = None
    mode: str | None = None
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def read(cls, fields: Fields) -> Volume:
        """Read a volume.

        Raises:
            ManifestError: the first field that breaks a rule.
        """
        name, kind, source = ac_name(fields.text("name"), fields.at("name")), fields.text("kind"), fields.text("source", "")
        if kind not in (HOST, EMPTY):
            fields.refuse("kind", f"must be {HOST} or {EMPTY}, not {shown(kind)}")
        if kind == EMPTY and source:
            fields.refuse("source", "an empty volume has none")
        if kind == HOST and not source.startswith("/"):
            fields.refuse("source", f"must be an absolute path, not {shown(source)}")
        mode = fields.text("mode", "")
        if mode and not _MODE.fullmatch(mode):
            fields.refuse("mode", f"{shown(mode)} are no permissions in octal digits, such as 0755")
        uid, gid = (fields.number(key, 0, _LARGEST_ID, default=0) for key in ("uid", "gid"))
        if kind == EMPTY:
            return cls(name, kind, read_only=fields.flag("readOnly"), mode=mode or "0755", uid=uid, gid=gid)
        recursive = None if fields.value("recursive") is None else fields.flag("recursive")
        return cls(name, kind, source, fields.flag("readOnly"), recursive)

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        told = {"recursive": self.recursive, "mode": self.mode, "uid": self.uid, "gid": self.gid}
        return {
            "name": self.name,
            "kind": self.kind,
            **present("source", self.source),
            **present("readOnly", self.read_only),
            **{key: value for key, value in told.items() if value is not None},
        }


@dataclass(frozen=True)
class Mount:
    """Put a volume into the root of an app.

    Attributes:
        volume: its name.
        path: where in the root.
        app_volume: the volume itself, where it is of this app alone.
    """

    volume: str
    path: str
    app_volume: Volume | None = None


@dataclass(frozen=True)
class ExposedPort:
    """Hand a port of the host on to the pod.

    Attributes:
        name: of a port of one of its apps.
        host_port: the port on the host.
        host_ip: the address on the host; "" for all of them.
        pod_port: the port of the pod, where no app names it.
    """

    name: str
    host_port: int
    host_ip: str = ""
    pod_port: Port | None = None


@dataclass(frozen=True)
class RuntimeApp:
    """Say what one app of a pod is.

    Attributes:
        name: in the pod.
        image_id: the image that it runs in.
        image_name: its name, or "".
        image_labels: its labels.
        app: what takes the place of the image's own `app`.
    """

    name: str
    image_id: ImageID
    image_name: str = ""
    image_labels: Pairs = ()
    app: App | None = None
    read_only_root_fs: bool = False
    mounts: tuple[Mount, ...] = ()
    annotations: Pairs = ()

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it, in the order in which rkt writes it."""
        image = {
            **present("name", self.image_name),
            "id": str(self.image_id),
            **present("labels", pairs_record(self.image_labels)),
        }
        return {
            "name": self.name,
            "image": image,
            **({"app": self.app.record()} if self.app else {}),
            **present("readOnlyRootFS", self.read_only_root_fs),
            **present("mounts", [_mount_record(each) for each in self.mounts]),
            **present("annotations", pairs_record(self.annotations)),
        }


@dataclass(frozen=True)
class PodManifest:
    """Describe a pod."""

    apps: tuple[RuntimeApp, ...]
    volumes: tuple[Volume, ...] = ()
    isolators: tuple[Isolator, ...] = ()
    annotations: Pairs = ()
    ports: tuple[ExposedPort, ...] = ()
    user_annotations: Pairs = ()
    user_labels: Pairs = ()
    ac_version: str = AC_VERSION

    @classmethod
    def parse(cls, data: bytes | Mapping[str, object]) -> PodManifest:
        """Read a manifest and check every rule of the specification.

        Raises:
            ManifestError: the first field that breaks a rule.
        """
        fields = document(data, KIND)
        made = cls(
            ac_version=semver(fields.text("acVersion"), "acVersion"),
            apps=tuple(_runtime_app(each) for each in fields.each("apps")),
            volumes=tuple(Volume.read(each) for each in fields.each("volumes")),
            isolators=isolators(fields, unknown=True),
            annotations=read_annotations(fields),
            ports=tuple(_exposed_port(each) for each in fields.each("ports")),
            user_annotations=fields.mapping("userAnnotations"),
            user_labels=fields.mapping("userLabels"),
        )
        fields.unique("apps", [each.name for each in made.apps])
        fields.unique("volumes", [each.name for each in made.volumes])
        return made

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it, in the order in which rkt writes it; what is empty is null there."""
        return {
            "acVersion": self.ac_version,
            "acKind": KIND,
            "apps": [each.record() for each in self.apps] or None,
            "volumes": [each.record() for each in self.volumes] or None,
            "isolators": isolators_record(self.isolators) or None,
            "annotations": pairs_record(self.annotations) or None,
            "ports": [_exposed_port_record(each) for each in self.ports] or None,
            **present("userAnnotations", dict(self.user_annotations)),
            **present("userLabels", dict(self.user_labels)),
        }

    def app(self, name: str) -> RuntimeApp | None:
        """Return the app of this name."""
        return next((each for each in self.apps if each.name == name), None)

    def volume(self, mount: Mount) -> Volume | None:
        """Return the volume that a mount means; None where the pod has none of this name."""
        return mount.app_volume or next((each for each in self.volumes if each.name == mount.volume), None)


def _runtime_app(fields: Fields) -> RuntimeApp:
    image, app = fields.below("image"), fields.below("app")
    if image is None:
        fields.refuse("image", "is required")
    name = image.text("name", "")
    return RuntimeApp(
        name=ac_name(fields.text("name"), fields.at("name")),
        image_id=ImageID.parse(image.text("id"), image.at("id")),
        image_name=ac_identifier(name, image.at("name")) if name else "",
        image_labels=read_labels(image),
        app=App.read(app) if app else None,
        read_only_root_fs=fields.flag("readOnlyRootFS"),
        mounts=tuple(_mount(each) for each in fields.each("mounts")),
        annotations=read_annotations(fields),
    )


def _mount(fields: Fields) -> Mount:
    own = fields.below("appVolume")
    name = ac_name(fields.text("volume"), fields.at("volume"))
    return Mount(name, fields.text("path"), Volume.read(own) if own else None)


def _mount_record(mount: Mount) -> dict[str, Any]:
    own = {"appVolume": mount.app_volume.record()} if mount.app_volume else {}
    return {"volume": mount.volume, "path": mount.path, **own}


def _exposed_port(fields: Fields) -> ExposedPort:
    address, pod_port = fields.text("hostIP", ""), fields.below("podPort")
    if address:
        try:
            ipaddress.IPv4Address(address)
        except ValueError:
            fields.refuse("hostIP", f"{shown(address)} is no IPv4 address")
    name = ac_name(fields.text("name"), fields.at("name"))
    return ExposedPort(name, fields.number("hostPort", 1, 65535), address, read_port(pod_port) if pod_port else None)


def _exposed_port_record(exposed: ExposedPort) -> dict[str, Any]:
    return {
        "name": exposed.name,
        "hostPort": exposed.host_port,
        **present("hostIP", exposed.host_ip),
        **({"podPort": port_record(exposed.pod_port)} if exposed.pod_port else {}),
    }
