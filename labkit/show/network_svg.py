"""The picture of network namespaces: two columns of boxes, the cables in the lane between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labkit.show.svg import GROUND, Canvas, Point, span

if TYPE_CHECKING:
    from labkit.show.network import Plug, Site

_MARGIN, _BOX, _LANE, _GAP = 16, 292, 132, 16
_TITLE, _ROW, _LINE = 32, 22, 16
_INSET = 22
_MOST_ROUTES = 3
End = tuple[str, str]
"""(namespace, ifname)"""


@dataclass
class _Placed:
    """A box with its place, and where on its edge each link ends."""

    site: Site
    left: bool
    y: float
    ends: dict[str, float] = field(default_factory=dict)

    @property
    def x(self) -> float:
        return _MARGIN if self.left else _MARGIN + _BOX + _LANE

    @property
    def edge(self) -> float:
        """The x of the edge that looks at the lane."""
        return self.x + _BOX if self.left else self.x


def draw(sites: Sequence[Site], marks: Mapping[End, str] | None = None) -> tuple[str, tuple[int, int]]:
    """Return the SVG and its size in pixels.

    Args:
        sites: the namespaces.
        marks: what is written beside a link, such as the numbers of the hops of a packet.
    """
    canvas = Canvas()
    sides = _sides(sites)
    bottoms = {True: float(_MARGIN), False: float(_MARGIN)}
    placed = []
    for site, left in sides:
        box = _Placed(site, left, bottoms[left])
        bottoms[left] += _height(site) + _GAP
        placed.append(box)
    for box in placed:
        _draw_box(canvas, box)
    stubs = _draw_cables(canvas, placed)
    for box in placed:
        _draw_marks(canvas, box, marks or {})
    stubs = stubs or bool(marks)
    wide = 2 * _MARGIN + _BOX
    if not all(left for _, left in sides):
        wide += _LANE + _BOX
    elif stubs:
        wide += _LANE
    size = (wide, round(max(bottoms.values()) - _GAP + _MARGIN))
    return canvas.document(size, "network namespaces: " + ", ".join(site.name for site in sites)), size


def _sides(sites: Sequence[Site]) -> list[tuple[Site, bool]]:
    """Give each box a side, so that neighbours stand opposite each other; what has no cable fills the shorter column."""
    by_name = {site.name: site for site in sites}
    sides: dict[str, bool] = {}
    heights = {True: 0, False: 0}
    for first in sorted(sites, key=lambda site: not _neighbours(site, by_name)):
        side = heights[True] <= heights[False] or bool(_neighbours(first, by_name))
        queue = [(first.name, side)]
        while queue:
            name, left = queue.pop(0)
            if name in sides:
                continue
            sides[name] = left
            heights[left] += _height(by_name[name])
            queue += [(other, not left) for other in _neighbours(by_name[name], by_name)]
    return [(by_name[name], left) for name, left in sides.items()]


def _neighbours(site: Site, by_name: dict[str, Site]) -> list[str]:
    """Return the namespaces at the other end of its cables, in the order of its links."""
    names = [plug.link.peer[0] for plug in site.plugs if plug.link.peer]
    return list(dict.fromkeys(name for name in names if name in by_name and name != site.name))


def _height(site: Site) -> int:
    lines = sum(_ROW + _LINE * len(_below(plug)) for plug in site.plugs)
    return _TITLE + lines + _LINE * len(_footer(site)) + 12


def _beside(plug: Plug) -> str:
    """Return the address that has room beside the name, or ""."""
    inset = _INSET if plug.port else 0
    room = _BOX - 130 - inset - span(plug.link.ifname)
    return plug.addresses[0] if plug.addresses and span(plug.addresses[0]) <= room else ""


def _below(plug: Plug) -> list[str]:
    """Return the addresses that go below the name."""
    rest = plug.addresses[1:] if _beside(plug) else plug.addresses
    return [*rest[:3], *([f"and {len(rest) - 3} more"] if len(rest) > 3 else [])]


def _footer(site: Site) -> list[str]:
    lines = [f"… {site.more} more links"] if site.more else []
    lines += [route for route in site.routes if " via " in route][:_MOST_ROUTES]
    return lines + ([f"nft: {site.rules} rules"] if site.rules else [])


def _draw_box(canvas: Canvas, box: _Placed) -> None:
    site = box.site
    canvas.box((box.x, box.y), (_BOX, _height(site)))
    canvas.label((box.x + 12, box.y + 21), _title(site.name), 160, size=13, bold=True)
    canvas.label((box.x + _BOX - 12, box.y + 21), "network namespace", 110, size=10, quiet=True, mono=False, anchor="end")
    y = box.y + _TITLE
    bridge_y = y
    for plug in site.plugs:
        middle = y + _ROW / 2
        inset = _INSET if plug.port else 0
        if plug.port:  # an elbow from its bridge
            canvas.line((box.x + 18, bridge_y + 7), (box.x + 18, middle), (box.x + 32, middle))
        elif plug.link.kind == "bridge":
            bridge_y = middle
        _draw_plug(canvas, plug, (box.x + 18 + inset, middle))
        box.ends[plug.link.ifname] = middle
        y += _ROW
        for address in _below(plug):
            canvas.label((box.x + 32 + inset, y + 8), address, _BOX - 46 - inset, quiet=True)
            y += _LINE
    for line in _footer(site):
        canvas.label((box.x + 14, y + 12), line, _BOX - 28, size=11, quiet=True)
        y += _LINE


def _draw_marks(canvas: Canvas, box: _Placed, marks: Mapping[End, str]) -> None:
    """Write beside the edge of a box, over the cables, what its links are marked with."""
    way, anchor = (1, "start") if box.left else (-1, "end")
    for ifname, y in box.ends.items():
        text = marks.get((box.site.name, ifname), "")
        canvas.label((box.edge + way * 10, y - 4), text, _LANE / 2 - 12, bold=True, size=11, anchor=anchor, halo=GROUND)


def _title(name: str) -> str:
    """Return the name for the picture: an inode says nothing there and differs each time."""
    return "(no name)" if name.startswith("net:[") else name


def _draw_plug(canvas: Canvas, plug: Plug, at: Point) -> None:
    x, middle = at
    right = (x - (x - _MARGIN) % (_BOX + _LANE)) + _BOX - 14
    word = f"bridge, {plug.state}" if plug.link.kind == "bridge" and plug.state in ("up", "down") else plug.state
    canvas.lamp((x, middle), plug.state)
    canvas.label((x + 14, middle + 4), plug.link.ifname, 150, bold=plug.link.kind == "bridge")
    canvas.label((x + 26 + span(plug.link.ifname), middle + 4), _beside(plug), 200, quiet=True)
    canvas.label((right, middle + 4), word, 100, size=11, quiet=True, mono=False, anchor="end")


def _draw_cables(canvas: Canvas, placed: Sequence[_Placed]) -> bool:
    """Draw a line for each veth pair, and a stub where its other end is not in the picture; say whether there was a stub or a loop."""
    ends = {(box.site.name, ifname): box for box in placed for ifname in box.ends}
    done: set[frozenset[End]] = set()
    stubs: list[tuple[_Placed, Plug]] = []
    beside, loops = False, 0
    for box in placed:
        for plug in (plug for plug in box.site.plugs if plug.link.kind == "veth"):
            here = (box.site.name, plug.link.ifname)
            there = plug.link.peer
            if there is not None and there in ends:
                pair = frozenset((here, there))
                if pair not in done and here != there:
                    loops += _draw_cable(canvas, (box, plug), (ends[there], there[1]), loops)
                    beside = beside or ends[there].left == box.left
                done.add(pair)
            else:
                stubs.append((box, plug))
    for box, plug in stubs:  # over the cables
        _draw_stub(canvas, box, plug)
    return beside or bool(stubs)


def _draw_cable(canvas: Canvas, here: tuple[_Placed, Plug], there: tuple[_Placed, str], loops: int) -> bool:
    (box, plug), (other, ifname) = here, there
    start, end = (box.edge, box.ends[plug.link.ifname]), (other.edge, other.ends[ifname])
    far = next(one for one in other.site.plugs if one.link.ifname == ifname)
    looped = box.left == other.left
    way = 1 if box.left else -1
    reach = way * (40 + 14 * (loops % 5)) if looped else 0
    bend = (start[0] + reach, end[0] + reach) if looped else (start[0] + way * _LANE / 2, end[0] - way * _LANE / 2)
    canvas.curve(start, end, bend, dashed="up" not in (plug.state, far.state) or "down" in (plug.state, far.state))
    canvas.socket(start)
    canvas.socket(end)
    return looped


def _draw_stub(canvas: Canvas, box: _Placed, plug: Plug) -> None:
    y = box.ends[plug.link.ifname]
    way = 1 if box.left else -1
    canvas.line((box.edge, y), (box.edge + way * 18, y), dashed=True, accent=True)
    canvas.socket((box.edge, y))
    anchor = "start" if box.left else "end"
    told = [f"{plug.link.peer[1]} in", _title(plug.link.peer[0])] if plug.link.peer else ["other end", "not known"]
    for index, line in enumerate(told):
        at = (box.edge + way * 22, y - 1 + 11 * index)
        canvas.label(at, line, _LANE - 42, size=10, quiet=True, mono=False, anchor=anchor, halo=GROUND)
