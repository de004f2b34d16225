"""Why a packet, or its answer, was not seen any further: measured at the place where it was seen last."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

from labkit.kernel.network import link_causes
from labkit.kernel.network.capture import Frame
from labkit.kernel.network.case import Case
from labkit.kernel.network.link_causes import Stop
from labkit.kernel.network.path import Trail
from labkit.kernel.network.rules import Passing
from labkit.kernel.network.topology import End, Way

UNKNOWN = "unknown"
REFUSED, SILENT = errno.ECONNREFUSED, errno.ETIMEDOUT


def of(case: Case) -> Stop:
    """Return where a packet without the answer that says yes stopped, and why."""
    if not case.request:
        return _sending(case)
    refused = case.probe.protocol == "tcp" and case.answer and "RST" in (case.answer.packets[-1].tcp or _NO_FLAGS).flags
    if refused and case.answer.last.netns == case.origin:
        return _refused(case)
    if case.answer:
        return _along(case, case.answer)
    last = case.request.last
    if not last.outgoing and not case.is_port(last):
        number = len(case.request.frames) - 1
        if case.topology.way(last.netns, case.routed_to(case.request, number)[0]).local:
            return _delivered(case)
    return _along(case, case.request)


class _NoFlags:
    flags: tuple[str, ...] = ()


_NO_FLAGS = _NoFlags()


def _along(case: Case, seen: Trail) -> Stop:
    """Return why the packet was not seen after the last place of a trail."""
    last, number = seen.last, len(seen.frames) - 1
    if not last.outgoing and not case.is_port(last):
        return _forwarding(case, seen, number)
    hop = _next_hop(case, seen)
    return link_causes.after(case.topology, last, hop) or _misaddressed(case, seen, hop) or _bridged(case, seen) or _left(case, seen)


def _next_hop(case: Case, seen: Trail) -> str:
    """Return whom a frame was for: the router on the way of the namespace that sent it, or the destination itself."""
    packet, sender = seen.packets[-1], _sender(case, seen.last)
    destination = packet.ip.destination if packet.ip else ""
    if sender is None and not seen.last.outgoing:
        return destination
    return case.topology.way(sender.netns if sender else seen.last.netns, destination).gateway or destination


def _sender(case: Case, frame: Frame) -> End | None:
    ethernet = frame.packet.ethernet
    return next((end for end in case.topology.ends() if ethernet and end.link.mac == ethernet.source), None)


def _misaddressed(case: Case, seen: Trail, hop: str) -> Stop | None:
    """Return that a frame was sent to another MAC address than that of its neighbour: to one which the sender has learnt before."""
    ethernet, sender = seen.last.packet.ethernet, _sender(case, seen.last)
    owners = case.topology.owners(hop)
    if ethernet is None or not owners or ethernet.destination in [owner.link.mac for owner in owners]:
        return None
    called = case.topology.called(sender) if sender else f"{seen.last.ifname} in {case.topology.title(seen.last.netns)}"
    owner = owners[0]
    at = f"{hop} is at {owner.link.mac}, {case.topology.called(owner)}"
    why = f"{called} sends to {ethernet.destination}, which it has learnt before, and {at}"
    return Stop("stale neighbour", called, why)


def _bridged(case: Case, seen: Trail) -> Stop | None:
    """Return the rule that dropped a frame on a bridge: there the packet filter of IP is asked, too, where br_netfilter is loaded."""
    last, number = seen.last, len(seen.frames) - 1
    end = case.end(last)
    bridge = case.topology.bridge_of(end) if end else None
    if last.outgoing or bridge is None or not case.topology.setting(last.netns, "bridge/bridge-nf-call-iptables"):
        return None
    name = bridge.link.ifname
    return _dropped(case, last.netns, ("prerouting", "forward"), replace(case.passing(seen, number), iifname=name, oifname=name))


def _sending(case: Case) -> Stop:
    """Return why a packet was not seen to leave the namespace that sends it."""
    netns, passing = case.origin, case.passing(case.request, -1)
    destination, port = case.sent_to()
    found = _routable(case, netns, destination, passing)
    if found:
        return found
    way = case.topology.way(netns, destination)
    leaving = replace(passing, oifname=way.ifname)
    return (
        _dropped(case, netns, ("output",), leaving)
        or _unleft(case, netns, way, destination)
        or _dropped(case, netns, ("postrouting",), replace(leaving, destination=destination, port=port))
        or _unknown(case, netns)
    )


def _forwarding(case: Case, seen: Trail, number: int) -> Stop:
    """Return why a packet that came into a namespace did not leave it again."""
    frame, passing = seen.frames[number], case.passing(seen, number)
    netns, (destination, port) = frame.netns, case.routed_to(seen, number)
    found = _dropped(case, netns, ("prerouting",), passing) or _filtered_back(case, netns, frame.ifname, passing.source)
    if found:
        return found
    title = case.topology.title(netns)
    if not case.topology.setting(netns, f"ipv4/conf/{frame.ifname}/forwarding"):
        why = f"{title} does not forward: ip_forward is 0, and {destination} is none of its addresses"
        return Stop("no forwarding", f"{frame.ifname} in {title}", why)
    found = _routable(case, netns, destination, passing)
    if found:
        return found
    way = case.topology.way(netns, destination)
    leaving = replace(passing, destination=destination, port=port, oifname=way.ifname)
    return (
        _dropped(case, netns, ("forward",), leaving)
        or _unleft(case, netns, way, destination)
        or _dropped(case, netns, ("postrouting",), leaving)
        or _unknown(case, netns)
    )


def _delivered(case: Case) -> Stop:
    """Return why no answer was seen of a packet that came to the namespace that has its address."""
    seen, number = case.request, len(case.request.frames) - 1
    frame, passing = seen.last, case.passing(seen, number)
    found = _dropped(case, frame.netns, ("prerouting", "input"), passing) or _filtered_back(case, frame.netns, frame.ifname, passing.source)
    if found:
        return found
    back = _routable(case, frame.netns, passing.source, passing)
    if back:
        return _untranslated(case, frame.netns, passing.source) if back.fault == "no route" else back
    way = case.topology.way(frame.netns, passing.source)
    reply = Passing("", way.ifname, passing.destination, passing.source, passing.protocol, answer=True)
    return (
        _dropped(case, frame.netns, ("output", "postrouting"), reply)
        or _unleft(case, frame.netns, way, passing.source)
        or _unknown(case, frame.netns)
    )


def _untranslated(case: Case, netns: str, source: str) -> Stop:
    """Return why a namespace has no way back: of a source that a router on the way could have changed, that none did."""
    title = case.topology.title(netns)
    router = next((one for one in _routers(case) if source == case.probe.source), None)
    if router is None:
        return Stop("no route back", f"{title}", f"{title} got the packet and has no route to its source, {source}")
    name = case.topology.title(router)
    why = f"no rule of {name} gave the packet another source (MASQUERADE): {title} got it from {source}, and has no route back to that"
    return Stop("no masquerade", f"postrouting in {name}", why)


def _routers(case: Case) -> Iterator[str]:
    """Yield the namespaces that have forwarded the packet and are to lend it an address: with chains of nat, or a bridge for containers."""
    for number, frame in enumerate(case.request.frames):
        end = case.end(frame)
        if not number or frame.outgoing or case.is_port(frame) or frame.netns == case.request.last.netns or end is None:
            continue
        if end.link.kind == "bridge" or (frame.netns in case.after and case.after[frame.netns].translates):
            yield frame.netns


def _left(case: Case, seen: Trail) -> Stop:
    """Return what can be said of a packet that left by a link whose other end is not in sight."""
    last, packet = seen.last, seen.packets[-1]
    called = f"{last.ifname} in {case.topology.title(last.netns)}"
    end = case.end(last)
    source = packet.ip.source if packet.ip else ""
    destination = packet.ip.destination if packet.ip else ""
    if lost := case.topology.down_towards(last.netns, destination):
        why = f"link {case.topology.called(lost)}, whose network has {destination}, is down: the packet left by {called} instead"
        return Stop("bridge down" if lost.link.kind == "bridge" else "link down", case.topology.called(lost), why)
    translating = last.netns != case.origin and not case.topology.has(last.netns, source)
    if last.outgoing and end and not case.topology.peer(end) and translating:
        name = case.topology.title(last.netns)
        why = f"it left by {called} with the source {source}, which is no address of {name}: no rule changed that (MASQUERADE)"
        return Stop("no masquerade", f"postrouting in {name}", f"{why}, and no answer came")
    if last.outgoing and end and not case.topology.peer(end):
        return Stop("no answer", called, f"it left by {called}, whose other end is not in sight, and no answer came")
    return _unknown(case, last.netns)


def _refused(case: Case) -> Stop:
    """Return who refused a connection: a rule, or a host on which nobody listens."""
    last, number = case.request.last, len(case.request.frames) - 1
    destination, port = case.routed_to(case.request, number)
    way = case.topology.way(last.netns, destination)
    passing = replace(case.passing(case.request, number), destination=destination, port=port, oifname="" if way.local else way.ifname)
    found = _dropped(case, last.netns, ("input",) if way.local else ("forward",), passing)
    if found:
        return found
    title, packet = case.topology.title(last.netns), case.request.packets[-1]
    address = f"{packet.ip.destination if packet.ip else ''}:{packet.tcp.destination if packet.tcp else ''}"
    why = f"nobody listens at {address} in {title}"
    if any(end.link.kind == "bridge" for end in case.topology.ends() if end.netns == last.netns):
        why += ", and no DNAT rule there gave the packet another destination: nobody published this port"
        return Stop("not published", f"{last.ifname} in {title}", why)
    return Stop("nobody listens", f"{last.ifname} in {title}", why)


def _routable(case: Case, netns: str, destination: str, passing: Passing) -> Stop | None:
    """Return why a namespace has no way to an address, by its own tables."""
    topology, title = case.topology, case.topology.title(netns)
    way = topology.way(netns, destination)
    if lost := topology.down_towards(netns, destination):
        why = f"link {topology.called(lost)}, whose network has {destination}, is down, and its route is gone"
        return Stop("bridge down" if lost.link.kind == "bridge" else "link down", topology.called(lost), why)
    if not way.refused:
        return None
    unset = [link for link in topology.states[netns].links if not link.up and any("." in text for text in link.addresses)]
    if unset and not passing.iifname:
        called = f"{unset[0].ifname} in {title}"
        return Stop("link down", called, f"link {called} is down, and its routes are gone: there is none to {destination}")
    name = errno.errorcode.get(way.refused, str(way.refused))
    return Stop("no route", title, f"{title} has no route to {destination} ({name})")


def _unleft(case: Case, netns: str, way: Way, destination: str) -> Stop | None:
    """Return why a packet did not leave by the link of its route: the link, or a neighbour."""
    end = case.topology.end(netns, way.ifname)
    if end is None:
        return None
    hop = way.gateway or destination
    found = link_causes.down(case.topology, end) or link_causes.unanswered(
        case.topology, case.frames, netns, way.ifname, hop, gateway=bool(way.gateway)
    )
    if found and found.fault == link_causes.NO_NEIGHBOUR:
        return _unheard(case, netns, way.ifname, hop) or found
    return found


def _unheard(case: Case, netns: str, ifname: str, hop: str) -> Stop | None:
    """Return why one who has an address does not answer a question for it: of the address that asks, too, the way back is looked at."""
    for frame in case.frames:
        arp = frame.packet.arp
        if arp and arp.target == hop and (frame.netns, frame.ifname, frame.outgoing) == (netns, ifname, True):
            found = (_filtered_back(case, owner.netns, owner.link.ifname, arp.sender) for owner in case.topology.owners(hop))
            return next((stop for stop in found if stop), None)
    return None


def _filtered_back(case: Case, netns: str, ifname: str, source: str) -> Stop | None:
    """Return that a namespace drops what comes in by another link than it would answer by: rp_filter; or what has its own address."""
    topology, title = case.topology, case.topology.title(netns)
    if topology.has(netns, source) and ifname != "lo":
        why = f"the packet came in by {ifname} with the source {source}, which is an address of {title} itself"
        return Stop("duplicate address", f"{ifname} in {title}", why)
    strict = max(topology.setting(netns, f"ipv4/conf/{name}/rp_filter") for name in ("all", ifname))
    way = topology.way(netns, source)
    if not strict or (strict == 1 and way.ifname == ifname) or (strict == 2 and not way.refused) or way.local:
        return None
    leads = f"leads by {way.ifname}" if way.ifname else "is not there"
    why = f"rp_filter is {strict}: the packet came in by {ifname}, and the route of {title} to its source {source} {leads}"
    return Stop("rp_filter", f"{ifname} in {title}", why)


def _dropped(case: Case, netns: str, hooks: tuple[str, ...], passing: Passing) -> Stop | None:
    """Return the rule or the policy that dropped a packet at one of some hooks."""
    title = case.topology.title(netns)
    for hook in hooks:
        met = case.met(netns, hook, passing)
        if met.dropped:
            return Stop("dropped", f"{hook} in {title}", f"{met.dropped} in {title} drops the packet")
    return None


def _unknown(case: Case, netns: str) -> Stop:
    """Return that nothing was measured which says why; rules that drop and could not be compared with the packet are named."""
    title = case.topology.title(netns)
    perhaps = [rule for (where, _, _), met in case.seen_rules() if where == netns for rule in met.maybe]
    why = "it was not seen any further, and nothing that was measured says why"
    if perhaps:
        why += f"; whether rule “{perhaps[0].text}” in chain {perhaps[0].chain} of table {perhaps[0].table} did, a counter in it would tell"
    return Stop(UNKNOWN, title, why)
