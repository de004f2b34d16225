"""Network namespaces as boxes: their links, the cables between them, bridges, addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labkit.kernel.state import LinkState, NetworkState, RouteState, automatic
from labkit.show import markup, network_svg
from labkit.show.text import WIDTH, clean, columns, count, cut, indent, joined, natural, wrap
from labkit.show.view import View

EMPTY = "no network namespaces here yet"
MOST_NETWORKS = 12
"""Namespaces drawn before the rest is only counted."""
MOST_LINKS = 10
"""Links of one namespace before the rest is only counted."""
MOST_ROUTES = 6
MOST_ADDRESSES = 4
_LAMPS = {"up": "●", "down": "○", "no carrier": "◐"}
_NO_CARRIER = ("DOWN", "LOWERLAYERDOWN", "NOTPRESENT", "DORMANT")


@dataclass(frozen=True)
class Plug:
    """One link as it is drawn.

    Attributes:
        link: its record.
        state: "up", "down", or "no carrier" for one that is set up while nothing answers at its other end.
        port: whether it is drawn below the bridge that it is a port of.
        addresses: those that somebody gave; link-local ones and ::1, which the kernel gives by itself, are left out.
        ports: of a bridge, the ifnames of its ports.
    """

    link: LinkState
    state: str
    port: bool
    addresses: tuple[str, ...]
    ports: tuple[str, ...]

    @property
    def told(self) -> str:
        """What it is, in words."""
        kind = self.link.kind
        if self.link.peer is not None:
            kind = f"veth to {self.link.peer[1]} in {self.link.peer[0]}"
        elif kind == "bridge":
            kind = f"bridge with {count(len(self.ports), 'port')}" if self.ports else "bridge without ports"
        elif kind == "veth":
            kind = "veth, its other end is not in sight"
        master = f"port of {self.link.master}" if self.link.master and not self.port else ""
        return ", ".join(part for part in (kind, master) if part)


@dataclass(frozen=True)
class Site:
    """One network namespace as it is drawn.

    Attributes:
        name: of the namespace.
        plugs: its links, bridges with their ports first, lo last.
        more: how many links are only counted.
        routes: those of the main table, link-local ones left out.
        rules: how many lines of nft rules it has.
    """

    name: str
    plugs: tuple[Plug, ...]
    more: int
    routes: tuple[str, ...]
    rules: int


def network_picture(networks: Iterable[NetworkState]) -> View:
    """Draw network namespaces: each a box, a veth pair a line between its two ends, a bridge with its ports below it.

    Args:
        networks: in any order; the host comes first, then the named ones, then those without a name.
    """
    sites = network_sites(networks)
    if not sites:
        return View(EMPTY, markup.box(markup.note(EMPTY)))
    busy = [site for site in sites if site.name == "host" or any(plug.link.kind != "loopback" for plug in site.plugs)]
    shown = busy[:MOST_NETWORKS] if len(sites) > MOST_NETWORKS else sites
    others = [site for site in sites if site not in shown]
    lines = [line for site in shown for line in [*_site_lines(site), ""]][:-1]
    remarks = _remarks(others)
    text = joined([*lines, *([""] if remarks else []), *(line for remark in remarks for line in wrap(remark))])
    svg, size = network_svg.draw(shown)
    return View(text, markup.figure(markup.picture(svg, text, size), *map(markup.note, remarks)))


def network_sites(networks: Iterable[NetworkState]) -> list[Site]:
    """Return network namespaces as they are drawn: the host first, then the named ones, then those without a name."""
    return [_site(one) for one in sorted(networks, key=lambda one: (one.name != "host", one.name.startswith("net:["), natural(one.name)))]


def _remarks(others: Sequence[Site]) -> list[str]:
    if not others:
        return []
    names = ", ".join(clean(site.name) for site in others[:8])
    more = ", …" if len(others) > 8 else ""
    return [f"… {count(len(others), 'more network namespace')}: {names}{more}"]


def _site(network: NetworkState) -> Site:
    plugs = [_plug(link, network.links) for link in _ordered(network.links)]
    shown = plugs if len(plugs) <= MOST_LINKS + 1 else plugs[:MOST_LINKS]
    routes = tuple(_route(route) for route in network.routes if not automatic(route.destination) and "multicast" not in route.destination)
    return Site(network.name, tuple(shown), len(plugs) - len(shown), routes, len(network.rules))


def _ordered(links: Sequence[LinkState]) -> list[LinkState]:
    """Bridges with their ports, then veths, then others, lo last: what a lab makes before what was there."""
    masters = {link.ifname for link in links if link.kind == "bridge"}
    ordered: list[LinkState] = []
    by_name = sorted(links, key=lambda link: natural(link.ifname))
    for bridge in (link for link in by_name if link.kind == "bridge"):
        ordered += [bridge, *(link for link in by_name if link.master == bridge.ifname)]
    rest = [link for link in by_name if link.kind != "bridge" and link.master not in masters]
    return ordered + sorted(rest, key=lambda link: (link.kind == "loopback", link.kind != "veth"))


def _plug(link: LinkState, links: Sequence[LinkState]) -> Plug:
    state = "down" if not link.up else "no carrier" if link.operstate in _NO_CARRIER else "up"
    ports = tuple(sorted((other.ifname for other in links if other.master == link.ifname), key=natural)) if link.kind == "bridge" else ()
    port = any(other.ifname == link.master and other.kind == "bridge" for other in links)
    return Plug(link, state, port, link.given, ports)


def _route(route: RouteState) -> str:
    parts = [route.destination, f"via {route.gateway}" if route.gateway else "", f"dev {route.ifname}" if route.ifname else ""]
    return clean(" ".join(part for part in parts if part))


def _site_lines(site: Site) -> list[str]:
    lines = [*wrap(site.name), *indent(columns(_plug_rows(site.plugs), WIDTH - 2))]
    lines += ["  … " + count(site.more, "more link")] if site.more else []
    lines += [f"  route  {cut(route, WIDTH - 9)}" for route in site.routes[:MOST_ROUTES]]
    lines += ["  … " + count(len(site.routes) - MOST_ROUTES, "more route")] if len(site.routes) > MOST_ROUTES else []
    lines += [f"  nft    {count(site.rules, 'rule')}"] if site.rules else []
    return lines if len(lines) > 1 else [*lines, "  no links"]


def _plug_rows(plugs: Sequence[Plug]) -> list[list[str]]:
    rows = []
    for plug in plugs:
        first, *others = plug.addresses[:MOST_ADDRESSES] or [""]
        rows.append([f"{_LAMPS[plug.state]} {plug.state}", _branch(plug) + plug.link.ifname, first, plug.told])
        rows += [["", "", address, ""] for address in others]
        if len(plug.addresses) > MOST_ADDRESSES:
            rows.append(["", "", f"… {len(plug.addresses) - MOST_ADDRESSES} more", ""])
    addressed = any(row[2] for row in rows)
    return rows if addressed else [[*row[:2], row[3]] for row in rows]


def _branch(plug: Plug) -> str:
    return "└ " if plug.port else ""
