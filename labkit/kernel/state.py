"""What the kernel says is there, as frozen records: the readers of this room make them, show/ draws them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_BY_ITSELF = re.compile(r"::1/128$|fe[89ab]|ff0")


def _empty() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True)
class NamespaceState:
    """One namespace. See: namespaces(7), ioctl_ns(2).

    Attributes:
        kind: "mount", "uts", "ipc", "net", "pid", "user", "cgroup" or "time": the long options of unshare(1).
        inode: its number, as in `uts:[4026531838]`.
        pids: the processes in it, ascending.
        owner: inode of the user namespace that owns it; None where the kernel does not say.
        uid: the user who made it (user namespaces only); None where the kernel does not say.
        path: a file that keeps it alive without a process, such as /run/netns/namespace1; None if there is none.
    """

    kind: str
    inode: int
    pids: tuple[int, ...] = ()
    owner: int | None = None
    uid: int | None = None
    path: str | None = None


@dataclass(frozen=True)
class ProcessState:
    """One process. See: proc(5).

    Attributes:
        pid: as the first PID namespace numbers it.
        ppid: its parent.
        comm: its name, at most 15 characters.
        argv: its command line; empty for a kernel thread.
        state: one letter, as in ps(1).
        start: its start in clock ticks since boot: with `pid` this names one process for ever.
        pid_inside: its number in the innermost PID namespace.
        namespaces: kind to inode; a kind that could not be read is missing.
        cgroups: hierarchy ("" for v2, else the v1 controllers) to path.
        name: the name that the lab gave it, or "".
    """

    pid: int
    ppid: int
    comm: str
    argv: tuple[str, ...] = ()
    state: str = "?"
    start: int = 0
    pid_inside: int = 0
    namespaces: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    cgroups: Mapping[str, str] = field(default_factory=_empty)
    name: str = ""


@dataclass(frozen=True)
class CgroupState:
    """One cgroup of one hierarchy. See: cgroups(7).

    Attributes:
        hierarchy: "" for v2, else the v1 controllers mounted together, such as "freezer" or "cpu,cpuacct".
        path: inside the hierarchy, "/" for its root.
        directory: where it lies in the file system.
        values: interface file to value, for those that can be set (and the few that tell a state).
        pids: its own processes, not those of its children.
    """

    hierarchy: str
    path: str
    directory: str
    values: Mapping[str, str] = field(default_factory=_empty)
    pids: tuple[int, ...] = ()

    @property
    def version(self) -> int:
        """2 or 1."""
        return 1 if self.hierarchy else 2


@dataclass(frozen=True)
class MountState:
    """One line of /proc/PID/mountinfo. See: proc_pid_mountinfo(5).

    Attributes:
        id: mount id.
        parent: id of the mount it sits on.
        device: "major:minor".
        root: which directory of its file system is its root.
        mountpoint: where it is mounted.
        options: of this mount (ro, nosuid, ...).
        optional: the optional fields, such as ("shared:1", "master:2").
        fstype: such as "overlay".
        source: such as "/dev/vda" or "overlay".
        super_options: of the file system, such as "lowerdir=...".
    """

    id: int
    parent: int
    device: str
    root: str
    mountpoint: str
    options: tuple[str, ...]
    optional: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def propagation(self) -> str:
        """"shared", "private", "slave", "slave,shared" or "unbindable". See: mount_namespaces(7)."""
        tags = [tag.split(":")[0] for tag in self.optional]
        words = [word for tag, word in (("master", "slave"), ("shared", "shared"), ("unbindable", "unbindable")) if tag in tags]
        return ",".join(words) or "private"


def automatic(address: str) -> bool:
    """Whether the kernel gives an address of IPv6, or a route to it, by itself. See: ipv6(7)."""
    return bool(_BY_ITSELF.match(address.lower()))


@dataclass(frozen=True)
class LinkState:
    """One network interface. See: ip-link(8).

    Attributes:
        ifname: its name.
        index: its number in its network namespace.
        kind: "veth", "bridge", "vxlan", ...; "loopback" for lo; "" for hardware.
        up: whether it was set up (IFF_UP).
        operstate: "UP", "DOWN", "LOWERLAYERDOWN", "UNKNOWN", ...
        mac: its link-layer address.
        mtu: bytes.
        master: ifname of the bridge that it is a port of, or "".
        peer: for a veth, (netns, ifname) of its other end, netns as in NetworkState.name; None if not known.
        addresses: each as "192.168.1.1/24".
        rate: octets a second to which a token bucket holds what leaves it (tc-tbf(8)); 0 for none.
    """

    ifname: str
    index: int
    kind: str = ""
    up: bool = False
    operstate: str = "UNKNOWN"
    mac: str = ""
    mtu: int = 0
    master: str = ""
    peer: tuple[str, str] | None = None
    addresses: tuple[str, ...] = ()
    rate: int = 0

    @property
    def given(self) -> tuple[str, ...]:
        """The addresses that somebody gave: those of IPv6 that the kernel gives by itself, link-local ones and ::1, are left out."""
        return tuple(address for address in self.addresses if not automatic(address))


@dataclass(frozen=True)
class RouteState:
    """One route of the main table. See: ip-route(8).

    Attributes:
        destination: "default" or "192.168.1.0/24".
        gateway: next hop, or "".
        ifname: the interface it leaves by.
        source: preferred source address, or "".
    """

    destination: str
    gateway: str = ""
    ifname: str = ""
    source: str = ""


@dataclass(frozen=True)
class NetworkState:
    """One network namespace with what is in it.

    Attributes:
        name: "host" for the one of the machine, the name under /run/netns, or "net:[INODE]" for one without a name.
        inode: its number.
        links: by ifindex.
        routes: IPv4 and IPv6, without the local table.
        rules: the nft rule set, one string a table, chain or rule; counters left out.
    """

    name: str
    inode: int
    links: tuple[LinkState, ...] = ()
    routes: tuple[RouteState, ...] = ()
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileState:
    """One name seen through a union mount, and where it really lies.

    Attributes:
        path: relative to the merged directory.
        layers: the branches that hold this name, topmost first, as indices into UnionState.branches.
        kind: "file", "directory", "symlink", "whiteout" (hidden by the upper layer) or "opaque" (a directory that hides those below).
        visible: whether the merged directory shows it.
        copied_up: whether the upper layer's file is a copy of one that a lower layer has.
    """

    path: str
    layers: tuple[int, ...]
    kind: str = "file"
    visible: bool = True
    copied_up: bool = False


@dataclass(frozen=True)
class UnionState:
    """A union mount: its branches and every name in them. See: Documentation/filesystems/overlayfs.rst.

    Attributes:
        fstype: "overlay", "fuse.unionfs", "fuse.fuse-overlayfs" or "fuse.mergerfs".
        merged: the mount point.
        branches: (role, directory) from the topmost down; role "upperdir", "lowerdir" or "branch".
        workdir: of an overlay, or "".
        mounted: whether it is mounted now.
        files: every name below the branches, sorted by path.
    """

    fstype: str
    merged: str
    branches: tuple[tuple[str, str], ...]
    workdir: str = ""
    mounted: bool = False
    files: tuple[FileState, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """The state of the kernel at one instant, read only."""

    namespaces: tuple[NamespaceState, ...] = ()
    cgroups: tuple[CgroupState, ...] = ()
    mounts: tuple[MountState, ...] = ()
    networks: tuple[NetworkState, ...] = ()
    processes: tuple[ProcessState, ...] = ()


@dataclass(frozen=True)
class Change:
    """One thing that differs between two snapshots.

    Attributes:
        kind: "cgroup", "process", "namespace", "mount", "netns", "link", "address", "route" or "rule".
        name: what, as the field writes it: "freezer:/lab-2.1/mycgroup", "veth1 in namespace1", ...
        attribute: which value of it changed ("freezer.state", "operstate", "netns"), "" where the whole thing appeared or went.
        before: the value before; None where it was not there.
        after: the value after; None where it is gone.
    """

    kind: str
    name: str
    attribute: str = ""
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Difference:
    """What changed between two snapshots, and nothing else."""

    appeared: tuple[Change, ...] = ()
    went: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.appeared or self.went or self.changed)
