"""The ways to say in which network namespace something is meant, and whether a lab may change things there."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labkit.errors import LabError
from labkit.kernel.network.namespace import HOST_NET, NetworkNamespace, foreign, identity, identity_here, made_here, names
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.network.reading import NETNS_RUN, namespace_inode


class HasPid(Protocol):
    """A process: what has a pid and the name that the lab gave it."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def name(self) -> str:
        """Its name in the lab, or ""."""


Netns = NetworkNamespace | HasPid | str | int | Path | None
"""A network namespace: itself, its name, a process in it (or its pid), a file of it; None for the host's."""


@dataclass(frozen=True)
class Place:
    """Where an operation happens.

    Attributes:
        path: file of the namespace; None for the host's.
        title: as it is called in a message.
        word: as ip(8) names it after `netns`, ready for the shell.
        prefix: what a line in a shell begins with to happen there.
    """

    path: str | None
    title: str
    word: str
    prefix: str

    def ours(self, route: NetlinkSocket | None = None) -> bool:
        """Whether everything in it is this lab's: its named namespaces, and those that live by a process alone.

        Args:
            route: a socket in it, if one is open: it saves the way in.
        """
        if self.path is None:
            return False
        found = identity_here(route) if route else identity(self.path)
        host = os.stat(HOST_NET)
        if found is None or found["inode"] == host.st_ino:
            return False
        if made_here(found):
            return True
        named = [name for name in names() if namespace_inode(f"{NETNS_RUN}/{name}", host.st_dev) == found["inode"]]
        return all(NetworkNamespace(name).ours for name in named)

    def check_there(self) -> None:
        """Refuse a namespace that is not there."""
        if self.path is not None and not namespace_inode(self.path, os.stat(HOST_NET).st_dev):
            raise LabError(f"there is no network namespace {self.title}", cause=f"{NETNS_RUN} has {', '.join(names()) or 'none'}")

    def check(self, route: NetlinkSocket | None = None) -> None:
        """Refuse a namespace that is not there, and one with a name that is not this lab's; `route` as in `ours`."""
        self.check_there()
        if self.path is not None and os.stat(self.path).st_ino != os.stat(HOST_NET).st_ino and not self.ours(route):
            raise foreign(self.title)


def place(netns: Netns) -> Place:
    """Return where `netns` means.

    Raises:
        LabError: it is no name of a namespace.
    """
    if netns is None:
        return Place(None, "the host", "1", "")  # process 1 is in it; a shell that runs one line only (`bash -c`) leaves it
    if isinstance(netns, Path) or (isinstance(netns, str) and netns.startswith("/")):
        path = str(netns)
        return Place(path, path, shlex.quote(path), f"nsenter --net={shlex.quote(path)} ")
    if isinstance(netns, str):
        netns = NetworkNamespace(netns)
    if isinstance(netns, NetworkNamespace):
        quoted = shlex.quote(netns.name)
        return Place(netns.path, netns.name, quoted, f"ip netns exec {quoted} ")
    pid, name = (netns, "") if isinstance(netns, int) else (netns.pid, netns.name)
    word = f"${name}" if name else str(pid)
    return Place(f"/proc/{pid}/ns/net", f"process {name or pid}", word, f"nsenter --target {word} --net ")
