"""Networks of a lab: what plugins leave in the kernel is in the ledger before they are called, and goes with the lab.

Three kinds of entry. The lab's caller (one a lab) stands for what plugins share and leave by design: chains, tables, files. Each
attachment stands for what the plugins of one network made for one container. The name of a network that a person hands to a plugin
by hand stands for the chains that are commented with it, and for the addresses that host-local keeps under it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from labkit import ledger
from labkit.cni.attachment import Attachment
from labkit.cni.caller import Caller
from labkit.cni.configuration import Network
from labkit.cni.result import Result
from labkit.errors import LabError
from labkit.host.services import packet_filter
from labkit.kernel import network as links

LEASES = Path("/var/lib/cni/networks")
"""Where host-local keeps its addresses for whoever names no other place."""

_CALLER, _ATTACHMENT, _NETWORK = "cni caller", "cni attachment", "cni network"


def caller(state: Path) -> Caller:
    """Return the caller of a lab; what the packet filter has before its first network is noted in the ledger.

    Args:
        state: its directory.
    """
    if not _ours(_CALLER, state=str(state)):
        noted = packet_filter.state()
        ledger.made(ledger.intend(_CALLER, state=str(state)), filter=noted)
    return Caller(state)


def network(name: str) -> None:
    """Take the name of a network for this lab, whose plugins will be called by hand.

    Raises:
        LabError: host-local keeps addresses of such a network already.
    """
    if not _ours(_NETWORK, name=name):
        if (LEASES / name).exists():
            raise LabError(f"there is a network {name} already, and this lab did not make it", cause=f"{LEASES / name} is there")
        ledger.made(ledger.intend(_NETWORK, name=name), filter=packet_filter.state())


def attach(one: Caller, wanted: Network, link: Attachment) -> Result:
    """Attach a container as `Caller.add` does, in the ledger before; a container that is attached so already is taken out first.

    Raises:
        CniError: a plugin failed.
        LabError: a bridge that is to be made is not this lab's.
    """
    key = {"state": str(one.state), "network": wanted.name, "container": link.container_id, "ifname": link.ifname}
    detach(one, wanted, link)
    for plugin in wanted.plugins:
        if plugin.get("type") == "bridge":
            links.claim_link(str(plugin.get("bridge") or "cni0"))
    _note(one, wanted.name)
    entry = ledger.intend(_ATTACHMENT, **key)
    try:
        return one.add(wanted, link)
    except BaseException:
        if not _is_attached(one, wanted, link):
            ledger.gone(entry)
        raise


def detach(one: Caller, wanted: Network, link: Attachment) -> bool:
    """Take a container out as `Caller.delete` does.

    Returns:
        Whether it was attached.

    Raises:
        LabError: plugins have failed; the entry in the ledger stays.
    """
    there = _is_attached(one, wanted, link)
    if there:
        try:
            one.delete(wanted, link)
        except ExceptionGroup as group:
            raise LabError(group.message, cause="; ".join(str(error) for error in group.exceptions)) from group
    for entry in _ours(_ATTACHMENT, state=str(one.state), network=wanted.name, container=link.container_id, ifname=link.ifname):
        ledger.gone(entry)
    return there


def _note(one: Caller, name: str) -> None:
    """Keep the name of a network with the lab's caller: its rules in the packet filter have it in a comment."""
    for entry in _ours(_CALLER, state=str(one.state)):
        known = entry.identity.get("networks", [])
        if name not in known:
            ledger.made(entry, networks=[*known, name])


def _is_attached(one: Caller, wanted: Network, link: Attachment) -> bool:
    return any((found.name, there.ifname) == (wanted.name, link.ifname) for found, there, _ in one.attached(link.container_id))


def _ours(kind: str, **key: str) -> list[ledger.Entry]:
    return [entry for entry in ledger.live(ledger.owner()) if entry.kind == kind and entry.key == key]


@ledger.undoes(_ATTACHMENT)
def _undo_attachment(entry: ledger.Entry) -> None:
    one, key = Caller(Path(entry.key["state"])), entry.key
    for wanted, link, _ in one.attached(key["container"]):
        if (wanted.name, link.ifname) == (key["network"], key["ifname"]):
            try:
                one.delete(wanted, link)
            except ExceptionGroup:  # a daemon has ended, a link was deleted by hand: what is left goes with the namespace
                one.abandon(wanted, link)


@ledger.undoes(_CALLER)
def _undo_caller(entry: ledger.Entry) -> None:
    if "filter" in entry.identity:
        packet_filter.restore("cni", (), (), entry.identity["filter"], entry.identity.get("networks", ()))


@ledger.undoes(_NETWORK, survives_reboot=True)
def _undo_network(entry: ledger.Entry) -> None:
    name = entry.key["name"]
    if ledger.of_this_boot(entry) and "filter" in entry.identity:
        packet_filter.restore("cni", (), (), entry.identity["filter"], (name,))
    place = LEASES / name
    if place.is_dir():
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
    for directory in (LEASES, LEASES.parent):
        with suppress(OSError):  # others keep theirs there
            os.rmdir(directory)
