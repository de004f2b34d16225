"""What an image is made of, named as the OCI image specification names it: descriptor, index, manifest, configuration.

What was parsed is serialized byte for byte as it was read: the digest of these bytes is the object's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import LabError, Problem, SpecificationError

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = f"{LAYER}+gzip"
LAYER_ZSTD = f"{LAYER}+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEXES = (INDEX, DOCKER_INDEX)
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
LARGEST_DOCUMENT = 4 * 2**20
"""Bytes of a manifest, index or configuration at the most: what the distribution specification asks a registry to take."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def digest_of(data: bytes) -> str:
    """Return the name of these bytes: `sha256:` and 64 hexadecimal digits.

    Shell:
        sha256sum FILE
    """
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    """Tell whether `text` is a digest of a registered algorithm; such a text is also safe as the name of a file."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True)
class Platform:
    """Say on what machine an image runs.

    See:
        image-spec image-index.md
    """

    architecture: str
    os: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True)
class Descriptor:
    """Point to a blob or manifest by its digest.

    See:
        image-spec descriptor.md
    """

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None


@dataclass(frozen=True)
class Index:
    """List the manifests of one image, one for each platform.

    See:
        image-spec image-index.md
    """

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = INDEX
    raw: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, data: bytes) -> Index:
        """Read an index, OCI's or Docker's manifest list.

        Raises:
            LabError: the first field that breaks the specification, with the clause.
        """
        fields = _document(data, "index", "image-index.md")
        fields.schema_version()
        manifests = tuple(_descriptor(each) for each in fields.objects("manifests", required=True))
        return cls(manifests, fields.strings("annotations"), fields.text("mediaType", INDEX), raw=data)

    def serialize(self) -> bytes:
        """Return its bytes: those that were parsed, or new ones."""
        record = {"schemaVersion": 2, "mediaType": self.media_type, "manifests": [_record(each) for each in self.manifests]}
        return _serialized(self.raw, record, self.annotations)

    def for_platform(self, architecture: str) -> Descriptor:
        """Return the manifest for Linux on `architecture` (amd64, arm64, ...); the first, where several fit.

        Raises:
            LabError: the image has none, with those it has.
        """
        for each in self.manifests:
            if each.platform and (each.platform.os, each.platform.architecture) == ("linux", architecture):
                return each
        has = ", ".join(sorted({str(each.platform) for each in self.manifests if each.platform})) or "none"
        raise LabError(f"the image has no manifest for linux/{architecture}", cause=f"its platforms are {has}")


@dataclass(frozen=True)
class Manifest:
    """Name the configuration and the layers of an image, the lowest first.

    See:
        image-spec manifest.md
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_type: str = MANIFEST
    raw: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest, OCI's or Docker's of schema 2.

        Raises:
            LabError: the first field that breaks the specification, with the clause.
        """
        fields = _document(data, "manifest", "manifest.md")
        fields.schema_version()
        config = _descriptor(fields.object("config"))
        layers = tuple(_descriptor(each) for each in fields.objects("layers", required=True))
        return cls(config, layers, fields.strings("annotations"), fields.text("mediaType", MANIFEST), raw=data)

    def serialize(self) -> bytes:
        """Return its bytes: those that were parsed, or new ones."""
        record = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": _record(self.config),
            "layers": [_record(each) for each in self.layers],
        }
        return _serialized(self.raw, record, self.annotations)

    def size(self) -> int:
        """Return the bytes that a registry keeps for it: configuration and layers."""
        return self.config.size + sum(layer.size for layer in self.layers)


@dataclass(frozen=True)
class Execution:
    """Say how a container of the image is run: the `config` of the image's configuration.

    See:
        image-spec config.md
    """

    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """Say which instruction made a layer, or, with `empty_layer`, changed only the configuration."""

    created_by: str
    created: str = ""
    empty_layer: bool = False
    comment: str = ""


@dataclass(frozen=True)
class ImageConfig:
    """Describe the image: its platform, how it is run, its layers by the digest of the uncompressed tar.

    See:
        image-spec config.md
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    execution: Execution = Execution()
    history: tuple[History, ...] = ()
    created: str = ""
    raw: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """Read a configuration.

        Raises:
            LabError: the first field that breaks the specification, with the clause.
        """
        fields = _document(data, "configuration", "config.md")
        rootfs = fields.object("rootfs")
        if rootfs.text("type") != "layers":
            raise rootfs.error("type", "must be layers")
        diff_ids = rootfs.texts("diff_ids", required=True)
        for diff_id in diff_ids:
            if not is_digest(diff_id):
                raise rootfs.error("diff_ids", f"{diff_id!r} is no digest")
        return cls(
            Platform(fields.text("architecture"), fields.text("os"), fields.text("variant", "")),
            diff_ids,
            _execution(fields.object("config", required=False)),
            tuple(_history(each) for each in fields.objects("history")),
            fields.text("created", ""),
            raw=data,
        )

    def serialize(self) -> bytes:
        """Return its bytes: those that were parsed, or new ones."""
        record = {
            "created": self.created or None,
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "variant": self.platform.variant or None,
            "config": _execution_record(self.execution),
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "history": [_without_empty(vars(each)) for each in self.history],
        }
        return _serialized(self.raw, _without_empty(record), {})


