"""The facts of an X-ray in words: whole sentences for one, a few letters for the cell of a table."""

from __future__ import annotations

from collections.abc import Container, Iterable

from labkit.kernel.network.nat import PortMapping
from labkit.kernel.state import MountState
from labkit.kernel.xray.records import Cgroups, Limit, Member, Network, NotRead, Root, Security, Way, Xray
from labkit.show.text import clean, count

PROC_NAMES = {"mount": "mnt"}
KINDS = ("mount", "uts", "ipc", "net", "pid", "user", "cgroup", "time")


def size(number: int) -> str:
    """Write bytes with the largest unit that leaves at least 1, with one decimal where it is not whole."""
    value, unit = float(number), ""
    for letter in ("K", "M", "G", "T"):
        if value < 1024:
            break
        value, unit = value / 1024, letter
    return f"{value:g}{unit}" if value == int(value) else f"{value:.1f}{unit}"


def limit_value(limit: Limit) -> str:
    """Write what a limit allows."""
    if isinstance(limit.value, int) and limit.key.startswith("memory."):
        return size(limit.value)
    words = str(limit.value).split()
    if limit.key == "cpu.max" and len(words) == 2 and words[0] != "max":
        return f"{int(words[0]) / int(words[1]):g} CPU ({limit.value})"
    return str(limit.value)


def set_in(limit: Limit, own: Container[str]) -> str:
    """Say which cgroup sets a limit: its own, or one above."""
    return "" if not limit.cgroup else "set here" if limit.cgroup in own else f"set in {limit.cgroup}"


def limit_used(limit: Limit) -> str:
    """Write what is used of a limit, or ""."""
    if limit.used is None:
        return ""
    return f"used {size(limit.used) if limit.key.startswith('memory.') else limit.used}"


def namespaces_in_brief(xray: Xray) -> str:
    """Name the kinds that are its own, and those that it shares with the host."""
    if isinstance(xray.namespaces, NotRead):
        return str(xray.namespaces)
    own = [each.kind for each in xray.namespaces if each.own]
    shared = [each.kind for each in xray.namespaces if each.own is False]
    unknown = [each.kind for each in xray.namespaces if each.own is None]
    parts = [("own", own), ("shared with the host", shared), ("not known", unknown)]
    return "; ".join(f"{word}: {' '.join(kinds)}" for word, kinds in parts if kinds)


def compared(xray: Xray) -> str:
    """Say with whom it was compared."""
    return "pid 1" if xray.reference == 1 else f"the reader, pid {xray.reference}, for those of pid 1 may not be read"


def what(xray: Xray) -> str:
    """Say in one line what kind of thing was looked at, where it is not simply a confined process; else ""."""
    member = xray.process
    if member.kind == "kernel thread":
        return "a kernel thread: it has no program, no memory and no root of its own, and is confined by nothing"
    if member.kind == "zombie":
        parent = f"its parent {xray.parent.comm} (pid {xray.parent.pid})" if xray.parent else "its parent"
        return f"a zombie: it has ended, and {parent} has not waited for it; the kernel keeps only its status"
    thread = [f"a thread of process {member.tgid}"] if member.kind == "thread" else []
    host = ["this is the host: it shares every namespace and the root directory"] if xray.is_host else []
    return "; ".join(thread + host)


def command(member: Member) -> str:
    """Write a command line; of what has none, the name as ps(1) has it, in brackets."""
    return " ".join(member.argv).strip() or f"[{member.comm}]"


def numbers(member: Member) -> str:
    """Write the pid, and the numbers further in: "pid 4711 = 12 = 1"."""
    return "pid " + " = ".join(map(str, member.pids))


def root_in_words(root: Root) -> list[str]:
    """Say what the root directory is, one line a fact."""
    lines = [f"a chroot: {root.link} in its mount namespace" if root.chroot and not root.same else root_in_brief(root)]
    if root.mount is not None:
        mount = root.mount
        bound = f", its directory {mount.root}" if mount.root != "/" else ""
        lines.append(f"{mount.fstype} from {mount.source}{bound}, {'read-only' if root.read_only else 'read-write'}, {mount.propagation}")
    if root.on_host and root.on_host != "/":
        lines.append(f"on the host: {root.on_host}")
    if root.upperdir:
        lines.append(f"upperdir {root.upperdir}")
    lines += [f"lowerdir {directory}" for directory in root.lowerdir]
    if root.workdir:
        lines.append(f"workdir  {root.workdir}")
    return lines


def root_in_brief(root: Root) -> str:
    """Say in a few words what the root directory is."""
    if root.same:
        return "the host's"
    if root.chroot:
        return "a chroot"
    return "its own mount" if root.mount else "another than the host's"


