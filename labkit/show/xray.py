"""An X-ray as text and HTML: one process with everything that confines it, or several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from labkit.kernel.xray.records import Cgroups, Member, Network, NotRead, Security, Xray
from labkit.show import markup, xray_svg
from labkit.show import xray_words as words
from labkit.show.text import WIDTH, columns, count, cut, indent, joined, short_ids, wrap
from labkit.show.view import View, stack

MOST_MOUNTS = 40
MOST_MEMBERS = 30
"""Rows before the rest is only counted."""
SECTIONS = ("namespaces", "cgroups", "root", "mounts", "network", "users", "security", "processes", "traces")
"""The parts of an X-ray, in their order."""
_MARGIN = 12


@dataclass
class _Section:
    """One part: lines of prose, then rows of a table."""

    title: str
    lines: list[str] = field(default_factory=list)
    header: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def xray_view(xray: Xray, only: Sequence[str] = ()) -> View:
    """Show one process with everything that confines it.

    Args:
        xray: the record.
        only: names of SECTIONS; all by default.
    """
    sections = [section for section in _sections(xray) if not only or section.title in only]
    title = f"{xray.name}: {words.numbers(xray.process)}, {words.command(xray.process)}"
    head = [cut(title, WIDTH), *wrap(words.what(xray))] if words.what(xray) else [cut(title, WIDTH)]
    lines = list(head)
    for section in sections:
        lines += _text(section)
    text = joined(lines)
    html = [markup.heading(head[0]), *map(markup.note, head[1:])]
    if not only and xray.process.kind in ("process", "thread"):
        svg, extent = xray_svg.draw(xray)
        html.append(markup.figure(markup.picture(svg, text, extent)))
    html += [_html(section) for section in sections]
    return View(text, markup.box(*html))


def _sections(xray: Xray) -> list[_Section]:
    if xray.process.kind == "zombie":
        return [_cgroups(xray), _processes(xray)]
    made = [_namespaces(xray), _cgroups(xray), _root(xray), _mounts(xray), _network(xray), _users(xray), _security(xray), _processes(xray)]
    if xray.process.kind == "kernel thread":
        made = [section for section in made if section.title in ("namespaces", "cgroups", "security")]
    return [*made, _Section("traces", [f"{sign.where}: {sign.what}" for sign in xray.signs])] if xray.signs else made


def _text(section: _Section) -> list[str]:
    room = WIDTH - _MARGIN
    lines = [line for each in section.lines for line in wrap(each, room, hanging="  ")]
    lines += columns(section.rows, room, header=section.header) if section.rows else []
    lines += [line for each in section.after for line in wrap(each, room, hanging="  ")]
    first, *rest = lines or [""]
    return [f"{section.title:<{_MARGIN}}{first}", *indent(rest, " " * _MARGIN)]


def _html(section: _Section) -> str:
    parts = [markup.element("div", markup.code(line), "padding-left:2em;text-indent:-2em;") for line in section.lines]
    if section.rows:
        parts.append(markup.grid(([markup.code(cell) for cell in row] for row in section.rows), section.header))
    parts += [markup.element("div", markup.code(line), "padding-left:2em;text-indent:-2em;") for line in section.after]
    return markup.element("div", markup.element("div", section.title, "font-weight:600;") + "".join(parts), "margin:8px 0 0 0;")


def _namespaces(xray: Xray) -> _Section:
    section = _Section("namespaces", [words.namespaces_in_brief(xray)])
    if isinstance(xray.namespaces, NotRead):
        return section
    section.header = ("namespace", "against host", "against parent", "owned by")
    for each in xray.namespaces:
        host = {True: "own", False: "shared", None: "not readable"}
        parent = {True: "shared", False: "another", None: "not readable" if xray.process.ppid else "no parent"}
        owner = f"user:[{each.owner}]" if each.owner is not None else ""
        name = f"{words.PROC_NAMES.get(each.kind, each.kind)}:[{each.inode}]"
        section.rows.append((name, host[each.own], parent[each.with_parent], owner))
        if each.for_children is not None:
            section.after.append(f"its children will be in {each.kind}:[{each.for_children}]")
    section.after.append(f"the host: {words.compared(xray)}")
    section.after.append(f"host name: {xray.hostname}")
    return section


def _cgroups(xray: Xray) -> _Section:
    if isinstance(xray.cgroups, NotRead):
        return _Section("cgroups", [str(xray.cgroups)])
    section = _Section("cgroups", [f"{path}  ({hierarchies})" for path, hierarchies in words.cgroup_places(xray.cgroups)])
    own = {place.path for place in xray.cgroups.places}
    section.rows = [
        (limit.key, words.limit_value(limit), words.limit_used(limit), words.set_in(limit, own))
        for limit in xray.cgroups.limits
    ]
    if xray.cgroups.cpu_usec is not None:
        section.after.append(f"CPU time of the cgroup: {xray.cgroups.cpu_usec / 1e6:.2f} s")
    if xray.cgroups.frozen is not None:
        section.after.append("frozen" if xray.cgroups.frozen else "not frozen")
    return section


def _root(xray: Xray) -> _Section:
    return _Section("root", [str(xray.root)] if isinstance(xray.root, NotRead) else words.root_in_words(xray.root))


def _mounts(xray: Xray) -> _Section:
    if isinstance(xray.mounts, NotRead):
        return _Section("mounts", [str(xray.mounts)])
    shown = xray.mounts[:MOST_MOUNTS]
    rows: list[tuple[str, ...]] = [
        (each.mountpoint, each.fstype, "ro" if "ro" in each.options else "rw", words.propagation(each), _source(each.source, each.root))
        for each in shown
    ]
    rest = len(xray.mounts) - len(shown)
    section = _Section("mounts", header=("mount point", "type", "", "propagation", "source"), rows=rows)
    section.after = [f"… {count(rest, 'more mount')}"] if rest else []
    if not rows:
        section.lines = ["none in sight below its root directory"]
    return section


def _source(source: str, root: str) -> str:
    return source if root == "/" else f"{source}[{root}]"


def _network(xray: Xray) -> _Section:
    network = xray.network
    if isinstance(network, NotRead):
        return _Section("network", [str(network)])
    if network.name == "host":
        return _Section("network", [f"the host's: {', '.join(link.ifname for link in network.links)}"])
    section = _Section("network", [network.name] if not network.name.startswith("net:[") else [])
    section.header = ("link", "kind", "state", "MAC", "addresses")
    for link in network.links:
        first, *more = link.given or ("",)
        section.rows.append((link.ifname, link.kind or "hardware", "up" if link.up else "down", link.mac, first))
        section.rows += [("", "", "", "", address) for address in more]
    section.after = [words.way_in_words(way) for way in network.ways]
    section.after += [f"default route via {route.gateway or route.ifname}" for route in network.routes if route.destination == "default"]
    section.after += [f"port {words.port_and_who(port)}" for port in network.ports]
    section.after += [f"rule outside: {rule}" for rule in dict.fromkeys(rule for way in network.ways for rule in way.masquerade)]
    section.after += [f"its packets are carried by {program}" for program in network.user_mode]
    return section


def _users(xray: Xray) -> _Section:
    section = _Section("users", words.users_in_words(xray))
    if not isinstance(xray.maps, NotRead) and xray.maps.setgroups == "deny":
        section.lines.append("setgroups(2) is denied")
    return section


def _security(xray: Xray) -> _Section:
    security = xray.security
    if isinstance(security, NotRead):
        return _Section("security", [str(security)])
    section = _Section("security", [f"{name:<12} {words.set_in_words(security, name)}" for name in _sets(security)])
    if xray.own("user"):
        section.lines.append("these count for what its own user namespace owns, and for nothing else")
    section.lines += [
        f"seccomp      {words.seccomp(security)}",
        f"no_new_privs {words.no_new_privs(security)}",
        f"LSM label    {words.label(security)}",
    ]
    for name in security.rlimits_differ:
        soft, hard = ("unlimited" if each is None else each for each in security.rlimits[name])
        section.lines.append(f"{name} {soft} (hard {hard}), not as the host's")
    if security.oom_score_adj:
        section.lines.append(f"oom_score_adj {security.oom_score_adj}")
    return section


def _sets(security: Security) -> list[str]:
    """Return which sets are shown: permitted and inheritable only where they tell something."""
    known = security.capabilities
    permitted = ["permitted"] if known.get("permitted") != known.get("effective") else []
    return ["effective", *permitted, "bounding", *(name for name in ("inheritable", "ambient") if known.get(name))]


def _processes(xray: Xray) -> _Section:
    tree = xray.tree
    section = _Section("processes", [f"{count(len(tree.members), 'process', 'processes')}, told by {tree.by}"])
    section.rows = [(*_numbers(each), f"{'  ' * min(depth, 8)}{words.command(each)}") for each, depth in _walk(tree.members)[:MOST_MEMBERS]]
    section.header = ("outside", "inside", "uid", "command")
    rest = len(tree.members) - len(section.rows)
    section.after = [f"… {count(rest, 'more process', 'more processes')}"] if rest else []
    if tree.outside:
        section.after.append("started by " + " ← ".join(f"{each.comm} (pid {each.pid})" for each in tree.outside))
    return section


def _numbers(member: Member) -> tuple[str, str, str]:
    uid = f"{member.uid}" if member.uid_inside in (member.uid, None) else f"{member.uid} = {member.uid_inside}"
    return f"pid {member.pid}", "" if member.inside is None else str(member.inside), uid


def _walk(members: Iterable[Member]) -> list[tuple[Member, int]]:
    """Return the processes as a tree: each with how deep it is, below its parent."""
    by_pid = {each.pid: each for each in members}
    below: dict[int, list[Member]] = {}
    for each in by_pid.values():
        below.setdefault(each.ppid if each.ppid in by_pid and each.ppid != each.pid else 0, []).append(each)
    found: list[tuple[Member, int]] = []
    stack = [(each, 0) for each in reversed(below.get(0, []))]
    while stack:
        each, depth = stack.pop()
        found.append((each, depth))
        stack += [(child, depth + 1) for child in reversed(below.get(each.pid, []))]
    return found


def facts(xray: Xray) -> dict[str, str]:
    """Return one X-ray as a column of a table: name of a fact to a few words."""
    namespaces = {kind: {True: "own", False: "shared", None: "?"}[xray.own(kind)] for kind in words.KINDS}
    root, network, security = xray.root, xray.network, xray.security
    rows = {"host name": str(xray.hostname), **{f"{kind} ns": value for kind, value in namespaces.items()}}
    rows |= _limits(xray.cgroups)
    rows["root"] = str(root) if isinstance(root, NotRead) else words.root_in_brief(root)
    rows["root on host"] = str(root) if isinstance(root, NotRead) else root.on_host or "not in sight"
    rows["root is on"] = str(root) if isinstance(root, NotRead) else root.mount.fstype if root.mount else "not in sight"
    rows["layers"] = str(len(root.lowerdir) + bool(root.upperdir)) if not isinstance(root, NotRead) and root.lowerdir else "none"
    rows["propagation"] = root.mount.propagation if not isinstance(root, NotRead) and root.mount else "?"
    rows["mounts"] = str(xray.mounts) if isinstance(xray.mounts, NotRead) else str(len(xray.mounts))
    rows["network"] = str(network) if isinstance(network, NotRead) else words.network_in_brief(network)
    rows["ports"] = ", ".join(dict.fromkeys(map(words.port_in_words, network.ports))) or "none" if isinstance(network, Network) else "?"
    rows["root inside"] = words.root_outside(xray)
    rows |= _may(security, own_user=xray.own("user") is True)
    rows["processes"] = str(len(xray.tree.members))
    rows["pid inside"] = str(xray.process.inside or "as outside")
    rows["started by"] = xray.tree.outside[0].comm if xray.tree.outside else "none"
    return rows


def _limits(cgroups: Cgroups | NotRead) -> dict[str, str]:
    if isinstance(cgroups, NotRead):
        return {"cgroup": str(cgroups)}
    found = {limit.key: words.limit_value(limit) for limit in cgroups.limits}
    path = next((path for path, _ in words.cgroup_places(cgroups)), "")
    return {"cgroup": path, **{key: found.get(key, "max") for key in ("memory.max", "pids.max", "cpu.max")}}


def _may(security: Security | NotRead, *, own_user: bool) -> dict[str, str]:
    if isinstance(security, NotRead):
        return dict.fromkeys(("uid", "capabilities", "bounding", "seccomp", "no_new_privs", "LSM label"), str(security))
    kept = len(security.capabilities.get("effective", ()))
    dropped = security.dropped("bounding")
    bounding = f"all but {words.short(dropped)}" if len(dropped) <= 2 else f"{len(security.known) - len(dropped)} of {len(security.known)}"
    return {
        "uid": str(security.ids.uid[1]),
        "capabilities": f"{kept} of {len(security.known)}" + (" in its user ns" if own_user else ""),
        "bounding": bounding if dropped else "all",
        "seccomp": words.seccomp(security),
        "no_new_privs": words.no_new_privs(security),
        "LSM label": words.label(security),
    }


MOST_COLUMNS = 5
NOTE = "≠ not the same for all; own or shared: against the host"


def xray_table(xrays: Sequence[Xray], limit: int = WIDTH) -> View:
    """Show several processes side by side: a fact a row, a process a column, what differs marked.

    Args:
        xrays: the records; more than MOST_COLUMNS go on in a second table.
        limit: columns of the text.
    """
    sheets = [facts(each) for each in xrays]
    names = dict.fromkeys(name for sheet in sheets for name in sheet)
    rows = [[_mark(sheets, name), name, *(short_ids(sheet.get(name, "")) for sheet in sheets)] for name in names]
    lines: list[str] = []
    html = ""
    for begin in range(0, len(xrays), MOST_COLUMNS):
        part = slice(begin + 2, begin + 2 + MOST_COLUMNS)
        header = ["", "", *(each.name for each in xrays)]
        shown = [[*header[:2], *header[part]], *([*row[:2], *row[part]] for row in rows)]
        lines += [*([""] if lines else []), *columns(shown[1:], limit, header=shown[0], gap=1, prose=True)]
        html += markup.grid((_cells(row) for row in shown[1:]), shown[0])
    return View(joined([*lines, *wrap(NOTE, limit)]), markup.box(html, markup.note(NOTE)))


def _mark(sheets: Sequence[dict[str, str]], name: str) -> str:
    return "≠" if len({sheet.get(name, "") for sheet in sheets}) > 1 else " "


def _cells(row: Sequence[str]) -> list[str]:
    mark, name, *cells = row
    return [markup.escape(mark), markup.quiet(name), *(_cell(name, cell) for cell in cells)]


def _cell(name: str, text: str) -> str:
    if name.endswith(" ns") and text in ("own", "shared"):
        return markup.chip(text, markup.BLUE, hollow=text == "shared")
    return markup.code(text)


def xray_views(xrays: Sequence[Xray], only: Sequence[str] = ()) -> View:
    """Show one process in full, several side by side; of several, only some parts are shown one under the other."""
    shown = [xray_view(each, only) for each in xrays] if only or len(xrays) == 1 else [xray_table(xrays)]
    return shown[0] if len(shown) == 1 else stack(*shown)


def xray_page(xrays: Sequence[Xray]) -> str:
    """Return a whole page of HTML that needs nothing beside it: the table of several, then each in full, with its picture."""
    views = [*([xray_table(xrays)] if len(xrays) > 1 else []), *map(xray_view, xrays)]
    title = "X-ray of " + ", ".join(each.name for each in xrays)
    head = f'<meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>{markup.escape(title)}</title>'
    style = "font-family:system-ui,sans-serif;max-width:960px;margin:16px auto;padding:0 16px;"
    body = markup.element("body", "".join(view.html for view in views), style)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>{body}</html>\n'
