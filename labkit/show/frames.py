"""A frame of the live views as text of 80 columns and as HTML: the same facts in both, and in a settled one nothing that is chance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType

from labkit.kernel.live.frame import Contained, Frame, LayerFile, Layers, Member, Meter, Network, Traffic
from labkit.kernel.snapshot.noise import CGROUPS
from labkit.kernel.state import NetworkState
from labkit.show import markup
from labkit.show.network import network_picture
from labkit.show.text import WIDTH, clean, columns, count, cut, indent, joined, natural, short_ids, wrap
from labkit.show.view import View, stack

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "cgroups": "Control groups",
        "processes": "Processes by namespace",
        "networks": "Network",
        "layers": "Overlay layers",
        "containers": "Containers",
    }
)
"""The views, in their order."""

PAGES: Mapping[str, str] = MappingProxyType(
    {"cgroups": "cgroups(7)", "processes": "namespaces(7)", "networks": "veth(4)", "layers": "mount(8)", "containers": "pid_namespaces(7)"}
)
"""The manual page behind each."""

_NAME = 30
"""Columns of a cgroup's name at most: what is measured has to fit beside it."""

MOST_ROWS = 40
"""Rows of one view before the rest is only counted."""

_UNITS = (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10))
_STATES = {"frozen": "■ frozen", "freezing": "◧ freezing", "running": "▶ running", "": ""}
_LAMPS = {"up": "● up", "down": "○ down", "no carrier": "◐ no carrier"}
_COLOURS = {"frozen": markup.BLUE, "freezing": markup.AMBER, "running": markup.GREEN, "up": markup.GREEN, "down": markup.GREY,
            "no carrier": markup.AMBER}  # fmt: skip
_TRACKERS = re.compile(r"/processes(?:/|$)")  # where a lab keeps each process so that it can be ended
_LONGEST = 60


@dataclass(frozen=True)
class Scope:
    """What is shown of a frame, and how.

    Attributes:
        home: only cgroups below this one of any hierarchy, such as "lab-2.1"; "" for all.
        names: pid to the name that a lab gave it.
        settled: leave out what is another thing each time: counters, processes without a name, what the machine has anyhow.
        networks: in a settled frame, the network namespaces that are shown, by inode, and links of the machine's own by name.
        refs: whether names are buttons that show the file behind them.
        folder: a directory that is written as `$LAB`.
    """

    home: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    settled: bool = False
    networks: Mapping[int, frozenset[str] | None] = field(default_factory=dict)
    refs: bool = False
    folder: str = ""

    def inside(self, path: str) -> bool:
        """Whether a cgroup is shown."""
        if (self.settled and CGROUPS.search(path)) or (self.home and _TRACKERS.search(path)):
            return False
        return not self.home or f"/{self.home}/" in f"{path}/"

    def inside_or_named(self, row: Contained) -> bool:
        """Whether a container is the lab's."""
        return row.pid in self.names or (bool(self.home) and f"/{self.home}/" in f"{row.cgroup}/")

    def label(self, path: str) -> str:
        """Return what a cgroup is called: its path below the home."""
        if self.home:
            return path[path.index(f"/{self.home}") + 1 :]
        return path

    def short(self, path: str) -> str:
        """Return a path with the lab's directory as `$LAB`."""
        return path.replace(self.folder, "$LAB") if self.folder else path

    def ref(self, shown: str, where: str) -> str:
        """Write a name: a button where what is behind it can be asked for."""
        inner = markup.code(shown, _LONGEST)
        if not self.refs:
            return inner
        return markup.element("button", inner, type="button", class_="lk-ref", data_ref=where).replace("data_ref", "data-ref")


EVERYTHING = Scope()


def sections(frame: Frame, scope: Scope = EVERYTHING, only: Iterable[str] = TITLES) -> dict[str, View]:
    """Return each view of a frame in both forms, without its title."""
    draw = {"cgroups": _cgroups, "processes": _processes, "networks": _networks, "layers": _layers, "containers": _containers}
    return {view: draw[view](frame, scope) for view in TITLES if view in only}


def whole(parts: Mapping[str, View], note: str = "") -> View:
    """Put the views of a frame one under the other, each with its title."""
    titled = [
        View(f"{TITLES[name]}\n{view.text}", markup.element("div", markup.heading(TITLES[name]) + view.html, "margin:0 0 14px 0;"))
        for name, view in parts.items()
    ]
    last = [View(joined(wrap(note)), markup.note(note))] if note else []
    return stack(*titled, *last)


