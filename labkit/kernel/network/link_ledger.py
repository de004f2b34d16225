"""The virtual links that a lab made: written in the ledger, found again wherever they were moved, removed.

A link is known by its namespace (the cookie) and its index there, which no other link of that namespace ever gets.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel.network import netlink
from labkit.kernel.network import reading as network_state
from labkit.kernel.network import requests as network_requests
from labkit.kernel.network.messages import Link
from labkit.kernel.network.netlink import NetlinkSocket
from labkit.kernel.network.places import Place
from labkit.kernel.state import LinkState


@dataclass(frozen=True)
class End:
    """Where a link is, as the ledger keeps it.

    Attributes:
        path: file of its namespace, "" for the host's.
        cookie: the number of the namespace, 0 where the kernel has none.
        index: its number there.
        ifname: the name it must have, too; "" where the index says enough.
    """

    path: str
    cookie: int
    index: int
    ifname: str = ""


def ends(entry: ledger.Entry) -> list[End]:
    """Return where the ends of a link are, by the ledger; none where it died before it was made."""
    return [End(*end) for end in entry.identity.get("ends", ())]


def write_ends(entry: ledger.Entry, found: list[End]) -> None:
    """Keep in an entry where the ends of its link are."""
    entry.identity["ends"] = [[end.path, end.cookie, end.index, end.ifname] for end in found]


def entry_at(path: str, cookie: int, index: int) -> ledger.Entry | None:
    """Return this lab's entry of the link that is there."""
    for entry in reversed(ledger.live(ledger.owner())):
        if entry.kind == "link" and any((end.path, end.cookie, end.index) == (path, cookie, index) for end in ends(entry)):
            return entry
    return None


def claimed(ifname: str) -> bool:
    """Tell whether this lab claims the name of a link that is made by hand."""
    return any(entry.kind == "link-claim" and entry.key["ifname"] == ifname for entry in ledger.live(ledger.owner()))


def look(end: End) -> LinkState | None:
    """Return the link that is at that place now, or None if it is not that one."""

    def read() -> LinkState | None:
        with NetlinkSocket() as route:
            if route.cookie() != end.cookie:
                return None
            found = [link for link in network_state.links(route) if link.state.index == end.index]
            if not found or end.ifname not in ("", found[0].state.ifname):
                return None
            return described(route, found[0])

    try:
        return netlink.within(end.path or None, read)
    except (LabError, FileNotFoundError):  # its namespace is gone, and with it the link
        return None


def described(route: NetlinkSocket, link: Link) -> LinkState:
    """Return the record of a link with its addresses."""
    return replace(link.state, addresses=tuple(network_state.addresses(route).get(link.state.index, ())))


def by_name(route: NetlinkSocket, ifname: str, where: Place) -> Link:
    """Return the link of that name in the namespace that the socket is in.

    Raises:
        SyscallError: ENODEV; the links that there are, are the cause.
    """
    found = network_state.links(route)
    for link in found:
        if link.state.ifname == ifname:
            return link
    cause = f"{where.title} has {', '.join(link.state.ifname for link in found)}"
    raise SyscallError("RTM_GETLINK", errno.ENODEV, (ifname,), cause=cause, see="rtnetlink(7)")


def read(ifname: str, where: Place) -> LinkState:
    """Read one link with its addresses; SyscallError (ENODEV) where there is none of that name."""
    where.check_there()

    def there() -> LinkState:
        with NetlinkSocket() as route:
            return described(route, by_name(route, ifname, where))

    return netlink.within(where.path, there)


def check_ours(route: NetlinkSocket, link: Link, where: Place) -> None:
    """Refuse to change a link that is neither in a namespace of this lab nor made by it.

    Raises:
        LabError: it is the machine's, or another's.
    """
    if where.ours(route) or claimed(link.state.ifname) or entry_at(where.path or "", route.cookie(), link.state.index):
        return
    raise LabError(
        f"link {link.state.ifname} in {where.title} is not this lab's",
        cause="the ledger of this lab names neither it nor its namespace",
        remedy="make a link of the lab's own, or change it by hand",
    )


def remove(route: NetlinkSocket, index: int, ifname: str) -> None:
    """Delete a link; of a veth, the other end goes with it."""
    route.request(netlink.RTM_DELLINK, network_requests.set_link(index), arguments=(ifname,))


def change(ifname: str, where: Place, kind: int, flags: int, body: Callable[[NetlinkSocket, Link], bytes | None], words: str) -> LinkState:
    """Change a link of this lab by one request and read it back.

    Args:
        ifname: the link.
        where: its namespace.
        kind: RTM_*.
        flags: NLM_F_* beside those of every request.
        body: makes the request's body from a socket there and the link; None where there is nothing to do.
        words: the line of ip(8) that does the same, without what says where.

    Raises:
        SyscallError: ENODEV where there is no such link; what the kernel says.
        LabError: it is not this lab's.
    """
    where.check_there()
    arguments = tuple(words.split()[2:])

    def request() -> tuple[LinkState, bool]:
        with NetlinkSocket() as route:
            link = by_name(route, ifname, where)
            wanted = body(route, link)
            if wanted is not None:
                check_ours(route, link, where)
                route.request(kind, wanted, flags, arguments)
            return described(route, by_name(route, ifname, where)), wanted is not None

    state, changed = netlink.within(where.path, request)
    if changed:
        trace.record(where.prefix + words, calls=[f"sendmsg({netlink.name(kind)} {' '.join(arguments)})"])
    return state


@ledger.undoes("link")
def _undo_link(entry: ledger.Entry) -> None:
    found = ends(entry)
    if "ends" not in entry.identity:  # died between the intent and the record: it is where it was to be made
        found = _made_unrecorded(entry.key)
    for end in found:
        state = look(end)
        if state is not None and state.kind == entry.key["link_kind"]:
            _remove_at(end.path, end.index, state.ifname)


@ledger.undoes("link-claim")
def _undo_claim(entry: ledger.Entry) -> None:
    ifname = entry.key["ifname"]
    with NetlinkSocket() as route:
        index = next((link.state.index for link in network_state.links(route) if link.state.ifname == ifname), 0)
    if index:
        _remove_at("", index, ifname)


def _made_unrecorded(key: dict[str, str]) -> list[End]:
    def read() -> list[Any]:
        with NetlinkSocket() as route:
            here = {link.state.ifname: link for link in network_state.links(route)}
            link = here.get(key["ifname"])
            return [route.cookie(), link.state.index] if link and link.state.kind == key["link_kind"] else []

    try:
        found = netlink.within(key["netns"] or None, read)
    except (LabError, FileNotFoundError):
        return []
    return [End(key["netns"], *found)] if found else []


def _remove_at(path: str, index: int, ifname: str) -> None:
    def delete() -> None:
        with NetlinkSocket() as route:
            remove(route, index, ifname)

    try:
        netlink.within(path or None, delete)
    except SyscallError as error:
        if error.errno != errno.ENODEV:  # the other end of a pair went with the first
            raise
