"""What is known of a pod's networks: net-info.json, and the words of `rkt list`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabError


class NetworkError(LabError):
    """Say why a pod's networks cannot be set up, or not be taken down whole."""


@dataclass(frozen=True)
class NetInfo:
    """One network of a pod, as net-info.json keeps it.

    Attributes:
        net_name: the network.
        net_conf: its configuration, below the pod's directory.
        if_name: the link in the pod.
        ip: the pod's address, or "".
        mask: of its network: "255.255.255.0".
        args: the words for the plugins.
        masquerades: whether the pod reaches the outside by the host's address.
    """

    net_name: str
    net_conf: str
    if_name: str
    ip: str
    mask: str
    args: str = ""
    masquerades: bool = False

    def record(self) -> dict[str, Any]:
        """Return it as net-info.json has it."""
        found = {"netName": self.net_name, "netConf": self.net_conf, "ifName": self.if_name}
        return found | {"ip": self.ip, "args": self.args, "mask": self.mask}


def load(directory: Path) -> tuple[NetInfo, ...]:
    """Return the networks of a pod by its net-info.json; none where there is no such file, or its writer was killed."""
    try:
        records = json.loads((directory / "net-info.json").read_text())
        return tuple(_read(record) for record in records)
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return ()


def shown(networks: Sequence[NetInfo]) -> str:
    """Return networks as `rkt list` and `rkt status` show them: `default:ip4=172.16.28.2`."""
    return ", ".join(f"{one.net_name}:ip4={one.ip}" for one in networks)


def forwardable(networks: Sequence[NetInfo]) -> NetInfo:
    """Return the network through which ports lead into the pod: the first that masquerades, else the last.

    Raises:
        NetworkError: the pod has no network with an address.
    """
    able = [one for one in networks if one.ip]
    if not able:
        raise NetworkError("no network through which a port could lead into the pod")
    return next((one for one in able if one.masquerades), able[-1])


def _read(record: Mapping[str, object]) -> NetInfo:
    name, conf, ifname, ip, mask, args = (str(record.get(key) or "") for key in ("netName", "netConf", "ifName", "ip", "mask", "args"))
    return NetInfo(name, conf, ifname, ip, mask, args)
