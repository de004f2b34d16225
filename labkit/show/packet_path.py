"""The path of a packet: a line a place, and the same numbers on the picture of the networks; and a table of captured frames."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from labkit.kernel.network.capture import Frame
from labkit.kernel.network.path import Hop, PacketPath
from labkit.kernel.state import NetworkState
from labkit.show import markup, network, network_svg
from labkit.show.tables import table
from labkit.show.text import WIDTH, clean, columns, indent, joined, wrap
from labkit.show.view import View

_SET_IN = "       "
_ANSWER = "the answer"
_DOES = re.compile(r"policy drop|\b(?:[ds]nat to \S+|redirect to \S+|masquerade|accept|drop|reject)\b")
"""What a rule does: the same words for a rule of nft and for one of iptables."""


def path_view(path: PacketPath, networks: Iterable[NetworkState] = (), *, rules: bool = True) -> View:
    """Show where a packet was seen, what its addresses were there, which rules it met, and where it stops.

    Args:
        path: what came of it.
        networks: of the namespaces on the way, for the picture; none for no picture.
        rules: write rules as they are listed; else only what they do, which is the same on every machine.
    """
    title = f"{path.protocol} from {path.origin} to {path.destination}: {path.verdict}"
    numbers = _numbers(path)
    rows = [row for part, name in ((path.request, ""), (path.answer, _ANSWER)) for row in _rows(part, name, numbers, rules)]
    lines = [*wrap(title), "", *_lines(rows)]
    lines += ["", *wrap(f"cause: {path.cause}", hanging="       ")] if path.cause else []
    text = joined(lines)
    cells = [[markup.escape(cell) if kind != "rule" else markup.quiet(cell) for cell in row] for kind, row in rows]
    parts = [markup.heading(title), markup.grid(cells), *([markup.note(f"cause: {path.cause}")] if path.cause else [])]
    return View(text, markup.figure(*_picture(path, list(networks), numbers, text), markup.box(*parts)))


def frames_view(frames: Sequence[Frame], *, limit: int = 60) -> View:
    """Tabulate captured frames: where each was seen, and what it says.

    Args:
        frames: by time.
        limit: how many are shown; those after are counted.
    """
    rows = [(frame.netns, f"{'out' if frame.outgoing else 'in'} {frame.ifname}", frame.packet.told) for frame in frames]
    return table(("namespace", "link", "frame"), rows, limit=limit)


def _numbers(path: PacketPath) -> dict[int, int]:
    """Return the number of each hop at a link, by its place among all."""
    seen = [place for place, hop in enumerate(path.hops) if hop.ifname]
    return {place: number for number, place in enumerate(seen, 1)}


def _rows(part: Sequence[Hop], name: str, numbers: dict[int, int], rules: bool) -> list[tuple[str, list[str]]]:
    if not part:
        return []
    first = len(numbers) - sum(bool(hop.ifname) for hop in part) if name else 0
    rows: list[tuple[str, list[str]]] = [("name", ["", name, "", ""])] if name else []
    for hop in part:
        first += bool(hop.ifname)
        where = f"{'out' if hop.outgoing else 'in'} {hop.ifname}" if hop.ifname else "sent"
        carried = f" in vxlan {hop.vni}" if hop.vni is not None else ""
        cells = [str(first) if hop.ifname else "", where, hop.title, f"{hop.source} > {hop.destination}{carried}"]
        rows.append(("hop", [clean(cell) for cell in cells]))
        rows += [("rule", ["", hook, "", clean(words if rules else _brief(words))]) for hook, words in hop.met]
        rows += [("rule", ["", "", "", hop.then])] if hop.then else []
    return rows


def _brief(words: str) -> str:
    """Return what a rule does, without its conditions."""
    match = _DOES.search(words.split(' comment "')[0])
    return match[0] if match else words


def _lines(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    places = columns([row for kind, row in rows if kind == "hop"])
    lines, number = [], 0
    for kind, row in rows:
        if kind == "name":
            lines.append(f"   {row[1]}")
        elif kind == "rule":
            words = f"{row[1]}: {row[3]}" if row[1] else row[3]
            lines += indent(wrap(words, WIDTH - len(_SET_IN), hanging="  "), _SET_IN)
        else:
            lines.append(places[number])
            number += 1
    return lines


def _picture(path: PacketPath, networks: list[NetworkState], numbers: dict[int, int], text: str) -> list[str]:
    if not networks:
        return []
    marks: dict[tuple[str, str], str] = {}
    for place, hop in enumerate(path.hops):
        if place in numbers:
            key = (hop.title, hop.ifname)
            marks[key] = f"{marks[key]} {numbers[place]}" if key in marks else str(numbers[place])
    ifname, _, title = path.where.partition(" in ")
    if title:
        marks[title, ifname] = f"{marks.get((title, ifname), '')} ✗".strip()
    svg, size = network_svg.draw(network.network_sites(networks), marks)
    return [markup.picture(svg, text, size)]