def _cgroups(frame: Frame, scope: Scope) -> View:
    rows = sorted((row for row in frame.cgroups.values() if scope.inside(row.path)), key=lambda row: natural(row.path))
    shown = rows[:MOST_ROWS]
    counted = [] if scope.settled else ["cpu", "memory", "tasks", "io/s", "waits"]
    header = ["cgroup", "state", *counted, "processes"]
    lines, cells = [], []
    for row in shown:
        depth = max(scope.label(row.path).count("/") - (0 if scope.home else 1), 0)
        name = ("  " * min(depth, 8)) + (scope.label(row.path).rpartition("/")[2] or "/")
        who = _who(row.pids, frame.processes, scope)
        if scope.settled:
            limits = _limits(row)
            lines.append([cut(name, _NAME), _STATES[row.state], ", ".join([*who[:3], *limits])])
            cells.append([_tree(row, depth, scope), _chip(row.state), markup.code(", ".join([*who[:3], *limits]))])
            continue
        values = [_cpu(row), _memory(row), _tasks(row), _rate(row.io), _pressure(row)]
        lines.append([cut(name, 24), _STATES[row.state], *values, ", ".join(who[:1]) + (f" +{len(who) - 1}" if len(who) > 1 else "")])
        bars = [_bar(row.cpu, row.cpu_max or 1.0, values[0]), _bar(row.memory, row.memory_max, values[1])]
        bars += [_bar(row.tasks, row.tasks_max, values[2]), markup.code(values[3]), markup.code(values[4])]
        cells.append([_tree(row, depth, scope), _chip(row.state), *bars, markup.code(", ".join(who[:4]) + (" …" if len(who) > 4 else ""))])
    return _table(header, lines, cells, keys=[row.key for row in shown], more=len(rows) - len(shown),
                  empty="no cgroups here yet", thing="cgroup")  # fmt: skip


def _who(pids: Sequence[int], processes: Mapping[str, Member], scope: Scope) -> list[str]:
    named = [scope.names[pid] for pid in pids if pid in scope.names]
    if scope.settled:
        return sorted(named)
    others = (f"{processes[str(pid)].comm} {pid}" if str(pid) in processes else str(pid) for pid in pids if pid not in scope.names)
    return [*sorted(named), *others]


def _limits(row: Meter) -> list[str]:
    found = [f"memory.max = {_size(row.memory_max)}"] if row.memory_max is not None and row.path != "/" else []
    found += [f"pids.max = {row.tasks_max}"] if row.tasks_max is not None and row.path != "/" else []
    return found + ([f"cpu.max = {row.cpu_max:g} of a core"] if row.cpu_max is not None else [])


def _tree(row: Meter, depth: int, scope: Scope) -> str:
    name = scope.ref(cut(scope.label(row.path).rpartition("/")[2] or "/", _NAME), f"cgroup:{row.path}")
    return markup.element("span", name, f"padding-left:{min(depth, 8) * 14}px;white-space:nowrap;")


def _chip(state: str) -> str:
    text = _STATES.get(state) or _LAMPS.get(state, "")
    return markup.chip(text, _COLOURS[state], hollow=state in ("running", "down")) if text else ""


def _cpu(row: Meter) -> str:
    return "-" if row.cpu is None else f"{row.cpu * 100:.0f}%" + (f"/{row.cpu_max * 100:.0f}%" if row.cpu_max else "")


def _memory(row: Meter) -> str:
    return "-" if row.memory is None else _size(row.memory) + (f"/{_size(row.memory_max)}" if row.memory_max is not None else "")


def _tasks(row: Meter) -> str:
    return "-" if row.tasks is None else str(row.tasks) + (f"/{row.tasks_max}" if row.tasks_max is not None else "")


def _pressure(row: Meter) -> str:
    if row.pressure is None:
        return "-"
    most = max(("cpu", "memory", "io"), key=lambda name: float(getattr(row.pressure, name)))
    value = float(getattr(row.pressure, most))
    return f"{value:.0f}% {most}" if value >= 0.5 else "0%"


def _size(number: float | None) -> str:
    if number is None:
        return "-"
    for letter, unit in _UNITS:
        if number >= unit:
            return f"{number / unit:.3g}{letter}" if number < 1000 * unit else f"{number / unit:.0f}{letter}"
    return f"{number:.0f}"


