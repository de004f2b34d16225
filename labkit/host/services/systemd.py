"""Where systemd runs: the distribution's units with a drop-in of ours, and two units of our own for the registries. See: systemctl(1).

A unit is ours where our drop-in, or our unit file, is there; another one is somebody else's, and is used or refused as it is.
"""

from __future__ import annotations

import contextlib

from labkit.errors import LabError
from labkit.host.services import files, holders, programs, units
from labkit.host.services.backend import Process, Running
from labkit.host.services.places import Places
from labkit.host.services.table import Service
from labkit.kernel import commands

_STATES: dict[str, Running] = {"active": "running", "reloading": "running", "activating": "starting", "failed": "failed"}


class Systemd:
    """The systemd of this machine."""

    name = "systemd"

    def __init__(self, places: Places) -> None:
        self.places = places

    def observe(self, service: Service) -> Process:
        """Return the state of a unit of ours; one that is not ours is as good as stopped."""
        if not self.owns(service):
            return Process("stopped")
        wanted = "--property=ActiveState,MainPID,ActiveEnterTimestamp,Result,Job"
        told = dict(line.split("=", 1) for line in _systemctl("show", "--timestamp=unix", wanted, service.unit).splitlines() if "=" in line)
        since = told.get("ActiveEnterTimestamp", "").removeprefix("@")
        running = _STATES.get(told.get("ActiveState", ""), "stopped")
        if running in ("stopped", "failed") and told.get("Job", "0") != "0":
            running = "starting"  # it waits in systemd's queue
        return Process(running, int(told.get("MainPID", "0")), float(since) if since.isdigit() else 0.0, told.get("Result", ""))

    def owns(self, service: Service) -> bool:
        """Tell whether the unit is ours."""
        path = units.path(service)
        return path.exists() and files.is_ours(path)

    def start(self, service: Service, *, again: bool = False) -> bool:
        """Install our part of the unit, and start it unless it runs; tell whether it was started. Its start is not waited for.

        Raises:
            LabError: there is no such unit, or it is masked.
        """
        changed = programs.prepare(service.name, self.places, systemd=True)
        changed = units.install(service, self.places) or changed
        if changed:
            _systemctl("daemon-reload")
            units.enable(service)
        process = self.observe(service)
        if process.running == "running" and not changed and not again:
            return False
        if again and process.pid:
            holders.end([process.pid], politely=2)
        if process.running == "failed":
            _systemctl("reset-failed", service.unit)  # it may have been started too often
        _systemctl("start" if process.running == "stopped" else "restart", "--no-block", service.unit)
        return True

    def stop(self, service: Service) -> None:
        """Stop a unit, and the socket that would start it again."""
        if service.shutdown:
            with contextlib.suppress(LabError):
                commands.run(service.shutdown, timeout=60)
        _systemctl("stop", *units.sockets(service), service.unit, seconds=service.seconds)
        with contextlib.suppress(LabError):
            _systemctl("reset-failed", service.unit)

    def log(self, service: Service) -> str:
        """Return the command that shows the unit's log."""
        return f"journalctl -u {service.unit}"

    def last_line(self, service: Service) -> str:
        """Return the last line of the unit's log."""
        with contextlib.suppress(LabError):
            done = commands.run(["journalctl", "--unit", service.unit, "--lines", "1", "--output", "cat", "--no-pager"], timeout=20)
            return done.stdout.strip() or "it wrote nothing"
        return "its log cannot be read"

    def close(self) -> None:
        """Do nothing: systemd stays."""


def _systemctl(*arguments: str, seconds: float = 30.0) -> str:
    return commands.run(["systemctl", *arguments], timeout=seconds).stdout