class _Fields:
    """The fields of one JSON object, and the errors that name them."""

    def __init__(self, values: Mapping[str, Any], where: str, clause: str) -> None:
        self._values, self._where, self._clause = values, where, clause

    def error(self, name: str, what: str) -> SpecificationError:
        return SpecificationError(Problem(f"{self._where}.{name}", what, f"image-spec {self._clause} asks for it"))

    def schema_version(self) -> None:
        if self._values.get("schemaVersion") != 2:
            raise self.error("schemaVersion", f"must be 2, not {self._values.get('schemaVersion')!r}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not (value or default is not None):
            raise self.error(name, "must be a text" if name in self._values else "is missing")
        return value

    def size(self) -> int:
        value = self._values.get("size")
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error("size", "must be a number of bytes" if "size" in self._values else "is missing")
        return value

    def texts(self, name: str, *, required: bool = False) -> tuple[str, ...]:
        return tuple(self._list(name, str, "texts", required=required))

    def objects(self, name: str, *, required: bool = False) -> list[_Fields]:
        values = self._list(name, dict, "objects", required=required)
        return [_Fields(value, f"{self._where}.{name}[{number}]", self._clause) for number, value in enumerate(values)]

    def object(self, name: str, *, required: bool = True) -> _Fields:
        value = self._values.get(name)
        if value is None and not required:
            value = {}
        if not isinstance(value, dict):
            raise self.error(name, "must be an object" if name in self._values else "is missing")
        return _Fields(value, f"{self._where}.{name}", self._clause)

    def strings(self, name: str) -> dict[str, str]:
        values = self.object(name, required=False)._values
        if not all(isinstance(value, str) for value in values.values()):
            raise self.error(name, "must hold texts only")
        return dict(values)

    def keys(self, name: str) -> tuple[str, ...]:
        return tuple(self.object(name, required=False)._values)

    def flag(self, name: str) -> bool:
        return self._values.get(name) is True

    def _list(self, name: str, kind: type, words: str, *, required: bool) -> list[Any]:
        value = self._values.get(name)
        if value is None and not required:
            return []
        if not isinstance(value, list) or not all(isinstance(each, kind) for each in value):
            raise self.error(name, f"must be a list of {words}" if name in self._values else "is missing")
        return value


def _document(data: bytes, where: str, clause: str) -> _Fields:
    if len(data) > LARGEST_DOCUMENT:
        raise LabError(f"{where}: {len(data)} bytes", cause=f"more than {LARGEST_DOCUMENT}, the most that a registry takes")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LabError(f"{where}: not JSON", cause=str(error)) from error
    if not isinstance(values, dict):
        raise SpecificationError(Problem(where, "must be a JSON object", f"image-spec {clause} asks for it"))
    return _Fields(values, where, clause)


def _descriptor(fields: _Fields) -> Descriptor:
    digest = fields.text("digest")
    if not is_digest(digest):
        raise fields.error("digest", f"{digest!r} is no digest (sha256: and 64 hexadecimal digits)")
    platform = fields.object("platform", required=False) if fields.keys("platform") else None
    return Descriptor(
        fields.text("mediaType"),
        digest,
        fields.size(),
        fields.strings("annotations"),
        Platform(platform.text("architecture"), platform.text("os"), platform.text("variant", "")) if platform else None,
    )


def _execution(fields: _Fields) -> Execution:
    return Execution(
        cmd=fields.texts("Cmd"),
        entrypoint=fields.texts("Entrypoint"),
        env=fields.texts("Env"),
        user=fields.text("User", ""),
        working_dir=fields.text("WorkingDir", ""),
        exposed_ports=fields.keys("ExposedPorts"),
        volumes=fields.keys("Volumes"),
        stop_signal=fields.text("StopSignal", ""),
        labels=fields.strings("Labels"),
    )


def _history(fields: _Fields) -> History:
    return History(fields.text("created_by", ""), fields.text("created", ""), fields.flag("empty_layer"), fields.text("comment", ""))


def _execution_record(execution: Execution) -> dict[str, Any]:
    record = {
        "User": execution.user,
        "ExposedPorts": {port: {} for port in execution.exposed_ports},
        "Env": list(execution.env),
        "Entrypoint": list(execution.entrypoint),
        "Cmd": list(execution.cmd),
        "Volumes": {volume: {} for volume in execution.volumes},
        "WorkingDir": execution.working_dir,
        "Labels": dict(execution.labels),
        "StopSignal": execution.stop_signal,
    }
    return _without_empty(record)


def _record(descriptor: Descriptor) -> dict[str, Any]:
    record: dict[str, Any] = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
    if descriptor.platform:
        record["platform"] = _without_empty(vars(descriptor.platform))
    if descriptor.annotations:
        record["annotations"] = dict(descriptor.annotations)
    return record


def _without_empty(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value not in ("", None, False, [], {})}


def _serialized(raw: bytes | None, record: dict[str, Any], annotations: Mapping[str, str]) -> bytes:
    if raw is not None:
        return raw
    whole = {**record, "annotations": dict(annotations)} if annotations else record
    return json.dumps(whole, separators=(",", ":"), sort_keys=True).encode()
