"""What every way of running services can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from labkit.host.services.table import Service

Running = Literal["running", "starting", "stopped", "failed"]


@dataclass(frozen=True)
class Process:
    """What a backend knows of the process of a service.

    Attributes:
        running: its state.
        pid: its process, or 0.
        since: when it was started, in seconds since the epoch, or 0.
        said: why it does not run, in the backend's words.
    """

    running: Running
    pid: int = 0
    since: float = 0.0
    said: str = ""


class Backend(Protocol):
    """Starts services and keeps them running."""

    name: str

    def observe(self, service: Service) -> Process:
        """Return the state of the process of a service that we started, or would."""

    def start(self, service: Service, *, again: bool = False) -> bool:
        """Start a service unless it runs; where its configuration changed, or `again`, start it again. Tell whether it was started.

        Its answer is not waited for.
        """

    def stop(self, service: Service) -> None:
        """Stop a service and wait until its process is gone."""

    def log(self, service: Service) -> str:
        """Return where the service's log is: a file, or the command that shows it."""

    def last_line(self, service: Service) -> str:
        """Return the last line of the service's log."""

    def close(self) -> None:
        """End what runs the services, where none is left."""
