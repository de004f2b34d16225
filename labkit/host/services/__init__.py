"""The services that the labs use: registries, containerd, dockerd, the LXC bridge, LXD; with systemd and without it."""

from __future__ import annotations

from labkit.host.services.installation import enable, pending, unconfigure
from labkit.host.services.lifecycle import down, up
from labkit.host.services.observation import Status, status
from labkit.host.services.places import Places, environment, places, set_apart
from labkit.host.services.table import SERVICES, Service

__all__ = [
    "SERVICES", "Places", "Service", "Status", "down", "enable", "environment", "pending", "places", "set_apart", "status",
    "unconfigure", "up",
]  # fmt: skip
