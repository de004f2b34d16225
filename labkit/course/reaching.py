"""What checkpoints of networks look at: whether an address lies in a network, and whether a port of this machine leads to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from labkit.course.checkpoints import Verdict
from labkit.kernel import network
from labkit.kernel.network import nat
from labkit.kernel.state import LinkState, NetworkState

_LISTEN = "0A"  # proc_pid_net(5): TCP_LISTEN


def host() -> NetworkState:
    """Return the machine's own network namespace as it is now."""
    return next(state for state in network.states() if state.name == "host")


def lies_in(address: str, subnet: str) -> bool:
    """Return whether an IPv4 address, with the length of its network or without, lies in a network."""
    found = ipaddress.ip_interface(address).ip
    return found.version == 4 and found in ipaddress.ip_network(subnet)


def links(name: str) -> tuple[LinkState, ...]:
    """Return the links of a network namespace by its name; none where there is no such namespace."""
    return next((state.links for state in network.states() if state.name == name), ())


def plugged(name: str, bridge: str, subnet: str) -> LinkState | Verdict:
    """Return the link of a namespace that has an address of a network and the other end in a bridge; else what is missing.

    Args:
        name: of the namespace.
        bridge: of the machine.
        subnet: of IPv4.
    """
    there, own = host(), links(name)
    if bridge not in [link.ifname for link in there.links]:
        cause = "nobody was attached to a network of it" if own else f"there is no namespace {name}, either"
        return Verdict(passed=False, measured=f"there is no bridge {bridge}", cause=cause)
    far = {link.peer for link in there.links if link.master == bridge}
    ends = [link for link in own if (name, link.ifname) in far]
    if not ends:
        return Verdict(passed=False, measured=f"the bridge {bridge} is there", cause=f"{name} has no cable in it")
    for link in ends:
        if any(lies_in(address, subnet) for address in link.addresses):
            return link
    return Verdict(passed=False, measured=f"{name} is plugged into {bridge}", cause=f"it has no address of {subnet}")


def leads(port: int, addresses: Collection[str], whom: str) -> Verdict:
    """Measure that a port of this machine leads to one of these addresses by a rule of NAT, and that a web server answers there.

    Args:
        port: of TCP.
        addresses: of whom it shall lead to.
        whom: who that is, for the verdict.
    """
    rules = [rule for rule in nat.read(None).dnat if rule.port == str(port)]
    if not rules:
        cause = "somebody on the machine listens there" if port in _listening() else f"no rule of NAT names port {port}"
        return Verdict(passed=False, measured=f"port {port} does not lead to {whom}", cause=cause)
    inside = [address.partition("/")[0] for address in addresses]
    if not {rule.to_address for rule in rules} & set(inside):
        cause = f"it leads to another address than that of {whom}"
        return Verdict(passed=False, measured=f"port {port} is changed by a rule", cause=cause)
    if not answers(port):
        return Verdict(passed=False, measured=f"port {port} leads to {whom}", cause="nobody answers there")
    return Verdict(passed=True, measured=f"port {port} leads to {whom} by a rule of NAT, and is answered")


def answers(port: int, address: str = "127.0.0.1") -> bool:
    """Return whether a server of HTTP answers at a port."""
    connection = HTTPConnection(address, port, timeout=3)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _listening() -> set[int]:
    """Return the TCP ports on which somebody listens in the network namespace of this process. See: proc_pid_net(5)."""
    return {int(local.rpartition(":")[2], 16) for local, state in _sockets() if state == _LISTEN}


def _sockets() -> Iterator[tuple[str, str]]:
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                yield local, state
