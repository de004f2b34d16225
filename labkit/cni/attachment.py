"""A container's connection to one network: what a plugin gets in its environment. See: CNI specification 1.0.0, section 2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.errors import LabError

_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}")  # it becomes part of the names of files
_IFNAME = re.compile(r"[^\s/:\0]{1,15}")


@dataclass(frozen=True)
class Attachment:
    """One link of one container.

    Attributes:
        container_id: of the container: at most 100 letters, digits, _ . -
        netns: the file of its network namespace; "" where that is gone.
        ifname: what the link is called in there.
        args: further words for the plugins (CNI_ARGS): IP=10.1.2.3.
        capabilities: what is handed to plugins that declare it, by name: {"portMappings": [...]}.
    """

    container_id: str
    netns: str
    ifname: str = "eth0"
    args: tuple[tuple[str, str], ...] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.container_id):
            raise LabError(f"{self.container_id!r} cannot name a container", cause="a letter or digit, then at most 99 of those and _ . -")
        if not _IFNAME.fullmatch(self.ifname) or self.ifname in (".", ".."):
            raise LabError(f"{self.ifname!r} cannot name a link", cause="1 to 15 characters without white space, / and :")
        for key, value in self.args:
            if not key or any(character in key + value for character in ";=\0\n"):
                raise LabError(f"{key}={value} cannot be handed to a plugin", cause="; and = part one from the next")

    def environment(self, command: str, plugins: str, path: str) -> dict[str, str]:
        """Return the whole environment of a plugin.

        Args:
            command: ADD, CHECK, DEL or VERSION.
            plugins: the directories in which a plugin finds the one for addresses, parted by colons.
            path: PATH: plugins call iptables.
        """
        found = {"CNI_COMMAND": command, "CNI_CONTAINERID": self.container_id, "CNI_IFNAME": self.ifname, "CNI_PATH": plugins, "PATH": path}
        if self.netns:
            found["CNI_NETNS"] = self.netns
        if self.args:
            words = (("IgnoreUnknown", "1"), *self.args)  # each is for one plugin of several, and refused by others without this
            found["CNI_ARGS"] = ";".join(f"{key}={value}" for key, value in words)
        return found
