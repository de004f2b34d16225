"""The picture of an X-ray: the container as a box in the host, its layers under it, the way of its packets beside it."""

from __future__ import annotations

from labkit.kernel.xray.records import Cgroups, Limit, Network, NotRead, Root, Security, Way, Xray
from labkit.show import xray_words as words
from labkit.show.svg import PAPER, SHADE, Canvas

_MARGIN, _WIDE, _BOX, _SIDE = 16, 800, 460, 276
_ROW = 18
_CHIP = (52, 22)
_MOST_PROCESSES = 5
_MOST_LAYERS = 5


def draw(xray: Xray) -> tuple[str, tuple[int, int]]:
    """Return the SVG and its size in pixels."""
    canvas = Canvas()
    left = _container(canvas, xray, _MARGIN)
    left = _layers(canvas, xray, left + 14)
    right = _network(canvas, xray, _MARGIN)
    right = _limits(canvas, xray, right + 14)
    size = (_WIDE, round(max(left, right)) + _MARGIN)
    return canvas.document(size, f"X-ray of {xray.name}"), size


def _container(canvas: Canvas, xray: Xray, y: float) -> float:
    """Draw the box of the container, and return where it ends."""
    members = xray.tree.members[:_MOST_PROCESSES]
    security = _told(xray)
    high = 92 + _ROW * (len(members) + (len(xray.tree.members) > len(members)) + len(security)) + 36
    canvas.box((_MARGIN, y), (_BOX, high), bold=not xray.is_host, dashed=xray.is_host)
    canvas.label((_MARGIN + 14, y + 22), xray.name, 250, size=14, bold=True)
    canvas.label((_MARGIN + _BOX - 14, y + 22), words.numbers(xray.process), 180, size=11, quiet=True, anchor="end")
    _namespaces(canvas, xray, y + 34)
    line = y + 84
    for member in members:
        inside = "" if member.inside is None else str(member.inside)
        canvas.label((_MARGIN + 14, line), str(member.pid), 60, size=11, quiet=True)
        canvas.label((_MARGIN + 72, line), inside, 40, size=11, bold=True)
        canvas.label((_MARGIN + 106, line), words.command(member), _BOX - 120, size=11)
        line += _ROW
    if len(xray.tree.members) > len(members):
        canvas.label((_MARGIN + 106, line), f"… {len(xray.tree.members) - len(members)} more", 200, size=11, quiet=True)
        line += _ROW
    line += 8
    for text in security:
        canvas.label((_MARGIN + 14, line), text, _BOX - 28, size=11, quiet=True)
        line += _ROW
    if isinstance(xray.security, Security):
        _capabilities(canvas, xray.security, line - 6)
    return y + high


def _told(xray: Xray) -> list[str]:
    """Return the lines below the processes."""
    lines = [words.users_in_words(xray)[0]]
    security = xray.security
    if isinstance(security, Security):
        told = {"seccomp": words.seccomp(security), "no_new_privs": words.no_new_privs(security), "LSM": words.label(security)}
        lines.append(" · ".join(f"{name} {value}" for name, value in told.items()))
        lines.append(f"capabilities {len(security.capabilities.get('effective', ()))} of {len(security.known)}")
    return lines


def _namespaces(canvas: Canvas, xray: Xray, y: float) -> None:
    """Draw a chip a kind: full with a bold frame where it is the container's own, empty and dashed where it is the host's."""
    x = float(_MARGIN + 12)
    for kind in words.KINDS:
        own = xray.own(kind)
        if own is not None:
            canvas.box((x, y), _CHIP, fill=SHADE if own else PAPER, bold=own, dashed=not own)
            canvas.label((x + _CHIP[0] / 2, y + 15), kind, _CHIP[0] - 4, size=10, bold=own, quiet=not own, anchor="middle")
        x += _CHIP[0] + 3


def _capabilities(canvas: Canvas, security: Security, y: float) -> None:
    """Draw a cell a capability: full where it is effective, half where it could be had again, empty where it never can."""
    step = (_BOX - 28) / max(len(security.known), 1)
    effective, bounding = (security.capabilities.get(name, ()) for name in ("effective", "bounding"))
    for number, name in enumerate(security.known):
        canvas.cell((_MARGIN + 14 + number * step, y), (step - 2, 12), 1.0 if name in effective else 0.35 if name in bounding else 0.0)


def _layers(canvas: Canvas, xray: Xray, y: float) -> float:
    """Draw the root directory as the stack of its layers, and return where it ends."""
    root = xray.root
    canvas.label((_MARGIN, y + 10), "root directory", 200, size=11, bold=True, mono=False)
    y += 18
    if isinstance(root, NotRead):
        return _plate(canvas, str(root), "", y, dashed=True)
    for role, directory in _stack(root):
        y = _plate(canvas, directory, role, y, dashed=role == "host")
    return y


