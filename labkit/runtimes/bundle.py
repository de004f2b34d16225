"""An OCI bundle: a directory with `config.json`, which says how a container is to be run, and mostly its root file system.

The records below are named as the OCI runtime specification names them; what they do not know is kept and written back.
See: runtime-spec bundle.md, config.md, config-linux.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from labkit.errors import LabError, SpecificationError

CONFIG = "config.json"
_SPELT = {"container_id": "containerID", "host_id": "hostID"}
"""The names of config.json that do not follow from those of the records."""


@dataclass(frozen=True)
class User:
    """Who the process is inside: runtime-spec config.md, User."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Capabilities:
    """The five sets of capabilities(7)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rlimit:
    """One limit of getrlimit(2), such as RLIMIT_NOFILE."""

    type: str
    soft: int
    hard: int
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    """The first process of the container: runtime-spec config.md, Process."""

    args: tuple[str, ...] = ()
    cwd: str = "/"
    env: tuple[str, ...] = ()
    user: User = User()
    terminal: bool = False
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Root:
    """The root file system: a path, absolute or from the bundle's directory."""

    path: str
    readonly: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mount:
    """One mount, in the order in which they are made."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hook:
    """A program that the runtime runs at a point of the life cycle; it reads the container's state on its standard input."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hooks:
    """The six points of the life cycle at which hooks run: runtime-spec config.md, POSIX-platform Hooks."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Namespace:
    """A namespace to make, or with a path to enter."""

    type: str
    path: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IdMapping:
    """A range of ids inside and the one outside that it stands for: user_namespaces(7)."""

    container_id: int
    host_id: int
    size: int
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Linux:
    """What only Linux has: runtime-spec config-linux.md."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    cgroups_path: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    seccomp: Mapping[str, Any] = field(default_factory=dict)
    sysctl: Mapping[str, str] = field(default_factory=dict)
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """The whole of config.json."""

    oci_version: str = "1.0.2"
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    linux: Linux | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Config:
        """Return the configuration that a JSON object describes.

        Raises:
            SpecificationError: the first field that breaks the specification, with the clause.
        """
        from labkit.runtimes import conformance

        for problem in conformance.validate(record):
            raise SpecificationError(problem)
        parsed: Config = _parsed(cls, record)
        return parsed

    def record(self) -> dict[str, Any]:
        """Return it as a JSON object, without what is empty."""
        return _record(self)


def load(bundle: Path) -> dict[str, Any]:
    """Return the JSON object in a bundle's config.json, whatever it says.

    Raises:
        LabError: there is none.
    """
    file = bundle / CONFIG
    try:
        record = json.loads(file.read_bytes())
    except OSError as error:
        raise LabError(f"{bundle} is no OCI bundle", cause=f"{file}: {error.strerror}", remedy="runc spec writes one") from error
    except (ValueError, RecursionError) as error:
        raise LabError(f"{file}: not JSON", cause=str(error)) from error
    if not isinstance(record, dict):
        raise LabError(f"{file}: must be a JSON object", cause="runtime-spec config.md asks for it")
    return record


def read(bundle: Path) -> Config:
    """Return what a bundle's config.json says.

    Raises:
        LabError: there is none, or it breaks the specification.
    """
    return Config.parse(load(bundle))


def write(bundle: Path, config: Config) -> None:
    """Write config.json of a bundle, in place of the one that is there."""
    partial = bundle / f"{CONFIG}.partial"
    partial.write_text(json.dumps(config.record(), indent=4) + "\n")
    partial.rename(bundle / CONFIG)


def rootfs(bundle: Path, config: Config) -> Path | None:
    """Return where the root file system of a bundle lies."""
    return bundle / config.root.path if config.root else None


def _parsed(cls: Any, record: Mapping[str, Any]) -> Any:
    known = _kinds(cls)
    values = {name: _value(kind, record[spelt]) for name, (spelt, kind) in known.items() if record.get(spelt) is not None}
    spellings = {spelt for spelt, _ in known.values()}
    return cls(**values, more={name: value for name, value in record.items() if name not in spellings})


def _value(kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        return tuple(_value(get_args(kind)[0], each) for each in value)
    return _parsed(kind, value) if is_dataclass(kind) else value


def _record(of: Any) -> dict[str, Any]:
    cls: Any = type(of)
    values = {spelt: _plain(getattr(of, name)) for name, (spelt, _) in _kinds(cls).items()}
    return {**{name: value for name, value in values.items() if value or type(value) is int}, **of.more}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return _record(value) if is_dataclass(value) else value


@cache
def _kinds(cls: Any) -> dict[str, tuple[str, Any]]:
    """Return the fields of a record: name to its name in JSON and its type."""
    hints = get_type_hints(cls)
    names = [one.name for one in fields(cls) if one.name != "more"]
    return {name: (_SPELT.get(name) or re.sub("_(.)", lambda at: at[1].upper(), name), _bare(hints[name])) for name in names}


def _bare(kind: Any) -> Any:
    """Return the type without the `| None`."""
    if get_origin(kind) in (Union, UnionType):
        return next(one for one in get_args(kind) if one is not type(None))
    return kind
