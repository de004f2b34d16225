"""What systemd is told of our services: units of our own, and drop-ins beside the distribution's units."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path

from labkit.errors import LabError
from labkit.host.services import files, handlers
from labkit.host.services.places import Places
from labkit.host.services.table import Service
from labkit.kernel import commands

ETC = Path("/etc/systemd/system")
_SHIPPED = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
_DAEMON = Path("/etc/docker/daemon.json")
_REGISTRY = Path("/etc/docker/registry/config.yml")
_CONTAINERD = Path("/etc/containerd/config.toml")


def path(service: Service) -> Path:
    """Return our file of a service: the unit where it is ours, else our drop-in."""
    return ETC / service.unit if service.unit.startswith("labkit-") else ETC / f"{service.unit}.d" / "50-labkit.conf"


def sockets(service: Service) -> tuple[str, ...]:
    """Return the socket units that would start the service again when somebody connects."""
    return (service.unit.replace(".service", ".socket"),) if service.name in ("docker", "lxd", "incus") else ()


def install(service: Service, places: Places) -> bool:
    """Write our file of a service; tell whether it changed.

    Raises:
        LabError: a file that is not ours is in the way, or the distribution's unit is not there.
    """
    target = path(service)
    if not files.is_ours(target):
        raise LabError(f"{target} is not labkit's, and stays as it is", remedy="move it away")
    return files.write(target, text(service, places))


def enable(service: Service) -> None:
    """Let systemd start a service with the machine; it may be another machine's root file system, where no systemd runs yet.

    Debian's own registry, which listens on every address, does not start where nobody has configured it.
    """
    commands.run(["systemctl", "enable", service.unit, *sockets(service)], timeout=60)
    if service.name == "registry" and is_shipped(_REGISTRY, "docker-registry"):
        commands.run(["systemctl", "disable", "docker-registry.service"], timeout=60, check=False)


def remove(service: Service) -> bool:
    """Remove our file of a service, and let our own units start no more; tell whether it was there."""
    target = path(service)
    if not target.exists() or not files.is_ours(target):
        return False
    if target.name == service.unit:
        commands.run(["systemctl", "disable", service.unit], timeout=60, check=False)
    target.unlink()
    with contextlib.suppress(OSError):
        target.parent.rmdir()
    return True


def text(service: Service, places: Places) -> str:
    """Return our file of a service."""
    mark = f"Environment=LABKIT_SERVICE={service.name} LABKIT_SERVICES_OF={places.state}\n"
    if service.unit.startswith("labkit-"):
        return (
            f"{files.MARK}\n[Unit]\nDescription=labkit: {service.title}\nAfter=network.target\n\n"
            f"[Service]\nUser=docker-registry\nNoNewPrivileges=yes\n{mark}"
            f"ExecStart=/usr/bin/docker-registry serve {places.configuration / f'{service.name}.yml'}\n"
            "Restart=always\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n"
        )
    return f"{files.MARK}\n[Service]\n{mark}{_start(service, places)}"


def _start(service: Service, places: Places) -> str:
    """Return the lines that start the distribution's service with our configuration, where a person has not set another."""
    if service.name == "docker":
        more = _dockers_arguments(places)
    elif service.name == "containerd" and is_shipped(_CONTAINERD, "containerd*"):
        more = f" --config {places.configuration / 'containerd.toml'}"
    else:
        more = ""
    return f"ExecStart=\nExecStart={_shipped_start(service)}{more}\n" if more else ""


def _dockers_arguments(places: Places) -> str:
    """Return what dockerd is told besides: it does not start where a person's file has the same key as an argument."""
    mirror = "" if docker_mirrors() else f" --registry-mirror=http://{places.registry_address}"
    crun = handlers.crun(places) if _in_daemon_json("runtimes") is None else None
    return mirror + (f" --add-runtime=crun={crun}" if crun else "")


def docker_mirrors() -> list[str]:
    """Return the mirrors that a person has set for docker; they are theirs to change."""
    found = _in_daemon_json("registry-mirrors")
    return [str(mirror) for mirror in found] if isinstance(found, list) else []


def _in_daemon_json(key: str) -> object:
    """Return what a person has set for docker under a key; None where nothing."""
    try:
        found: object = json.loads(_DAEMON.read_text()).get(key)
    except (OSError, ValueError, AttributeError):
        return None
    return found


def is_shipped(file: Path, packages: str) -> bool:
    """Tell whether a configuration file is as one of these packages has it, or not there: then nobody wrote into it."""
    try:
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    except FileNotFoundError:
        return True
    try:
        listed = commands.run(["dpkg-query", "--show", "--showformat", "${Conffiles}\n", packages], timeout=20).stdout
    except LabError:
        return False
    return f"{file} {digest}" in listed


def _shipped_start(service: Service) -> str:
    for directory in _SHIPPED:
        unit = directory / service.unit
        found = re.search(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE) if unit.exists() else None
        if found:
            return found[1]
    raise LabError(f"there is no unit {service.unit}", remedy="make lab")