def _stack(root: Root) -> list[tuple[str, str]]:
    if root.lowerdir:
        upper = [("upper", root.upperdir)] if root.upperdir else []
        lower = [("lower", directory) for directory in root.lowerdir[:_MOST_LAYERS]]
        rest = len(root.lowerdir) - len(lower)
        return [*upper, *lower, *([("lower", f"… {rest} more")] if rest else [])]
    mount = f"{root.mount.fstype} from {root.mount.source}" if root.mount else "its mount is not in sight"
    if root.same:
        return [("host", f"the host's, {mount}")]
    place = root.on_host or root.link
    return [("chroot" if root.chroot else "mount", place), ("on", mount)]


def _plate(canvas: Canvas, text: str, role: str, y: float, *, dashed: bool = False) -> float:
    canvas.box((_MARGIN, y), (_BOX, 22), dashed=dashed, fill=SHADE if role == "upper" else PAPER)
    canvas.label((_MARGIN + 12, y + 15), role, 60, size=10, quiet=True, mono=False)
    canvas.label((_MARGIN + 64, y + 15), text, _BOX - 76, size=11)
    return y + 25


def _network(canvas: Canvas, xray: Xray, y: float) -> float:
    """Draw the way of the packets from the container to the outside, from top to bottom, and return where it ends."""
    x = _WIDE - _MARGIN - _SIDE
    network = xray.network
    canvas.label((x, y + 10), "network", 200, size=11, bold=True, mono=False)
    y += 18
    stations = [("", str(network), "")] if isinstance(network, NotRead) else _stations(network)
    for number, (word, name, told) in enumerate(stations):
        if number:
            canvas.line((x + _SIDE / 2, y - 14), (x + _SIDE / 2, y), accent=True)
        canvas.box((x, y), (_SIDE, 40 if told else 24), dashed=word == "host")
        canvas.label((x + 12, y + 16), name, _SIDE - 90, size=11, bold=True)
        canvas.label((x + _SIDE - 10, y + 16), word, 90, size=10, quiet=True, mono=False, anchor="end")
        canvas.label((x + 12, y + 32), told, _SIDE - 24, size=11, quiet=True)
        y += (40 if told else 24) + 14
    y -= 14
    for port in list(dict.fromkeys(map(words.port_in_words, () if isinstance(network, NotRead) else network.ports)))[:4]:
        y += _ROW
        canvas.label((x, y), f"port {port}", _SIDE, size=11)
    return y


def _stations(network: Network) -> list[tuple[str, str, str]]:
    if network.name == "host":
        return [("host", "the host's", ", ".join(link.ifname for link in network.links)[:80])]
    found: list[tuple[str, str, str]] = []
    for link in network.links:
        if link.kind != "loopback":
            address = next(iter(link.given), "")
            found.append((f"{link.kind or 'link'}, inside", link.ifname, address))
            found += [station for way in network.ways if way.ifname == link.ifname for station in _outside(way)]
    return found[:6] or [("inside", "lo", "nothing leads out")]


def _outside(way: Way) -> list[tuple[str, str, str]]:
    found = [("veth", way.peer, "" if way.netns == "host" else way.netns)] if way.peer else [("", "other end not in sight", "")]
    found += [("bridge", way.bridge, way.bridge_addresses[0] if way.bridge_addresses else "")] if way.bridge else []
    if way.outside and way.forwards is not False:
        found.append(("outside", way.outside, "masqueraded" if way.masquerade else f"via {way.gateway}" if way.gateway else ""))
    return found


def _limits(canvas: Canvas, xray: Xray, y: float) -> float:
    """Draw where it is among the cgroups, with a bar for each limit that is used, and return where it ends."""
    x = _WIDE - _MARGIN - _SIDE
    canvas.label((x, y + 10), "cgroup", 200, size=11, bold=True, mono=False)
    y += 30
    if isinstance(xray.cgroups, NotRead):
        canvas.label((x, y), str(xray.cgroups), _SIDE, size=11)
        return y
    canvas.label((x, y), next((path for path, _ in words.cgroup_places(xray.cgroups)), ""), _SIDE, size=11)
    for limit in _drawn(xray.cgroups):
        y += 24
        canvas.label((x, y), limit.key, 110, size=11, quiet=True)
        told = " of ".join(part for part in (words.limit_used(limit).removeprefix("used "), words.limit_value(limit)) if part)
        canvas.label((x + _SIDE, y), told, 170, size=11, anchor="end")
        if isinstance(limit.value, int) and limit.value and limit.used is not None:
            canvas.bar((x, y + 5), _SIDE, min(limit.used / limit.value, 1.0))
            y += 6
    return y + 4


def _drawn(cgroups: Cgroups) -> list[Limit]:
    return [limit for limit in cgroups.limits if limit.key in ("memory.max", "pids.max", "cpu.max", "memory.high", "cpuset.cpus")]
