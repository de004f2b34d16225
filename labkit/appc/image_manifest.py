"""The image manifest: what an App Container image is called, what it stands on, and how it is run.

See:
    appc spec aci.md, "Image Manifest Schema"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.appc.app import App, EventHandler, MountPoint, Port, pairs_record, present
from labkit.appc.documents import Fields, document
from labkit.appc.isolator_values import Isolator
from labkit.appc.types import (
    AC_VERSION,
    ImageID,
    ManifestError,
    Pairs,
    ac_identifier,
    date,
    semver,
    shown,
    web_address,
)

__all__ = ["App", "Dependency", "EventHandler", "ImageManifest", "Isolator", "MountPoint", "Port"]

KIND = "ImageManifest"
ARCHITECTURES = {
    "linux": ("amd64", "i386", "aarch64", "aarch64_be", "armv6l", "armv7l", "armv7b", "ppc64", "ppc64le", "s390x"),
    "freebsd": ("amd64", "i386", "arm"),
    "darwin": ("x86_64", "i386"),
}
"""The values that the label `arch` may have, by that of the label `os`."""

_ANNOTATIONS: Mapping[str, Callable[[str, str], str]] = {"created": date, "homepage": web_address, "documentation": web_address}


@dataclass(frozen=True)
class Dependency:
    """Name an image whose files lie below those of another.

    Attributes:
        image_name: its name.
        image_id: which one it must be, or None.
        labels: that it must have.
        size: bytes that its archive must have; 0 where nothing is said.
    """

    image_name: str
    image_id: ImageID | None = None
    labels: Pairs = ()
    size: int = 0


@dataclass(frozen=True)
class ImageManifest:
    """Describe an App Container image."""

    name: str
    labels: Pairs = ()
    app: App | None = None
    dependencies: tuple[Dependency, ...] = ()
    path_whitelist: tuple[str, ...] = ()
    annotations: Pairs = ()
    ac_version: str = AC_VERSION

    @classmethod
    def parse(cls, data: bytes | Mapping[str, object]) -> ImageManifest:
        """Read a manifest and check every rule of the specification.

        Raises:
            ManifestError: the first field that breaks a rule.
        """
        fields = document(data, KIND)
        app = fields.below("app")
        return cls(
            ac_version=semver(fields.text("acVersion"), "acVersion"),
            name=ac_identifier(fields.text("name"), "name"),
            labels=read_labels(fields),
            app=App.read(app) if app else None,
            annotations=read_annotations(fields),
            dependencies=tuple(_dependency(each) for each in fields.each("dependencies")),
            path_whitelist=fields.texts("pathWhitelist"),
        )

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it, in the order in which rkt writes it."""
        return {
            "acKind": KIND,
            "acVersion": self.ac_version,
            "name": self.name,
            **present("labels", pairs_record(self.labels)),
            **({"app": self.app.record()} if self.app else {}),
            **present("annotations", pairs_record(self.annotations)),
            **present("dependencies", [_dependency_record(each) for each in self.dependencies]),
            **present("pathWhitelist", list(self.path_whitelist)),
        }

    def label(self, name: str) -> str | None:
        """Return the value of a label, such as `version`."""
        return dict(self.labels).get(name)

    def annotation(self, name: str) -> str | None:
        """Return the value of an annotation, such as `created`."""
        return dict(self.annotations).get(name)


def read_labels(fields: Fields, key: str = "labels") -> Pairs:
    """Read labels: each name once, none of them `name`, an operating system and an architecture that appc knows.

    Raises:
        ManifestError: the first label that breaks a rule.
    """
    found = tuple((ac_identifier(each.text("name"), each.at("name")), each.text("value", "")) for each in fields.each(key))
    names = [name for name, _ in found]
    fields.unique(key, names)
    if "name" in names:
        raise ManifestError(f"{fields.at(key)}[{names.index('name')}].name", 'no label may be called "name"')
    values = dict(found)
    system, machine = values.get("os"), values.get("arch")
    if system is not None and system not in ARCHITECTURES:
        raise ManifestError(f"{fields.at(key)}[{names.index('os')}].value", f"bad os {shown(system)}: {', '.join(ARCHITECTURES)}")
    if system is not None and machine is not None and machine not in ARCHITECTURES[system]:
        known = ", ".join(ARCHITECTURES[system])
        raise ManifestError(f"{fields.at(key)}[{names.index('arch')}].value", f"bad arch {shown(machine)} for {system}: {known}")
    return found


def read_annotations(fields: Fields, key: str = "annotations") -> Pairs:
    """Read annotations: each name once, and of those that appc defines the value that it asks for.

    Raises:
        ManifestError: the first annotation that breaks a rule.
    """
    found = []
    for each in fields.each(key):
        name, value = ac_identifier(each.text("name"), each.at("name")), each.text("value", "")
        if name in _ANNOTATIONS:
            _ANNOTATIONS[name](value, each.at("value"))
        found.append((name, value))
    fields.unique(key, [name for name, _ in found])
    return tuple(found)


def _dependency(fields: Fields) -> Dependency:
    text = fields.text("imageID", "")
    return Dependency(
        ac_identifier(fields.text("imageName"), fields.at("imageName")),
        ImageID.parse(text, fields.at("imageID")) if text else None,
        read_labels(fields),
        fields.number("size", 0, 2**63 - 1, default=0),
    )


def _dependency_record(dependency: Dependency) -> dict[str, object]:
    return {
        "imageName": dependency.image_name,
        **({"imageID": str(dependency.image_id)} if dependency.image_id else {}),
        **present("labels", pairs_record(dependency.labels)),
        **present("size", dependency.size),
    }
