"""Make the virtual links of the labs: veth pairs and bridges. See: veth(4), ip-link(8)."""

from __future__ import annotations

import errno
import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel.network import link_ledger as network_links
from labkit.kernel.network import netlink
from labkit.kernel.network import reading as network_state
from labkit.kernel.network import requests as network_requests
from labkit.kernel.network.link_ledger import End, by_name, described
from labkit.kernel.network.namespace import HOST_NET
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.network.places import Netns, Place, place
from labkit.kernel.network.reading import states
from labkit.kernel.state import LinkState

_IFNAME_BYTES = 15
_TICK = 0.05


def veth(ifname: str, peer: str, netns: Netns = None, peer_netns: Netns = None) -> tuple[LinkState, LinkState]:
    """Make a pair of links, each the other end of the other; a pair that this lab made already is returned as it is.

    Shell:
        ip link add veth1 type veth peer name veth2
    Args:
        ifname: name of one end.
        peer: name of the other end.
        netns: where the one end is made.
        peer_netns: where the other end is made.

    Returns:
        Both ends, as read back.

    Raises:
        LabError: a name is no name, a namespace is not there or not this lab's.
        SyscallError: EEXIST where a link has that name.

    See: veth(4)
    """
    one, other = place(netns), place(peer_netns)
    check_ifname(ifname)
    check_ifname(peer)
    if one == other and ifname == peer:
        raise LabError(f"both ends of the veth are called {ifname} in {one.title}", remedy="give each end a name of its own")
    for found in _still_there(_pair_key(ifname, peer, one, other)):
        if len(found) == 2:
            return found[0], found[1]
    here, there = taken(ifname, one), taken(peer, other)
    if here and there and one.ours() and other.ours() and _is_pair(here, there, one, other):
        return here, there  # made by hand in the lab's own namespaces
    refuse_taken(here, one)
    refuse_taken(there, other)
    with ledger.making("link", **_pair_key(ifname, peer, one, other)) as entry:
        ends = _make_veth(ifname, peer, one, other, entry)
        network_links.write_ends(entry, [end for end, _ in ends])
    inside = "" if other == one else f" netns {other.word}"
    line = f"{one.prefix}ip link add {word(ifname)} type veth peer name {shlex.quote(peer)}{inside}"
    trace.record(line, calls=[f"sendmsg(RTM_NEWLINK {ifname}, kind veth, peer {peer})"])
    return ends[0][1], ends[1][1]


def bridge(ifname: str, netns: Netns = None) -> LinkState:
    """Make a bridge, a switch in the kernel; one that this lab made already is returned as it is.

    Shell:
        ip link add br0 type bridge
    Raises:
        LabError: the name is no name, the namespace is not there or not this lab's.
        SyscallError: EEXIST where a link has that name.

    See: ip-link(8), bridge(8)
    """
    where = place(netns)
    check_ifname(ifname)
    key = {"link_kind": "bridge", "ifname": ifname, "netns": where.path or ""}
    for known in _still_there(key):
        return known[0]
    found = taken(ifname, where)
    if found and found.kind == "bridge" and where.ours():
        return found  # made by hand in the lab's own namespace
    refuse_taken(found, where)
    with ledger.making("link", **key) as entry:
        body = network_requests.new_bridge(ifname)
        end, state = netlink.within(where.path, lambda: _make(ifname, "bridge", body, where, entry))
        network_links.write_ends(entry, [end])
    trace.record(f"{where.prefix}ip link add {word(ifname)} type bridge", calls=[f"sendmsg(RTM_NEWLINK {ifname}, kind bridge)"])
    return state


def delete_unfinished(called: str, after: int, master: str, seconds: float = 1.0) -> None:
    """Delete the pairs of veth of which an engine was killed before it had moved one end away: both are in the host's namespace.

    A pair that another engine is just making is moved, or gone, within `seconds`, and stays.

    Shell:
        ip link delete vethf41c6fb
    Args:
        called: regular expression of the names that the engine gives.
        after: the index of a link that is older than they.
        master: the bridge of the engine; a pair that is a port of another one is not its.
        seconds: how long a pair must be as it is.
    """
    found, deadline = _unfinished(called, after, master), time.monotonic() + seconds
    while found and time.monotonic() < deadline:
        time.sleep(_TICK)
        found &= _unfinished(called, after, master)
    with NetlinkSocket() as route:
        for index in sorted(found):
            with suppress(SyscallError):  # the other end of the pair went with the first
                network_links.remove(route, index, f"#{index}")


def _unfinished(called: str, after: int, master: str) -> set[int]:
    with NetlinkSocket() as route:
        there = {link.state.index: link for link in network_state.links(route)}
    bridges = {0, *(index for index, link in there.items() if link.state.ifname == master)}
    new = {index: link for index, link in there.items() if index > after and re.fullmatch(called, link.state.ifname)}
    pairs = {index: link for index, link in new.items() if link.netnsid is None and link.link in new}
    return {index for index, link in pairs.items() if {link.master, new[link.link].master} <= bridges}


