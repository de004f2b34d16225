"""What labkit writes into the machine so that its services and the tools of the field find each other, and how it goes again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from labkit.errors import LabError
from labkit.host.services import mirrors, programs, units
from labkit.host.services.observation import OTHER, status, wanted
from labkit.host.services.places import as_booted, places
from labkit.host.services.table import SERVICES, here, with_needed


def pending(names: Iterable[str] = ()) -> str:
    """Return in a few words what `up` would have to do, or "" where everything is up and configured.

    Where another labkit serves at the course's places, the machine is set up already, by it.
    """
    found = places()
    looked = status([service.name for service in with_needed(names)])
    if any(one.by == OTHER for one in looked):
        return ""
    todo = [one.name for one in looked if one.state in ("down", "failed")]
    files = len(mirrors.pending(found))
    return ", ".join([*todo, *([f"{files} files of configuration"] if files else [])])


def enable() -> None:
    """Let systemd start the services with this root file system's next boot; nothing is started now.

    For a root file system that is being built. The registry with accounts is left to the first `up`: each machine has its own secrets.
    """
    found = as_booted()
    for service in here():
        if service.name != "accounts":
            programs.prepare(service.name, found, systemd=True)
            units.install(service, found)
            units.enable(service)
    mirrors.configure(found)


def unconfigure() -> tuple[Path, ...]:
    """Remove the files that we have outside of the state directory; return them.

    Raises:
        LabError: a service of ours still runs.
    """
    found = places()
    if still := wanted():
        raise LabError(f"{', '.join(sorted(still))} of labkit's still run", remedy="labkit down")
    gone = [units.path(service) for service in SERVICES if found.under_systemd and units.remove(service)]
    return (*gone, *mirrors.unconfigure(found))
