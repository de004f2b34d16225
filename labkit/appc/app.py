"""The app of an image: the program, who runs it and where, and what it expects of its surroundings.

See:
    appc spec aci.md, "Image Manifest Schema"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from labkit.appc.documents import Fields
from labkit.appc.isolator_values import Isolator, isolators
from labkit.appc.types import Pairs, ac_name, shown

PRE_START, POST_STOP = "pre-start", "post-stop"

_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_LARGEST_ID = 2**32 - 2


@dataclass(frozen=True)
class EventHandler:
    """Run a program before the app starts, or after it stopped.

    Attributes:
        name: `pre-start` or `post-stop`.
        exec: the program and its arguments.
    """

    name: str
    exec: tuple[str, ...]


@dataclass(frozen=True)
class MountPoint:
    """Name a place in the root of the app where a volume is expected."""

    name: str
    path: str
    read_only: bool = False


@dataclass(frozen=True)
class Port:
    """Name a port, or `count` of them from `port` on, on which the app listens."""

    name: str
    protocol: str
    port: int
    count: int = 1
    socket_activated: bool = False


@dataclass(frozen=True)
class App:
    """Say how an image is run.

    Attributes:
        exec: the program and its arguments; empty where whoever runs it must say what.
        user: a name, a number, or the path of a file whose owner is meant.
        group: likewise.
        environment: names and values, in their order.
    """

    exec: tuple[str, ...]
    user: str
    group: str
    supplementary_gids: tuple[int, ...] = ()
    working_directory: str = ""
    environment: Pairs = ()
    event_handlers: tuple[EventHandler, ...] = ()
    mount_points: tuple[MountPoint, ...] = ()
    ports: tuple[Port, ...] = ()
    isolators: tuple[Isolator, ...] = ()
    user_annotations: Pairs = ()
    user_labels: Pairs = ()

    @classmethod
    def read(cls, fields: Fields) -> App:
        """Read the `app` of an image manifest or of a pod's.

        Raises:
            ManifestError: the first field that breaks a rule.
        """
        directory = fields.text("workingDirectory", "")
        if directory and not directory.startswith("/"):
            fields.refuse("workingDirectory", f"must be an absolute path, not {shown(directory)}")
        return cls(
            exec=fields.texts("exec"),
            user=fields.text("user"),
            group=fields.text("group"),
            supplementary_gids=fields.numbers("supplementaryGIDs", 0, _LARGEST_ID),
            working_directory=directory,
            environment=_environment(fields),
            event_handlers=_event_handlers(fields),
            mount_points=_mount_points(fields),
            ports=_ports(fields),
            isolators=isolators(fields),
            user_annotations=fields.mapping("userAnnotations"),
            user_labels=fields.mapping("userLabels"),
        )

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it, in the order in which rkt writes it."""
        return {
            "exec": list(self.exec) or None,
            **present("eventHandlers", [{"name": each.name, "exec": list(each.exec) or None} for each in self.event_handlers]),
            "user": self.user,
            "group": self.group,
            **present("supplementaryGIDs", list(self.supplementary_gids)),
            **present("workingDirectory", self.working_directory),
            **present("environment", pairs_record(self.environment)),
            **present("mountPoints", [_mount_point_record(each) for each in self.mount_points]),
            **present("ports", [port_record(each) for each in self.ports]),
            **present("isolators", isolators_record(self.isolators)),
            **present("userAnnotations", dict(self.user_annotations)),
            **present("userLabels", dict(self.user_labels)),
        }


def present(key: str, value: object) -> dict[str, Any]:
    """Return a field as a document has it: not at all where it is empty."""
    return {key: value} if value else {}


def pairs_record(pairs: Pairs) -> list[dict[str, str]]:
    """Return labels, annotations or environment as JSON has them."""
    return [{"name": name, "value": value} for name, value in pairs]


def isolators_record(found: tuple[Isolator, ...]) -> list[dict[str, object]]:
    """Return isolators as JSON has them."""
    return [{"name": each.name, "value": each.value} for each in found]


def port_record(port: Port) -> dict[str, object]:
    """Return a port as JSON has it."""
    named = {"name": port.name, "protocol": port.protocol, "port": port.port}
    return {**named, "count": port.count, "socketActivated": port.socket_activated}


def read_port(fields: Fields) -> Port:
    """Read a port; a count of 0 is one that is not set.

    Raises:
        ManifestError: the first field that breaks a rule.
    """
    first = fields.number("port", 1, 65535)
    count = fields.number("count", 0, 65535, default=1) or 1
    if first + count - 1 > 65535:
        fields.refuse("count", f"{count} ports from {first} on end above 65535")
    name = ac_name(fields.text("name"), fields.at("name"))
    return Port(name, fields.text("protocol"), first, count, fields.flag("socketActivated"))


def _environment(fields: Fields) -> Pairs:
    found = []
    for each in fields.each("environment"):
        name = each.text("name")
        if not _VARIABLE.fullmatch(name):
            each.refuse("name", f"{shown(name)} is no name of a variable: letters, digits and underscores")
        found.append((name, each.text("value", "")))
    fields.unique("environment", [name for name, _ in found])
    return tuple(found)


def _event_handlers(fields: Fields) -> tuple[EventHandler, ...]:
    found = []
    for each in fields.each("eventHandlers"):
        name = each.text("name")
        if name not in (PRE_START, POST_STOP):
            each.refuse("name", f"must be {PRE_START} or {POST_STOP}, not {shown(name)}")
        found.append(EventHandler(name, each.texts("exec")))
    fields.unique("eventHandlers", [each.name for each in found])
    return tuple(found)


def _mount_points(fields: Fields) -> tuple[MountPoint, ...]:
    return tuple(
        MountPoint(ac_name(each.text("name"), each.at("name")), each.text("path"), each.flag("readOnly"))
        for each in fields.each("mountPoints")
    )


def _mount_point_record(point: MountPoint) -> dict[str, object]:
    return {"name": point.name, "path": point.path, **present("readOnly", point.read_only)}


def _ports(fields: Fields) -> tuple[Port, ...]:
    return tuple(read_port(each) for each in fields.each("ports"))