def propagation(mount: MountState) -> str:
    """Write the propagation with its peer groups, as mountinfo has them: "shared:1", "master:2"."""
    return " ".join(mount.optional) or "private"


def way_in_words(way: Way) -> str:
    """Write the way from inside to outside."""
    if not way.peer:
        return f"{way.ifname} → its other end is not in sight"
    place = "" if way.netns == "host" else f" in {way.netns}"
    parts = [way.ifname, f"{way.peer}{place}"]
    if way.bridge:
        parts.append(" ".join([f"bridge {way.bridge}", *way.bridge_addresses[:1]]))
    if way.outside and (way.forwards is not False or way.netns != "host"):
        via = f" via {way.gateway}" if way.gateway else ""
        parts.append(f"{way.outside}{via}" + (", masqueraded" if way.masquerade else ""))
    return " → ".join(parts) + (" (no forwarding)" if way.forwards is False and way.netns == "host" else "")


def port_in_words(port: PortMapping) -> str:
    """Write a port mapping: "tcp 8080 → 172.17.0.2:80"."""
    address = f"[{port.address}]" if ":" in port.address else port.address
    source = ":".join(part for part in (address, port.port) if part) or "any"
    target = f"[{port.to_address}]" if ":" in port.to_address else port.to_address
    return " ".join(part for part in (port.protocol, source) if part) + f" → {target}:{port.to_port or port.port}"


def port_and_who(port: PortMapping) -> str:
    """Write a port mapping with what does it: "tcp 8080 → 172.17.0.2:80, nft"."""
    return f"{port_in_words(port)}, {port.by}"


def network_in_brief(network: Network) -> str:
    """Say in a few words what it can reach."""
    if network.name == "host":
        return "the host's"
    parts = []
    for link in network.links:
        addresses = [address.partition("/")[0] for address in link.given]
        way = next((each for each in network.ways if each.ifname == link.ifname), None)
        if link.kind != "loopback":
            end = f" → {way.bridge or way.peer}" if way and way.peer else ""
            parts.append(" ".join([link.ifname, *addresses[:1]]) + end)
    return ", ".join([*parts, *network.user_mode]) or "lo only"


def users_in_words(xray: Xray) -> list[str]:
    """Say who root inside is outside, and how many ids there are."""
    if isinstance(xray.maps, NotRead):
        return [str(xray.maps)]
    if xray.maps.identity:
        return ["root inside = root outside: the ids are the host's"]
    lines = []
    for word, rows in (("user", xray.maps.uid), ("group", xray.maps.gid)):
        lines += [f"{word} {inside} inside = {outside} outside, {count(number, 'id')}" for inside, outside, number in rows]
    return lines or ["no ids are mapped"]


def root_outside(xray: Xray) -> str:
    """Say who root inside is outside, in a few words."""
    if isinstance(xray.maps, NotRead):
        return str(xray.maps)
    return next((f"uid {outside}" for inside, outside, _ in xray.maps.uid if inside == 0), "nobody")


def short(names: Iterable[str]) -> str:
    """Write capabilities without the CAP_ that each has."""
    return " ".join(name.removeprefix("CAP_").lower() for name in names)


def set_in_words(security: Security, name: str) -> str:
    """Say which capabilities a set has, by the shorter of the two lists."""
    kept, dropped = security.capabilities.get(name, ()), security.dropped(name)
    total = f"{len(kept)} of {len(security.known)}"
    if not kept or not dropped:
        return f"{'none' if not kept else 'all'} ({total})"
    return f"{total}: {short(kept)}" if len(kept) <= len(dropped) else f"{total}, all but: {short(dropped)}"


def seccomp(security: Security) -> str:
    """Write the mode, and how many filters there are."""
    filters = f", {count(security.filters, 'filter')}" if security.seccomp == "filter" and security.filters else ""
    return (security.seccomp or "not told by the kernel") + filters


def no_new_privs(security: Security) -> str:
    """Write yes or no."""
    return {True: "yes", False: "no", None: "not told by the kernel"}[security.no_new_privs]


def label(security: Security) -> str:
    """Write the label of the security module."""
    return str(security.label) or "none"


def cgroup_places(cgroups: Cgroups) -> list[tuple[str, str]]:
    """Return (path, hierarchies), those with the same path together, the longest path first."""
    together: dict[str, list[str]] = {}
    for place in cgroups.places:
        together.setdefault(place.path, []).append(place.hierarchy or "v2")
    return [(path, " ".join(together[path])) for path in sorted(together, key=lambda path: (-len(path), path))]


def monitor(xray: Xray) -> str:
    """Name the nearest parent outside."""
    return f"{xray.tree.outside[0].comm} (pid {xray.tree.outside[0].pid})" if xray.tree.outside else "none"


def readable(text: object) -> str:
    """Make a value from outside printable."""
    return clean(text)
