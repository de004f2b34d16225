"""What a process can reach: its links, by which veth and bridge they lead out, and which ports outside lead to it."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from labkit.kernel.network.nat import PortMapping
from labkit.kernel.network.reading import HOST
from labkit.kernel.state import LinkState, NetworkState, RouteState
from labkit.kernel.xray.machine import Machine, read
from labkit.kernel.xray.records import Member, Network, Way

USER_MODE = ("slirp4netns", "pasta", "pasta.avx2", "passt", "vpnkit")
"""Programs that carry the packets of a network namespace by themselves."""


def network_of(pid: int, machine: Machine) -> Network:
    """Return the network namespace of a process.

    Shell:
        nsenter --target PID --net ip addr; nsenter --target PID --net ip route; ip link; nft list ruleset

    Raises:
        OSError: its network namespace may not be read, or not be entered.
    """
    path = f"{machine.proc}/{pid}/ns/net"
    inode = int(os.readlink(path).split("[")[1][:-1])
    state = machine.network(pid)
    if state is None:
        raise PermissionError(1, "setns", path)
    name = machine.netns_name(inode)
    if name == HOST:
        return Network(name, _renamed(state, machine), state.routes)
    ways = tuple(_way(link, machine) for link in state.links if link.kind == "veth")
    addresses = [address for link in state.links for address in link.addresses if not address.startswith(("127.", "::1/"))]
    outer = {found.inode: found for link in state.links if (found := _other(link, machine))}
    return Network(
        name=name,
        links=_renamed(state, machine),
        routes=state.routes,
        ways=tuple(_masqueraded(way, link, outer, machine) for way, link in zip(ways, _veths(state), strict=True)),
        ports=tuple(_ports(addresses, outer, machine)),
        user_mode=tuple(_user_mode(inode, machine)),
    )


def _veths(state: NetworkState) -> list[LinkState]:
    return [link for link in state.links if link.kind == "veth"]


def _renamed(state: NetworkState, machine: Machine) -> tuple[LinkState, ...]:
    """Call the namespaces of the other ends as the reference, not as the reader would."""
    links = []
    for link in state.links:
        other = _other(link, machine)
        links.append(replace(link, peer=(machine.netns_name(other.inode), link.peer[1])) if other and link.peer else link)
    return tuple(links)


def _other(link: LinkState, machine: Machine) -> NetworkState | None:
    return machine.network_named(link.peer[0]) if link.peer else None


def _way(link: LinkState, machine: Machine) -> Way:
    """Follow a veth to its other end, to the bridge that has that as a port, and to the default route there."""
    other = _other(link, machine)
    if other is None or link.peer is None:
        return Way(link.ifname, "", "")
    peer = next((each for each in other.links if each.ifname == link.peer[1]), None)
    bridge = next((each for each in other.links if peer and each.ifname == peer.master), None)
    default = _default(other.routes)
    return Way(
        ifname=link.ifname,
        peer=link.peer[1],
        netns=machine.netns_name(other.inode),
        bridge=peer.master if peer else "",
        bridge_addresses=bridge.given if bridge else (),
        outside=default.ifname if default else "",
        gateway=default.gateway if default else "",
    )


def _default(routes: Iterable[RouteState]) -> RouteState | None:
    return next((route for route in routes if route.destination == "default"), None)


def _masqueraded(way: Way, link: LinkState, outer: dict[int, NetworkState], machine: Machine) -> Way:
    """Add to a way what the namespace of its other end does with its packets."""
    other = _other(link, machine)
    if other is None or other.inode not in outer:
        return way
    masquerade = machine.nat(other.inode).masquerade
    rules = [rule.rule for rule in masquerade if any(rule.covers(address, way.outside) for address in link.given)]
    return replace(way, masquerade=tuple(dict.fromkeys(rules)), forwards=_forwards(other, machine))


def _forwards(network: NetworkState, machine: Machine) -> bool | None:
    """Return whether a namespace forwards IPv4; only of the reader's own does procfs tell."""
    if network.inode != os.stat(f"{machine.proc}/self/ns/net").st_ino:
        return None
    try:
        return read(f"{machine.proc}/sys/net/ipv4/ip_forward").strip() == "1"
    except OSError:
        return None


def _ports(addresses: Iterable[str], outer: dict[int, NetworkState], machine: Machine) -> Iterator[PortMapping]:
    own = {ipaddress.ip_interface(address).ip for address in addresses}
    for inode in outer:
        for rule in machine.nat(inode).dnat:
            if _address(rule.to_address) in own:
                yield rule
    for member in machine.called("docker-proxy"):
        here = machine.inode(member.pid, "net") in (None, *outer)  # another machine's network may have the same addresses
        if here and (mapping := docker_proxy(member)) and _address(mapping.to_address) in own:
            yield mapping


def docker_proxy(member: Member) -> PortMapping | None:
    """Return what a docker-proxy does, from its command line; None where that is not as docker-proxy writes it."""
    options = dict(zip(member.argv[1::2], member.argv[2::2], strict=False))
    words = [options.get(name, "") for name in ("-proto", "-host-ip", "-host-port", "-container-ip", "-container-port")]
    return PortMapping(words[0], words[1], words[2], words[3], words[4], f"docker-proxy (pid {member.pid})") if all(words) else None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _user_mode(inode: int, machine: Machine) -> Iterator[str]:
    for member in machine.called(*USER_MODE):
        if inode in set(_named_namespaces(member, machine)):
            yield f"{member.comm} (pid {member.pid})"


def _named_namespaces(member: Member, machine: Machine) -> Iterator[int]:
    """Yield the namespaces that a command line names, by a file or by a process."""
    for word in member.argv[1:]:
        path = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        if path.startswith("/"):
            with suppress(OSError):
                yield os.stat(path).st_ino
        elif re.fullmatch(r"[1-9]\d*", path) and Path(f"{machine.proc}/{path}").is_dir():
            found = machine.inode(int(path), "net")
            if found is not None:
                yield found
