"""Sandboxes of containers: for each its endpoints, what each is joined to, and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from labkit.kernel.network.endpoints import Endpoint, Sandbox
from labkit.show.tables import table
from labkit.show.view import View

HEADER = ("name", "link", "kind", "joined to", "address", "way out")


def sandbox_table(sandboxes: Iterable[tuple[str, Sandbox]]) -> View:
    """Tabulate sandboxes, a row an endpoint.

    Args:
        sandboxes: each with the name of its container.
    """
    return table(HEADER, [row for name, one in sandboxes for row in _rows(name, one)])


def _rows(name: str, one: Sandbox) -> Iterator[tuple[str, ...]]:
    if one.host:
        yield name, "", "", "this machine itself", "", ""
    elif not one.endpoints:
        yield name, "lo", "", "nothing", "", "none"
    for number, endpoint in enumerate(one.endpoints):
        kind = f"{endpoint.kind} {endpoint.detail.removeprefix('mode ')}".strip()
        first, way = (name, one.gateway or "none") if number == 0 else ("", "")
        yield first, endpoint.ifname, kind, _joined(endpoint), " ".join(endpoint.addresses), way


def _joined(endpoint: Endpoint) -> str:
    return f"{endpoint.joined or 'nothing in sight'}{endpoint.vxlan and f', vxlan {endpoint.vxlan}'}"
