"""The runtimes side by side: a table for each subject, a runtime a row; as text, HTML, JSON, and a page of Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labkit.kernel.xray.records import Cgroups, Limit, Member, Network, NotRead, Root, Security, Xray
from labkit.runtimes.comparison import Comparison, Row
from labkit.show import xray_words as words
from labkit.show.tables import table
from labkit.show.text import clean, count
from labkit.show.view import View, stack
from labkit.show.xray_json import plain

VERSION = 1
"""Of the JSON: changes when a field goes or changes its meaning."""

_ID = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")
_LIMITS = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")


@dataclass(frozen=True)
class Sheet:
    """One table: what it is about, its columns, its rows, and what its words mean."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def sheets(comparison: Comparison) -> tuple[Sheet, ...]:
    """Return the tables; a runtime that ran nothing is in the last one alone, with the reason."""
    ran = [(row, row.xray) for row in comparison.rows if row.xray is not None]
    made = [
        _sheet("Who ran it", ("runtime", "version", "start", "pid inside"),
               [(row.runtime, row.version, _seconds(row), _inside(xray)) for row, xray in ran],
               "start: until the program ran, with all that the runtime needs for it; the shortest of several"),
        _sheet("Namespaces of its own", ("runtime", *words.KINDS), [(row.runtime, *_namespaces(xray)) for row, xray in ran],
               "own: another one than the host's; · shared with the host"),
        _sheet("What stays around", ("runtime", "beside it", "daemon"),
               [(row.runtime, _called(row.stays), _called(row.daemons)) for row, xray in ran],
               "beside it: parents and their other children, such as monitor, shim, sandbox; daemon: who listens on their socket"),
        _sheet("cgroup and limits", ("runtime", "cgroup", "limits"), [(row.runtime, *_cgroup(xray.cgroups)) for row, xray in ran],
               "the limits that the kernel has for it; none was asked for"),
        _sheet("Root directory", ("runtime", "root", "mounted", "layers", "propagation", "mounts"),
               [(row.runtime, *_root(xray.root), _mounts(xray)) for row, xray in ran],
               "layers: directories that an overlay sets one upon the other, the one that is written included"),
        _sheet("Users and capabilities", ("runtime", "root inside is", "effective", "bounding"),
               [(row.runtime, words.root_outside(xray), *_capabilities(xray.security)) for row, xray in ran]),
        _sheet("seccomp and security module", ("runtime", "seccomp", "no_new_privs", "LSM label"),
               [(row.runtime, *_filters(xray.security)) for row, xray in ran]),
        _sheet("Network", ("runtime", "what it can reach"), [(row.runtime, _network(xray.network)) for row, xray in ran]),
        _sheet("Not here", ("runtime", "why"), [(row.runtime, _why(row)) for row in comparison.rows if row.xray is None]),
    ]  # fmt: skip
    return tuple(sheet for sheet in made if sheet.rows)


def comparison_view(comparison: Comparison) -> View:
    """Show the runtimes side by side."""
    return stack(*(table(sheet.header, sheet.rows, title=sheet.title, note=sheet.note) for sheet in sheets(comparison)))


def comparison_json(comparison: Comparison) -> str:
    """Return every fact, with the whole X-ray of each."""
    return json.dumps({"version": VERSION, **plain(comparison)}, indent=2, ensure_ascii=True)


def comparison_page(comparison: Comparison, before: str = "") -> str:
    """Return a page of Markdown; what it says of other kinds of machine than this one stays.

    Args:
        comparison: of this machine.
        before: the page as it was.
    """
    place = f"## {comparison.init}, cgroups {comparison.cgroups}"
    parts = re.split(r"^(?=## )", before, flags=re.MULTILINE)[1:]
    kept = {part.partition("\n")[0]: part.rstrip() for part in parts}
    command = " ".join(comparison.argv)
    lines = [place, "", f"{comparison.system}, Linux {comparison.kernel}. Each ran `{command}` in one root file system of busybox."]
    for sheet in sheets(comparison):
        lines += ["", f"### {sheet.title}", "", _markdown(sheet.header), _markdown(["---"] * len(sheet.header))]
        lines += [_markdown(row) for row in sheet.rows]
        lines += ["", sheet.note[:1].upper() + sheet.note[1:] + "."] if sheet.note else []
    kept[place] = "\n".join(lines)
    return "\n\n".join([_BEGIN, *kept.values()]) + "\n"


