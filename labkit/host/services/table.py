"""Which services there are, what they need, and what they are called where systemd runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError


@dataclass(frozen=True)
class Service:
    """One service of the labs.

    Attributes:
        name: the word for `labkit up`.
        title: what it is, for the doctor.
        program: the command that serves: in PATH, or by its path.
        unit: its unit where systemd runs.
        needs: services without which it does not start.
        wants: services that are started with it; it starts without them, too.
        shared: one that is there already and not labkit's is used; otherwise it is refused, since we would write into it.
        seconds: how long its answer is waited for.
        shutdown: the command that ends what it keeps, where the end of its unit would leave that: half a minute for what does not obey.
        only: which Debian has it, where not every one has: a machine that lacks its program does without.
    """

    name: str
    title: str
    program: str
    unit: str
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    shared: bool = False
    seconds: float = 120.0
    shutdown: tuple[str, ...] = ()
    only: str = ""


SERVICES = (
    Service("registry", "the mirror of docker.io", "docker-registry", "labkit-registry.service"),
    Service("accounts", "a registry with accounts", "docker-registry", "labkit-accounts.service"),
    Service("containerd", "containerd with its CRI", "containerd", "containerd.service", wants=("registry",), shared=True),
    Service(
        "docker", "the Docker daemon", "dockerd", "docker.service", needs=("containerd",), wants=("registry",), shared=True, seconds=240.0
    ),
    Service("lxc-bridge", "the bridge of LXC", "dnsmasq", "lxc-net.service", shared=True),
    Service("lxd", "the LXD daemon", "lxd", "lxd.service", shared=True, seconds=240.0, shutdown=("lxd", "shutdown", "--timeout", "30")),
    Service(
        "incus",
        "the Incus daemon",
        "/usr/libexec/incus/incusd",
        "incus.service",
        shared=True,
        seconds=240.0,
        shutdown=("incus", "admin", "shutdown", "--timeout", "50"),
        only="Debian 13 and later",
    ),
)
"""Every service, each after those that it needs."""

_BY_NAME = {service.name: service for service in SERVICES}


def named(name: str) -> Service:
    """Return a service by its name.

    Raises:
        LabError: there is none; the names that there are, are the remedy.
    """
    if name not in _BY_NAME:
        raise LabError(f"there is no service {name!r}", remedy=f"name one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def here() -> tuple[Service, ...]:
    """Return the services of this machine: one that not every Debian has is left out where its program is not there."""
    return tuple(service for service in SERVICES if not service.only or Path(service.program).exists())


def with_needed(names: Iterable[str]) -> tuple[Service, ...]:
    """Return the services of these names and all that they need or want, in the order in which they start; no names: all that are here."""
    chosen: set[str] = set()
    waiting = [named(name) for name in names] or list(here())
    while waiting:
        service = waiting.pop()
        chosen.add(service.name)
        waiting += [named(name) for name in (*service.needs, *service.wants) if name not in chosen]
    return tuple(service for service in SERVICES if service.name in chosen)


def with_dependents(names: Iterable[str]) -> tuple[Service, ...]:
    """Return the services of these names and all that need them, in the order in which they stop; no names: all."""
    chosen = {named(name).name for name in names} or set(_BY_NAME)
    for service in SERVICES:
        if chosen & set(service.needs):
            chosen.add(service.name)
    return tuple(service for service in reversed(SERVICES) if service.name in chosen)