def _rate(number: float | None) -> str:
    return "-" if number is None else _size(number)


def _bar(value: float | None, most: float | None, text: str) -> str:
    if value is None or not most:
        return markup.code(text)
    full = min(max(value / most, 0.0), 1.0)
    inner = markup.element("span", "", f"display:block;height:6px;width:{full * 100:.0f}%;background:{markup.BLUE};")
    return markup.code(text) + markup.element("span", inner, "display:block;width:64px;height:6px;border:1px solid #808080;margin-top:2px;")


def _processes(frame: Frame, scope: Scope) -> View:
    groups: dict[tuple[tuple[str, int], ...], list[Member]] = {}
    for member in frame.processes.values():
        if member.own and (not scope.settled or member.pid in scope.names):
            groups.setdefault(tuple(pair for pair in member.namespaces if pair[0] in member.own), []).append(member)
    lines, cells, keys = [], [], []
    for places, members in sorted(groups.items(), key=lambda one: one[1][0].pid)[:MOST_ROWS]:
        own = " ".join(kind for kind, _ in places)
        named = [(scope.names.get(one.pid) or (f"{one.comm} {one.pid}"), one.pid) for one in sorted(members, key=lambda one: one.pid)]
        rest = f" and {len(named) - 6} more" if len(named) > 6 else ""
        lines.append([own, ", ".join(name for name, _ in named[:6]) + rest])
        refs = " ".join(scope.ref(name, f"file:/proc/{pid}/status") for name, pid in named[:6])
        cells.append([markup.code(own), refs + markup.escape(rest)])
        keys.append(str(members[0].pid))
    at_home = sum(1 for member in frame.processes.values() if not member.own)
    note = "" if scope.settled else f"{count(at_home, 'process', 'processes')} in the namespaces of process 1"
    return _table(["namespaces of their own", "processes"], lines, cells, keys=keys, more=max(len(groups) - MOST_ROWS, 0),
                  empty="no process has a namespace of its own", thing="set of namespaces", note=note)  # fmt: skip


def _networks(frame: Frame, scope: Scope) -> View:
    chosen = [kept for row in frame.networks.values() if (kept := _of_the_lab(row, scope)) is not None]
    ordered = sorted(chosen, key=lambda row: (row.state.name != "host", row.state.name.startswith("net:["), natural(row.state.name)))
    picture = _picture(tuple(_as_told(row) for row in ordered)) if ordered else View("", "")
    lines, cells, keys = [], [], []
    for row in ordered:
        for traffic in row.traffic if not scope.settled else ():
            if traffic.ifname == "lo" and row.state.name != "host":
                continue
            name = f"{traffic.ifname} in {row.state.name}"
            lines.append([name, _LAMPS[traffic.state], f"{_rate(traffic.received)}/s", f"{_rate(traffic.sent)}/s"])
            cells.append([scope.ref(name, f"link:{row.state.inode}:{traffic.ifname}"), _chip(traffic.state), *_flows(traffic)])
            keys.append(f"{row.key}:{traffic.ifname}")
    if scope.settled:
        return picture or View("no network namespaces here yet", markup.note("no network namespaces here yet"))
    rates = _table(["link", "state", "received", "sent"], lines[:MOST_ROWS], cells[:MOST_ROWS], keys=keys, more=len(lines) - MOST_ROWS,
                   empty="no links", thing="link")  # fmt: skip
    return stack(picture, rates)


@lru_cache(maxsize=8)
def _picture(networks: tuple[NetworkState, ...]) -> View:
    """Draw the namespaces: once, as long as only the traffic changes."""
    return network_picture(networks)


def _of_the_lab(row: Network, scope: Scope) -> Network | None:
    if not scope.settled:
        return row
    if row.state.inode not in scope.networks:
        return None
    links = scope.networks[row.state.inode]
    if links is None:
        return row
    kept = tuple(link for link in row.state.links if link.ifname in links)
    routes = tuple(route for route in row.state.routes if route.ifname in links)
    return replace(row, state=replace(row.state, links=kept, routes=routes)) if kept else None


def _as_told(row: Network) -> NetworkState:
    """Return the state with each link as its flags say: what is up without a carrier counts as such."""
    states = {one.ifname: one.state for one in row.traffic}
    words = {"up": "UP", "no carrier": "LOWERLAYERDOWN", "down": "DOWN"}
    links = tuple(replace(link, operstate=words.get(states.get(link.ifname, ""), link.operstate)) for link in row.state.links)
    return replace(row.state, links=links)