_BEGIN = """# The same program, by every runtime

Written by `make compare` (`labkit compare --write docs/compare.md`), one section a kind of machine: that of the machine on which
it is run is written anew, the others stay. Every fact was read from /proc, cgroupfs and netlink while the program ran.
A start in a virtual machine without KVM takes as long as its emulator needs: compare starts within one section."""


def _markdown(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _sheet(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = "") -> Sheet:
    return Sheet(title, header, tuple(tuple(clean(cell) for cell in row) for row in rows), note)


def _namespaces(xray: Xray) -> list[str]:
    return [{True: "own", False: "·", None: "?"}[xray.own(kind)] for kind in words.KINDS]


def _seconds(row: Row) -> str:
    if row.seconds is None:
        return ""
    return f"{row.seconds:.2f} s" if row.seconds >= 1 else f"{row.seconds * 1000:.0f} ms"


def _inside(xray: Xray) -> str:
    return str(xray.process.pids[-1]) if len(xray.process.pids) > 1 else "as outside"


def _called(members: Iterable[Member]) -> str:
    """Name programs as they are called, without the directory; of one that renamed itself, what stands in brackets."""
    return ", ".join(dict.fromkeys(map(_program, members))) or "none"


def _program(member: Member) -> str:
    first = member.argv[0] if member.argv else member.comm
    renamed = re.match(r"\[[^\]]+\]", first)
    return renamed[0] if renamed else first.split(" ")[0].rpartition("/")[2].rstrip(":") or member.comm


def _cgroup(cgroups: Cgroups | NotRead) -> tuple[str, str]:
    if isinstance(cgroups, NotRead):
        return str(cgroups), str(cgroups)
    unified = next((place.path for place in cgroups.places if not place.hierarchy), "/")
    path = unified if unified != "/" else max((place.path for place in cgroups.places), key=len, default="/")
    return _ID.sub(r"\1…", path), ", ".join(f"{limit.key} {words.limit_value(limit)}" for limit in _set(cgroups)) or "none"


def _set(cgroups: Cgroups) -> list[Limit]:
    return [limit for limit in cgroups.limits if limit.key in _LIMITS and str(limit.value).split()[0] != "max"]


def _root(root: Root | NotRead) -> tuple[str, str, str, str]:
    if isinstance(root, NotRead):
        return str(root), "", "", ""
    mount = root.mount
    layers = str(len(root.lowerdir) + bool(root.upperdir)) if root.lowerdir else "none"
    mounted = f"{mount.fstype}, {'read-only' if root.read_only else 'read-write'}" if mount else "not in sight"
    return words.root_in_brief(root), mounted, layers, words.propagation(mount).partition(":")[0] if mount else ""


def _mounts(xray: Xray) -> str:
    return str(xray.mounts) if isinstance(xray.mounts, NotRead) else str(len(xray.mounts))


def _capabilities(security: Security | NotRead) -> tuple[str, str]:
    return (str(security), "") if isinstance(security, NotRead) else (_of(security, "effective"), _of(security, "bounding"))


def _filters(security: Security | NotRead) -> tuple[str, str, str]:
    return (str(security), "", "") if isinstance(security, NotRead) else (
        words.seccomp(security), words.no_new_privs(security), words.label(security)
    )  # fmt: skip


def _of(security: Security, name: str) -> str:
    return f"{len(security.capabilities.get(name, ()))} of {len(security.known)}"


def _network(network: Network | NotRead) -> str:
    if isinstance(network, NotRead):
        return str(network)
    ports = f"; {count(len(network.ports), 'port')} leads in" if network.ports else ""
    return words.network_in_brief(network) + ports


def _why(row: Row) -> str:
    return f"n/a: {row.absent}" if row.absent else f"failed: {row.failed}"