def check_ifname(ifname: str) -> None:
    """Refuse what cannot be the name of a link.

    Raises:
        LabError: empty, over 15 bytes, or with a character that the kernel or ip(8) refuses.
    """
    cause = None
    if not ifname:
        cause = "it is empty"
    elif len(os.fsencode(ifname)) > _IFNAME_BYTES:
        cause = f"it is longer than {_IFNAME_BYTES} bytes"
    elif ifname in (".", "..") or any(character in "/:" or character.isspace() for character in ifname):
        cause = "the kernel refuses . and .., and any / or : or white space in it"
    elif ifname.startswith("-") or not ifname.isprintable():
        cause = "ip(8) would take it for an option, or could not read it"
    if cause:
        raise LabError(f"{ifname!r} cannot name a link", cause=cause, remedy="a short word such as veth1")


def taken(ifname: str, where: Place) -> LinkState | None:
    """Return the link that has a name where one is to be made, or None.

    Raises:
        LabError: there is no such namespace, or it is another's.
    """
    where.check_there()

    def look() -> LinkState | None:
        with NetlinkSocket() as route:
            where.check(route)
            return next((described(route, link) for link in network_state.links(route) if link.state.ifname == ifname), None)

    return netlink.within(where.path, look)


def refuse_taken(found: LinkState | None, where: Place) -> None:
    """Refuse to make a link whose name is taken.

    Raises:
        SyscallError: EEXIST, with what has the name.
    """
    if found is not None:
        cause = f"{where.title} has a {found.kind or 'hardware'} link of that name, index {found.index}"
        remedy = f"{where.prefix}ip link delete {found.ifname}, if nobody needs it; or take another name"
        raise SyscallError("RTM_NEWLINK", errno.EEXIST, (found.ifname,), cause=cause, remedy=remedy, see="rtnetlink(7)")


def place_of(ifname: str, where: Place) -> tuple[End, LinkState]:
    """Return a link of the namespace that this thread is in, and what the ledger keeps of it."""
    with NetlinkSocket() as route:
        found = by_name(route, ifname, where)
        return End(where.path or "", route.cookie(), found.state.index), described(route, found)


def by_names(where: Place) -> dict[str, LinkState]:
    """Read all links of a namespace with their addresses, by their names."""
    where.check_there()

    def read() -> dict[str, LinkState]:
        with NetlinkSocket() as route:
            addresses = network_state.addresses(route)
            found = [link.state for link in network_state.links(route)]
        return {state.ifname: replace(state, addresses=tuple(addresses.get(state.index, ()))) for state in found}

    return netlink.within(where.path, read)


def word(ifname: str) -> str:
    """Write a name so that ip(8) cannot take it for a keyword (`a` would be `address`)."""
    quoted = shlex.quote(ifname)
    return quoted if any(character.isdigit() for character in ifname) else f"dev {quoted}"


def _pair_key(ifname: str, peer: str, one: Place, other: Place) -> dict[str, str]:
    return {"link_kind": "veth", "ifname": ifname, "peer": peer, "netns": one.path or "", "peer_netns": other.path or ""}


def _is_pair(here: LinkState, there: LinkState, one: Place, other: Place) -> bool:
    networks = states(rules=False)
    inodes = [os.stat(where.path or HOST_NET).st_ino for where in (one, other)]
    name = next((network.name for network in networks if network.inode == inodes[1]), "")
    found = (link for network in networks if network.inode == inodes[0] for link in network.links)
    return any(link.index == here.index and link.peer == (name, there.ifname) for link in found)


def _still_there(key: dict[str, str]) -> Iterator[list[LinkState]]:
    """Return the ends of each of this lab's links of that key; what went with its namespace is written as gone."""
    for entry in ledger.live(ledger.owner()):
        if entry.kind == "link" and entry.key == key and "ends" in entry.identity:
            found = [state for end in network_links.ends(entry) if (state := network_links.look(end))]
            if found:
                yield found
            else:
                ledger.gone(entry)


def _make_veth(ifname: str, peer: str, one: Place, other: Place, entry: ledger.Entry) -> list[tuple[End, LinkState]]:
    with open(other.path or HOST_NET, "rb") as file:
        body = network_requests.new_veth(ifname, peer, file.fileno() if other != one else None)
        first = netlink.within(one.path, lambda: _make(ifname, "veth", body, one, entry))
    return [first, netlink.within(other.path, lambda: place_of(peer, other))]


def _make(ifname: str, kind: str, body: bytes, where: Place, entry: ledger.Entry) -> tuple[End, LinkState]:
    with NetlinkSocket() as route:
        try:
            route.request(netlink.RTM_NEWLINK, body, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, (ifname, f"kind {kind}"))
        except SyscallError as error:
            if error.errno == errno.EEXIST:
                network_links.write_ends(entry, [])  # another was faster: the undo must not take theirs
            raise
    return place_of(ifname, where)
