"""The addresses that host-local gave: DIRECTORY/NETWORK/ADDRESS, a file each, in which the container is named."""

from __future__ import annotations

import os
from pathlib import Path

from labkit.cni.configuration import Network
from labkit.cni.holding import held


def release(network: Network, container_id: str, directory: Path) -> None:
    """Give back the addresses of a container without the plugin, whose configuration may be one that it refuses.

    Args:
        network: of which the addresses are.
        container_id: the container.
        directory: where they are kept, unless the network says another.
    """
    for plugin in network.plugins:
        ipam = plugin.get("ipam") or {}
        place = Path(str(ipam.get("dataDir") or directory)) / network.name
        if ipam.get("type") != "host-local" or not place.is_dir():
            continue
        with held(place / "lock"):  # the plugin's own
            for name in os.listdir(place):
                if name != "lock" and not name.startswith("last_reserved_ip") and _owner(place / name) == container_id:
                    (place / name).unlink()


def _owner(lease: Path) -> str:
    return (lease.read_text(errors="replace").splitlines() or [""])[0].strip()
