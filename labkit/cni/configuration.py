"""Network configurations: one plugin (*.conf) or a chain of them (*.conflist), and what each plugin of a chain is told.

See: CNI specification 1.0.0, section 1 (configuration format), section 3 (deriving execution configuration)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cni import versions
from labkit.errors import LabError

SUFFIXES = (".conf", ".conflist", ".json")
"""How the files of a directory of networks end; others are passed over."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}")  # it becomes part of the names of files
_MOST_BYTES = 1 << 20


class ConfigurationError(LabError):
    """Refuse a network configuration, the field named.

    Args:
        source: the file, or "".
        field: such as "plugins[1].type"; "" for the whole.
        message: what is wrong with it.
    """

    def __init__(self, source: str, field: str, message: str) -> None:
        super().__init__(": ".join(part for part in (source, field, message) if part))
        self.source = source
        self.field = field


@dataclass(frozen=True)
class Network:
    """A network to which containers can be attached.

    Attributes:
        name: of the network.
        cni_version: the version in which the plugins are spoken to.
        plugins: the configuration of each plugin, in the order in which they are called, as written.
        disable_check: whether it asks not to be checked.
        path: the file that it was read from, or None.
    """

    name: str
    cni_version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    path: Path | None = None

    @classmethod
    def parse(cls, text: str | bytes, path: Path | None = None) -> Network:
        """Read a configuration; one of a single plugin becomes a chain of one.

        Args:
            text: JSON.
            path: where it is from: named in errors.

        Raises:
            ConfigurationError: it is no JSON, or breaks the specification.
        """
        source = str(path) if path else ""
        document = _document(text, source)
        name = document.get("name", "")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                source, "name", f"{name!r} is no name of a network: a letter or digit, then at most 99 of those and _ . -"
            )
        version = document.get("cniVersion") or versions.UNSAID
        if version not in versions.KNOWN:
            raise ConfigurationError(source, "cniVersion", f"{version!r} is not among {', '.join(versions.KNOWN)}")
        if "plugins" in document:
            plugins, fields = document["plugins"], "plugins[{}]."
            if not isinstance(plugins, list) or not plugins:
                raise ConfigurationError(source, "plugins", "must be a list with at least one plugin")
        else:
            plugins, fields = [document], ""
        for place, plugin in enumerate(plugins):
            _check_plugin(plugin, source, fields.format(place))
        return cls(name, version, tuple(plugins), document.get("disableCheck") is True, path)

    @classmethod
    def load(cls, path: Path) -> Network:
        """Read a configuration from its file.

        Raises:
            ConfigurationError: it cannot be read, or as `parse`.
        """
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(str(path), "", error.strerror or str(error)) from error
        if len(text) > _MOST_BYTES:
            raise ConfigurationError(str(path), "", f"is longer than {_MOST_BYTES} bytes")
        return cls.parse(text, path)

    def execution(
        self,
        place: int,
        capabilities: Mapping[str, Any],
        previous: Mapping[str, Any] | None = None,
        leases: Path | None = None,
    ) -> dict[str, Any]:
        """Return what one plugin of the chain gets on its standard input.

        Args:
            place: of the plugin in `plugins`.
            capabilities: by name, what the caller has for plugins that declare it (such as "portMappings").
            previous: the result of the plugin before it, or None.
            leases: the directory in which host-local keeps its addresses, where the configuration names none.
        """
        plugin = self.plugins[place]
        told = {key: value for key, value in plugin.items() if key not in ("capabilities", "runtimeConfig", "prevResult", "plugins")}
        told |= {"cniVersion": self.cni_version, "name": self.name}
        declared = plugin.get("capabilities") or {}
        wanted = {key: value for key, value in capabilities.items() if declared.get(key) is True}
        if wanted:
            told["runtimeConfig"] = wanted
        if previous is not None and versions.has_chains(self.cni_version):
            told["prevResult"] = dict(previous)
        ipam = plugin.get("ipam")
        if leases is not None and isinstance(ipam, dict) and ipam.get("type") == "host-local":
            told["ipam"] = {"dataDir": str(leases)} | ipam
        return told

    def record(self) -> dict[str, Any]:
        """Return it as the document of a chain."""
        return {
            "cniVersion": self.cni_version,
            "name": self.name,
            **({"disableCheck": True} if self.disable_check else {}),
            "plugins": [dict(plugin) for plugin in self.plugins],
        }


def networks(directory: Path, suffixes: Iterable[str] = SUFFIXES) -> tuple[Network, ...]:
    """Read the networks of a directory in the order of the files' names; of two with one name the first counts.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    found: dict[str, Network] = {}
    for name in names:
        if name.endswith(tuple(suffixes)) and (directory / name).is_file():
            network = Network.load(directory / name)
            found.setdefault(network.name, network)
    return tuple(found.values())


def _document(text: str | bytes, source: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(source, "", f"is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(source, "", "is no JSON object")
    return document


def _check_plugin(plugin: object, source: str, field: str) -> None:
    if not isinstance(plugin, dict):
        raise ConfigurationError(source, field.rstrip("."), "is no JSON object")
    kinds = [(f"{field}type", plugin.get("type", ""))]
    ipam = plugin.get("ipam")
    if ipam is not None and not isinstance(ipam, dict):
        raise ConfigurationError(source, f"{field}ipam", "is no JSON object")
    if ipam:  # an empty one asks for no addresses
        kinds.append((f"{field}ipam.type", ipam.get("type", "")))
    for where, kind in kinds:
        if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
            raise ConfigurationError(source, where, f"{kind!r} is no name of a plugin: it is a file in a directory of plugins")
    declared = plugin.get("capabilities")
    if declared is not None and not isinstance(declared, dict):
        raise ConfigurationError(source, f"{field}capabilities", "is no JSON object")
