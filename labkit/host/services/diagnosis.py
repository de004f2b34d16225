"""What the doctor says of the services: whether each answers, and whose it is."""

from __future__ import annotations

import os
import shutil

from labkit.host.findings import Finding, amber, green, red
from labkit.host.measures import Machine
from labkit.host.services import observation, probes, programs
from labkit.host.services.places import places
from labkit.host.services.table import named


def starter(machine: Machine) -> Finding:
    """Tell what starts the services here."""
    if (machine.run / "systemd/system").is_dir():
        return green("systemd starts them")
    if shutil.which("supervisord", path=programs.PATH):
        return green("systemd does not run; supervisord starts them")
    return amber("nothing starts them", "systemd does not run, and supervisord is not installed", "apt-get install supervisor")


def service(name: str) -> Finding:
    """Ask one service."""
    if os.geteuid() != 0:
        return amber("not asked", "only root may ask it", "sudo labkit doctor")
    now = observation.status([name])[0]
    if now.state == "up":
        return green(f"{now.health} ({now.by}, {now.where})")
    remedy = f"labkit up {name}"
    if now.state == "foreign":
        return _foreign(now, remedy)
    if not shutil.which(named(name).program, path=programs.PATH):
        return red("not installed", f"no command {named(name).program}", "make lab")
    if now.state == "down":
        return red("down", f"{now.where}: {now.health}", remedy)
    return red("does not answer", f"{now.where}: {now.health}; log: {now.log}", remedy)


def _foreign(now: observation.Status, remedy: str) -> Finding:
    found = places()
    said = f"{now.health} ({now.by}, pid {now.pid}, {now.where})"
    if not now.serves or not (named(now.name).shared or now.by == observation.OTHER):
        return red(said, f"{now.where} is held by somebody else", f"stop pid {now.pid}, then {remedy}")
    if now.name == "docker" and f"http://{found.registry_address}/" not in probes.docker_mirrors(found):
        mirror = f'"registry-mirrors": ["http://{found.registry_address}"]'
        return amber(said, "the local registry is not among its mirrors", f"write {mirror} into its daemon.json")
    if now.by == observation.OTHER:
        return green(said)  # of the same make: nothing in it is another's choice
    return amber(said, "it was there already, and is used as it is")
