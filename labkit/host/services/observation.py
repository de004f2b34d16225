"""How services are: each asked now, and whose it is that answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from labkit import ledger
from labkit.host.services import holders, probes
from labkit.host.services.backend import Backend
from labkit.host.services.places import Places, places
from labkit.host.services.table import Service, here, named

OTHER = "other labkit"
State = Literal["up", "down", "foreign", "failed"]


@dataclass(frozen=True)
class Status:
    """How a service is.

    Attributes:
        name: the service.
        state: up (ours, and it answers), down, foreign (somebody else's serves there), failed (ours, and it does not answer).
        by: what runs it: "systemd", "supervisord", "other labkit" (of another $LABKIT_STATE), "not ours", or "" where nothing does.
        health: what it answered.
        where: its port, socket or link.
        pid: its process, or 0.
        since: when it was started, in seconds since the epoch, or 0.
        log: where its log is.
        wanted: whether it was brought up and should run.
        serves: of a foreign one, whether it can be used.
    """

    name: str
    state: State
    by: str
    health: str
    where: str
    pid: int
    since: float
    log: str
    wanted: bool
    serves: bool = False


def status(names: Iterable[str] = ()) -> tuple[Status, ...]:
    """Return how services are, each asked now; no names: all that are here."""
    found = places()
    running = backend(found)
    return tuple(look(service, found, running) for service in ([named(name) for name in names] or here()))


def backend(of: Places) -> Backend:
    """Return what runs the services of these places: systemd where it runs, for the course's places; else a supervisord of ours."""
    if of.under_systemd:
        from labkit.host.services.systemd import Systemd

        return Systemd(of)
    from labkit.host.services.supervisord import Supervisord

    return Supervisord(of)


def where(name: str, of: Places) -> str:
    """Return the port, the socket or the link of a service."""
    return {
        "registry": of.registry_address,
        "accounts": of.accounts_address,
        "containerd": str(of.containerd),
        "docker": str(of.docker),
        "lxc-bridge": of.bridge,
        "lxd": str(of.lxd / "unix.socket"),
        "incus": str(of.incus / "unix.socket"),
    }[name]


def look(service: Service, of: Places, running: Backend) -> Status:
    """Return how one service is."""
    process, health = running.observe(service), probes.ask(service.name, of)
    should, place, log = service.name in wanted(), where(service.name, of), running.log(service)
    if process.running in ("running", "starting"):
        health = _asked_again(service, of, health, process.pid)
        state: State = "up" if health.ok and (process.running == "running" or process.pid) else "failed"
        return Status(service.name, state, running.name, health.said, place, process.pid, process.since, log, should)
    if not health.held or (service.name == "lxc-bridge" and should):
        state = "failed" if should else "down"
        return Status(service.name, state, running.name if should else "", health.said, place, 0, 0.0, log if should else "", should)
    pid, _ = holders.holder(service.name, of)
    if holders.state_of(pid) == of.state:  # its supervisord was killed
        return Status(service.name, "failed", running.name, f"{health.said}, but nothing watches it", place, pid, 0.0, log, should)
    health = _asked_again(service, of, health, pid)
    by = OTHER if holders.state_of(pid) else "not ours"
    return Status(service.name, "foreign", by, health.said, place, pid, 0.0, "", should, health.ok)


def _asked_again(service: Service, of: Places, health: probes.Health, pid: int) -> probes.Health:
    """Ask the registry with accounts with the password of the instance that it is of, where that is another one."""
    other = None if health.ok or service.name != "accounts" else holders.state_of(pid)
    return probes.ask(service.name, replace(of, state=other)) if other and other != of.state else health


def wanted() -> set[str]:
    """Return the services that were brought up and should run."""
    return {entry.key["name"] for entry in ledger.live(ledger.SERVICES) if entry.kind == "service"}
