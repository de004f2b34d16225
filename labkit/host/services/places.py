"""Where the services of this instance listen and keep their data: the course's places, or others beside another instance."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit import ledger
from labkit.errors import LabError

_LXD = Path("/var/lib/lxd")
_DEFAULT_STATE = Path("/var/lib/labkit")
SYSTEMD = Path("/run/systemd/system")
"""Is there where systemd is process 1. See: sd_booted(3)."""


@dataclass(frozen=True)
class Places:
    """Ports, sockets and directories.

    Attributes:
        state: everything that is kept.
        run: sockets and run-time state; gone after a boot.
        lxd: LXD_DIR.
        registry: the port of the mirror of docker.io on 127.0.0.1.
        accounts: the port of the registry with accounts on 127.0.0.1.
        docker: the socket of dockerd.
        containerd: the socket of containerd.
        bridge: the bridge of LXC.
        bridge_address: its address.
        docker_bridge: docker's default bridge; another name than docker0 makes dockerd leave the packet filter alone.
        docker_address: the address of that other bridge.
        systemd: whether systemd is process 1 of the machine.
        accounts_directory: where the registry with accounts keeps ca.crt, server.crt, htpasswd, password (of `student`) and storage/.
    """

    state: Path
    run: Path
    lxd: Path
    registry: int = 5000
    accounts: int = 5001
    docker: Path = Path("/run/docker.sock")
    containerd: Path = Path("/run/containerd/containerd.sock")
    bridge: str = "lxcbr0"
    bridge_address: str = "10.0.3.1/24"
    docker_bridge: str = "docker0"
    docker_address: str = ""
    systemd: bool = False
    accounts_directory: Path = _DEFAULT_STATE / "accounts"

    @property
    def apart(self) -> bool:
        """Tell whether this instance stands beside another one, at places that are not the course's."""
        return self.docker_bridge != "docker0"

    @property
    def under_systemd(self) -> bool:
        """Tell whether systemd runs the services: then the distribution's directories are theirs."""
        return self.systemd and not self.apart

    @property
    def docker_root(self) -> Path:
        """Return dockerd's data-root."""
        return Path("/var/lib/docker") if self.under_systemd else self.state / "docker"

    @property
    def docker_run(self) -> Path:
        """Return dockerd's exec-root."""
        return Path("/run/docker") if self.under_systemd else self.run / "docker"

    @property
    def containerd_root(self) -> Path:
        """Return containerd's root."""
        return Path("/var/lib/containerd") if self.under_systemd else self.state / "containerd"

    @property
    def containerd_run(self) -> Path:
        """Return containerd's state directory."""
        return Path("/run/containerd") if self.under_systemd else self.run / "containerd"

    @property
    def registry_address(self) -> str:
        """Return host and port of the mirror of docker.io."""
        return f"127.0.0.1:{self.registry}"

    @property
    def accounts_address(self) -> str:
        """Return host and port of the registry with accounts, as its certificate has it."""
        return f"localhost:{self.accounts}"

    @property
    def registry_storage(self) -> Path:
        """Return where the mirror keeps its images."""
        return self.state / "registry"

    @property
    def configuration(self) -> Path:
        """Return where the configuration of our services is generated."""
        return self.state / "services"

    @property
    def logs(self) -> Path:
        """Return where our services write their logs where systemd does not run."""
        return self.state / "log"

    @property
    def certs_d(self) -> Path:
        """Return containerd's directory of hosts.toml files: `ctr images pull --hosts-dir`."""
        return self.configuration / "certs.d" if self.apart else Path("/etc/containerd/certs.d")


def places() -> Places:
    """Return the places of this instance: the course's, unless STATE/services.json names others.

    Raises:
        LabError: services.json cannot be used.
    """
    state = ledger.state()
    run = Path("/run/labkit" if state == _DEFAULT_STATE else f"/run/labkit-{_mark(state)}")
    systemd = SYSTEMD.is_dir()
    course = Places(state, run, _LXD if systemd else state / "lxd", systemd=systemd, accounts_directory=state / "accounts")
    file = _file(state)
    try:
        given = json.loads(file.read_text())
        return replace(course, **{name: _as_typed(course, name, value) for name, value in given.items()})
    except FileNotFoundError:
        return course
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LabError(f"{file} cannot be used: {error}", remedy="correct it, or remove it for the course's places") from error


def as_booted() -> Places:
    """Return the places that this root file system will have once systemd has booted it."""
    return replace(places(), systemd=True, lxd=_LXD)


def set_apart() -> Places:
    """Give this instance free ports, and sockets and bridges of its own, written into STATE/services.json; once.

    Raises:
        LabError: it is the instance of the course's places.
    """
    found = places()
    if found.apart:
        return found
    if found.state == _DEFAULT_STATE:
        raise LabError(f"the instance of {_DEFAULT_STATE} has the course's places", remedy="set LABKIT_STATE to another directory")
    mark = _mark(found.state)
    number = int(mark[:2], 16)
    registry, accounts = _free_ports(2)
    own: dict[str, str | int] = {
        "registry": registry,
        "accounts": accounts,
        "docker": f"{found.run}/docker.sock",
        "containerd": f"{found.run}/containerd.sock",
        "lxd": f"{found.state}/lxd",
        "bridge": f"lxc-{mark}",
        "bridge_address": f"10.201.{number}.1/24",
        "docker_bridge": f"docker-{mark}",
        "docker_address": f"10.202.{number}.1/24",
    }
    found.state.mkdir(parents=True, exist_ok=True)
    _file(found.state).write_text(json.dumps(own, indent=2) + "\n")
    return places()


def environment() -> dict[str, str]:
    """Return what the tools of the field need in their environment to use this instance.

    CONTAINERS_CONF is ours where it is there; the sockets are named only where they are not the tools' own defaults.
    """
    found = places()
    own = {"CONTAINERS_CONF": str(found.state / "containers.conf")} if (found.state / "containers.conf").exists() else {}
    own["LXD_CONF"] = str(found.state / "lxd-client")  # the client's own files, which it else keeps in the home directory
    if found.lxd != _LXD:
        own["LXD_DIR"] = str(found.lxd)
    if found.apart:
        own["DOCKER_HOST"] = f"unix://{found.docker}"
        own["CONTAINERD_ADDRESS"] = str(found.containerd)
        own["CONTAINERS_REGISTRIES_CONF"] = str(found.configuration / "registries.conf")
    return own


def _file(state: Path) -> Path:
    return state / "services.json"


def _mark(state: Path) -> str:
    return hashlib.sha256(os.fsencode(state)).hexdigest()[:6]


def _as_typed(course: Places, name: str, value: object) -> Any:
    kind = type(getattr(course, name))
    if issubclass(kind, Path):
        if isinstance(value, str) and value.startswith("/"):
            return Path(value)
        raise ValueError(f"{name} is {value!r}, not an absolute path")
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r}, not of type {kind.__name__}")
    return value


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    numbers = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return numbers
