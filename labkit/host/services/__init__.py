"""The services that the labs use: registries, containerd, dockerd, the LXC bridge, LXD, Incus; with systemd and without it."""

from __future__ import annotations

from labkit.host.services.installation import enable, pending, unconfigure
from labkit.host.services.lifecycle import down, up
from labkit.host.services.observation import Status, status
from labkit.host.services.places import Places, environment, places, set_apart
from labkit.host.services.table import SERVICES, Service, here, named

__all__ = [
    "SERVICES", "Places", "Service", "Status", "down", "enable", "environment", "here", "named", "pending", "places", "set_apart", "status",
    "unconfigure", "up",
]  # fmt: skip
