"""Ports of the host that lead into a pod: two chains of the pod's own in the table nat, RKT-PFWD-DNAT-* and RKT-PFWD-SNAT-*.

What comes to an address of this machine, from outside or from the machine itself, gets the pod's address as destination. What
comes from 127.0.0.1 would carry a source that no answer finds: it gets the machine's address, and the kernel is told to let such
packets out by the link to the pod (route_localnet). See: iptables-extensions(8)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.cni import chains
from labkit.cni.holding import held
from labkit.errors import LabError, SyscallError
from labkit.kernel import network
from labkit.kernel.network import icmp
from labkit.kernel.network.netlink import NetlinkSocket

if TYPE_CHECKING:
    from labkit.appc.app import Port
    from labkit.appc.pod_manifest import ExposedPort, PodManifest

_CONF = Path("/proc/sys/net/ipv4/conf")
_LARGEST = 65535


class PortError(LabError):
    """Say why a port cannot lead into the pod."""


@dataclass(frozen=True)
class ForwardedPort:
    """A port of the host and the port of the pod to which it leads.

    Attributes:
        protocol: "tcp" or "udp".
        host_port: on the host.
        pod_port: in the pod.
        host_ip: the address on the host; "" for each.
    """

    protocol: str
    host_port: int
    pod_port: int
    host_ip: str = ""


def forwarded(manifest: PodManifest) -> tuple[ForwardedPort, ...]:
    """Return which ports of the host lead where, by the pod manifest; a port with a count is that many.

    Raises:
        PortError: no app has a port of that name, or a number is beyond the last port.
    """
    named = {port.name: port for app in reversed(manifest.apps) for port in (app.app.ports if app.app else ())}
    return tuple(one for exposed in manifest.ports for one in _forwarded(exposed, named))


def _forwarded(exposed: ExposedPort, named: dict[str, Port]) -> list[ForwardedPort]:
    port = exposed.pod_port or named.get(exposed.name)
    if port is None:
        raise PortError(f'port name "{exposed.name}" could not be found in any apps')
    if port.protocol not in ("tcp", "udp"):
        raise PortError(f'port "{exposed.name}": protocol {port.protocol!r} cannot be forwarded', remedy="tcp or udp")
    count = max(port.count, 1)
    if max(exposed.host_port, port.port) + count - 1 > _LARGEST:
        raise PortError(f'port "{exposed.name}": {count} ports from {max(exposed.host_port, port.port)} on end beyond {_LARGEST}')
    host_ip = "" if exposed.host_ip == "0.0.0.0" else exposed.host_ip  # noqa: S104 - the word for each address, nothing listens
    return [ForwardedPort(port.protocol, exposed.host_port + step, port.port + step, host_ip) for step in range(count)]


def chain_names(pod_uuid: str) -> tuple[str, str]:
    """Return the names of the pod's chains: for destinations, for sources."""
    return f"RKT-PFWD-DNAT-{pod_uuid[:8]}", f"RKT-PFWD-SNAT-{pod_uuid[:8]}"


def rules(pod_uuid: str, ports: Sequence[ForwardedPort], pod_ip: str) -> list[str]:
    """Return the rules that lead ports of the host into a pod, as iptables-restore reads them."""
    dnat, snat = chain_names(pod_uuid)
    found = [f"-I {hook} 1 -m addrtype --dst-type LOCAL -j {dnat}" for hook in ("PREROUTING", "OUTPUT")]
    found.append(f"-I POSTROUTING 1 -s 127.0.0.1 ! -d 127.0.0.1 -j {snat}")
    for port in ports:
        only = f"-d {port.host_ip} " if port.host_ip else ""
        found.append(f"-A {dnat} {only}-p {port.protocol} --dport {port.host_port} -j DNAT --to-destination {pod_ip}:{port.pod_port}")
        found.append(f"-A {snat} -s 127.0.0.1 -d {pod_ip} -p {port.protocol} --dport {port.pod_port} -j MASQUERADE")
    return found


def forward(pod_uuid: str, ports: Sequence[ForwardedPort], pod_ip: str, lock: Path) -> None:
    """Let ports of the host lead into a pod, once; without ports there is nothing to do.

    Shell:
        iptables -t nat -A RKT-PFWD-DNAT-31733fb7 -p tcp --dport 8080 -j DNAT --to-destination 172.16.28.2:80
    Args:
        pod_uuid: the pod.
        ports: of the host.
        pod_ip: where they lead to.
        lock: the file whose lock is held meanwhile, also by commands that outlive us.

    Raises:
        CommandError: the kernel takes a rule not: then none is there.
    """
    if not ports:
        return
    with held(lock) as fd:
        chains.insert(chain_names(pod_uuid), rules(pod_uuid, ports, pod_ip), keep=(fd,))
    route_localnet(pod_ip)


def unforward(pod_uuid: str, lock: Path) -> None:
    """Take a pod's chains away; where the lock's file is not there, no port was ever led into the pod.

    Raises:
        CommandError: the kernel refuses.
    """
    if not lock.exists():
        return
    with held(lock) as fd:
        chains.remove(chain_names(pod_uuid), keep=(fd,))
        lock.unlink(missing_ok=True)


def route_localnet(pod_ip: str, conf: Path = _CONF) -> None:
    """Let packets from 127.0.0.1 out by the link that leads to an address.

    Shell:
        sysctl net.ipv4.conf.veth12.route_localnet=1
    Raises:
        PortError: no link leads there.
    """
    try:
        with NetlinkSocket() as route:
            index, _ = icmp.way(route, ipaddress.ip_address(pod_ip))
    except SyscallError as error:
        why = f"this machine has no way to {pod_ip}: {error.strerror}"
        raise PortError("no port can lead into the pod", cause=why, remedy='"isGateway": true for a bridge') from error
    link = next(link for link in network.links() if link.index == index)
    (conf / link.ifname / "route_localnet").write_text("1\n")
