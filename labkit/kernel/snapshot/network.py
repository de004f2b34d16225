"""What changed in the network namespaces between two snapshots: namespaces, links, addresses, routes, nft rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace

from labkit.kernel.snapshot import noise
from labkit.kernel.snapshot.changes import values, whole
from labkit.kernel.snapshot.labels import Labels
from labkit.kernel.state import Change, LinkState, NetworkState, RouteState, Snapshot

Link = tuple[str, str]
"""(netns, ifname)."""


def networks(before: Snapshot, after: Snapshot, labels: Labels) -> Iterator[Change]:
    """Give what changed in the machine's network namespace, in the named ones, and in those of the lab's processes."""
    old, new = _shown(before, labels), _shown(after, labels)
    named_old = {name: each for name, each in old.items() if name in labels.netns}
    named_new = {name: each for name, each in new.items() if name in labels.netns}
    yield from whole("netns", named_old, named_new, str, lambda _: "")
    for name in named_old.keys() & named_new.keys():
        yield from values("netns", name, {"inode": str(old[name].inode)}, {"inode": str(new[name].inode)})
    links_old, links_new = _links(old, new), _links(new, old)
    moved = _moved(links_old, links_new)
    yield from _link_changes(links_old, links_new, moved)
    gone = links_old.keys() - links_new.keys() - moved.keys()
    yield from whole("address", _addresses(old, gone, moved), _addresses(new, (), {}), _address_name, lambda _: "")
    both = {name: each for name, each in old.items() if name in new}  # what went with its namespace needs no word of its own
    yield from whole("route", _routes(both), _routes(new), _text_name, lambda _: "")
    yield from whole("rule", _rules(both), _rules(new), _text_name, lambda _: "")


def _shown(snapshot: Snapshot, labels: Labels) -> dict[str, NetworkState]:
    called = {each.name: labels.network(each) for each in snapshot.networks}
    shown = (each for each in snapshot.networks if called[each.name])
    return {called[each.name]: _without_bridge_of_pods(each, called) for each in shown}


def _without_bridge_of_pods(network: NetworkState, called: Mapping[str, str]) -> NetworkState:
    kept = [link for link in network.links if link.ifname not in noise.BRIDGE_OF_PODS]
    routes = [route for route in network.routes if route.ifname not in noise.BRIDGE_OF_PODS]
    return replace(network, links=tuple(_with_named_peer(link, called) for link in kept), routes=tuple(routes))


def _with_named_peer(link: LinkState, called: Mapping[str, str]) -> LinkState:
    """Call the network namespace of a veth's other end as it is called elsewhere."""
    name = called.get(link.peer[0]) if link.peer else None
    return replace(link, peer=(name, link.peer[1])) if link.peer and name else link


def _links(networks: Mapping[str, NetworkState], other: Container[str]) -> dict[Link, LinkState]:
    return {
        (name, link.ifname): link
        for name, each in networks.items()
        for link in each.links
        if name in other or link.ifname not in noise.LINKS_OF_A_NEW_NAMESPACE
    }


def _moved(before: Mapping[Link, LinkState], after: Mapping[Link, LinkState]) -> dict[Link, Link]:
    """Pair what went here with what appeared there: a link keeps its MAC address when it is moved or renamed."""
    went = {key: before[key] for key in before.keys() - after.keys()}
    came = {key: after[key] for key in after.keys() - before.keys()}
    pairs = {}
    for old, link in went.items():
        same = [new for new, other in came.items() if (other.mac, other.kind) == (link.mac, link.kind)]
        if not link.mac.strip("0:"):
            same = [new for new in same if new[1] == old[1]]
        if len(same) == 1:
            pairs[old] = same[0]
    taken = Counter(pairs.values())
    return {old: new for old, new in pairs.items() if taken[new] == 1}


def _link_changes(before: Mapping[Link, LinkState], after: Mapping[Link, LinkState], moved: Mapping[Link, Link]) -> Iterator[Change]:
    came = set(moved.values())
    stayed_or_went = {key: link for key, link in before.items() if key not in moved}
    stayed_or_came = {key: link for key, link in after.items() if key not in came}
    yield from whole("link", stayed_or_went, stayed_or_came, _link_name, _describe)
    for old, new in moved.items():
        yield from values("link", new[1], {"netns": old[0]}, {"netns": new[0]})
        yield from values("link", _link_name(new), {"ifname": old[1]}, {"ifname": new[1]})
    for old, new in [*moved.items(), *((key, key) for key in before.keys() & after.keys())]:
        yield from values("link", _link_name(new), _link_values(before[old]), _link_values(after[new]))


def _link_values(link: LinkState) -> dict[str, str]:
    return {"state": "up" if link.up else "down", "master": link.master, "mtu": str(link.mtu), "rate": _rate(link)}


def _rate(link: LinkState) -> str:
    return f"{link.rate * 8 / 1e6:g} Mbit/s (tbf)" if link.rate else ""


def _describe(link: LinkState) -> str:
    peer = f"peer {_in(link.peer[0], link.peer[1])}" if link.peer else ""
    master = f"master {link.master}" if link.master else ""
    return ", ".join(part for part in (link.kind, peer, "up" if link.up else "down", master, _rate(link)) if part)


def _in(netns: str, text: str) -> str:
    return text if netns == "host" else f"{text} in {netns}"


def _link_name(link: Link) -> str:
    return _in(*link)


def _addresses(networks: Mapping[str, NetworkState], gone: Container[Link], moved: Mapping[Link, Link]) -> dict[tuple[Link, str], str]:
    found: dict[tuple[Link, str], str] = {}
    for name, each in networks.items():
        for link in each.links:
            key = (name, link.ifname)
            if key not in gone:  # else they went with their link
                found |= {(moved.get(key, key), address): address for address in link.addresses if not noise.ADDRESSES.search(address)}
    return found


def _address_name(key: tuple[Link, str]) -> str:
    (netns, ifname), address = key
    return _in(netns, f"{address} on {ifname}")


def _routes(networks: Mapping[str, NetworkState]) -> dict[tuple[str, str, int], str]:
    return _numbered(
        {name: [_route(route) for route in each.routes if not noise.is_implied_route(route, each.links)] for name, each in networks.items()}
    )


def _route(route: RouteState) -> str:
    parts = (route.destination, f"via {route.gateway}" if route.gateway else "", f"dev {route.ifname}" if route.ifname else "")
    return " ".join(part for part in parts if part)


def _rules(networks: Mapping[str, NetworkState]) -> dict[tuple[str, str, int], str]:
    shown = {name: [rule for rule in each.rules if not noise.NAT_OF_A_POD.search(rule)] for name, each in networks.items()}
    return _numbered({name: [noise.without_counters(rule) for rule in rules] for name, rules in shown.items()})


def _numbered(texts: Mapping[str, list[str]]) -> dict[tuple[str, str, int], str]:
    """Key each text by its namespace and by how often it was there before: the same line may stand there twice."""
    found = {}
    for name, lines in texts.items():
        seen: Counter[str] = Counter()
        for line in lines:
            seen[line] += 1
            found[name, line, seen[line]] = line
    return found


def _text_name(key: tuple[str, str, int]) -> str:
    return _in(key[0], key[1])