def _flows(traffic: Traffic) -> list[str]:
    return [_bar(value, 1 << 20, f"{_rate(value)}/s") for value in (traffic.received, traffic.sent)]


def _layers(frame: Frame, scope: Scope) -> View:
    rows = sorted((row for row in frame.layers.values() if _is_shown(row, scope)), key=lambda row: (row.pid, natural(row.merged)))
    lines: list[str] = []
    html = ""
    for row in rows[:MOST_ROWS]:
        head = f"{scope.short(row.merged)}  {count(len(row.lowers), 'lower layer')}" + ("" if row.upper else ", read-only")
        lines += wrap(short_ids(clean(head)), hanging="    ")
        files = [_file_line(file, scope) for file in row.files]
        lines += [line for file in files for line in indent(wrap(file, WIDTH - 4), "    ")]
        rest = f"… {count(row.count - len(row.files), 'more file')} in the upper layer" if row.count > len(row.files) else ""
        lines += indent([rest], "    ") if rest else []
        name = scope.ref(short_ids(scope.short(row.merged)), f"dir:{row.upper or row.merged}")
        told = markup.code(f"{count(len(row.lowers), 'lower layer')}" + ("" if row.upper else ", read-only"))
        inner = "".join(markup.element("div", _file_html(file, row, scope), "padding-left:14px;") for file in row.files)
        html += markup.element("div", f"{name} {told}{inner}{markup.note(rest) if rest else ''}")
    if not rows:
        return View("no overlay is mounted", markup.note("no overlay is mounted"))
    return View(joined(lines), html)


def _is_shown(row: Layers, scope: Scope) -> bool:
    return not scope.settled or (bool(scope.folder) and f"{row.merged}/".startswith(f"{scope.folder}/"))


def _file_line(file: LayerFile, scope: Scope) -> str:
    what = "" if file.kind == "file" else f"  {file.kind}"
    if scope.settled:
        return f"{file.path}{what}"
    return f"{file.path}{what}  {_size(file.size)}{'  ✎ being written' if file.written else ''}"


def _file_html(file: LayerFile, row: Layers, scope: Scope) -> str:
    name = scope.ref(file.path, f"file:{row.upper}/{file.path}")
    parts = [name, markup.quiet(file.kind) if file.kind != "file" else ""]
    if not scope.settled:
        parts += [markup.code(_size(file.size)), markup.chip("✎ being written", markup.GREEN) if file.written else ""]
    return " ".join(part for part in parts if part)


def _containers(frame: Frame, scope: Scope) -> View:
    rows = [row for row in frame.containers.values() if not scope.settled or scope.inside_or_named(row)]
    lines, cells, keys = [], [], []
    for row in sorted(rows, key=lambda row: natural(row.name))[:MOST_ROWS]:
        name = scope.names.get(row.pid) or short_ids(row.name) or "(no name in sight)"
        state = next((frame.cgroups[path].state for path in (row.cgroup,) if path in frame.cgroups), "")
        pid = [] if scope.settled else [str(row.pid)]
        lines.append([name, *pid, row.comm, _STATES[state], " ".join(row.own)])
        shown = [*map(markup.code, pid), markup.code(row.comm), _chip(state), markup.code(" ".join(row.own))]
        cells.append([scope.ref(name, f"file:/proc/{row.pid}/status"), *shown])
        keys.append(row.key)
    header = ["container", *([] if scope.settled else ["pid"]), "command", "state", "namespaces of its own"]
    return _table(header, lines, cells, keys=keys, more=len(rows) - MOST_ROWS, empty="no containers run", thing="container")


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], cells: Sequence[Sequence[str]], *, keys: Sequence[str], more: int,
           empty: str, thing: str, note: str = "") -> View:  # fmt: skip
    remarks = [f"… {count(more, f'more {thing}')}"] if more > 0 else []
    remarks += [note] if note else []
    if not lines:
        return View(joined([empty, *remarks]), markup.note(empty) + "".join(map(markup.note, remarks)))
    grid = markup.grid(cells, header)
    for key in keys:
        grid = grid.replace('<tr style="background:transparent;"><td', f'<tr data-key="{markup.escape(key)}"><td', 1)
    text = joined([*columns(lines, header=header), *(line for remark in remarks for line in wrap(remark))])
    return View(text, grid + "".join(map(markup.note, remarks)))
