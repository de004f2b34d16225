"""What an X-ray shows, as frozen records: facts about one process and what it is confined by.

Where something could not be read, a `NotRead` with the errno stands in the place of the fact. No record says why
something is as it is: only what was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from labkit.kernel.credentials import Ids
from labkit.kernel.network.nat import PortMapping
from labkit.kernel.state import LinkState, MountState, RouteState


@dataclass(frozen=True)
class NotRead:
    """What stands where something could not be read.

    Attributes:
        errno: the kernel's answer by its name, such as "EACCES".
        what: the file, or the call.
    """

    errno: str
    what: str

    def __str__(self) -> str:
        return f"not readable: {self.errno}"


@dataclass(frozen=True)
class Member:
    """One process, as the tree of an X-ray shows it.

    Attributes:
        pid: as the reader's PID namespace numbers it.
        ppid: its parent.
        pids: its numbers from the reader's PID namespace to its innermost one (NSpid).
        uid: its effective user, as the reader's user namespace numbers it.
        comm: its name, at most 15 characters.
        argv: its command line; empty for a kernel thread and a zombie.
        state: one letter, as in ps(1).
        start: its start in clock ticks since boot.
        flags: PF_* of the kernel.
        tgid: the process that a thread is of.
        inside: its number in the PID namespace of the process that was asked for; None where it has none there.
        uid_inside: its user, as the user namespace of the process that was asked for numbers it; None where that has no number for it.
    """

    pid: int
    ppid: int
    pids: tuple[int, ...]
    uid: int
    comm: str
    argv: tuple[str, ...] = ()
    state: str = "?"
    start: int = 0
    flags: int = 0
    tgid: int = 0
    inside: int | None = None
    uid_inside: int | None = None

    @property
    def kind(self) -> Literal["process", "kernel thread", "zombie", "thread"]:
        """What it is; a zombie has ended and waits for its parent to ask for its status."""
        if self.flags & PF_KTHREAD:
            return "kernel thread"
        if self.state in ("Z", "X"):
            return "zombie"
        return "process" if self.tgid in (0, self.pid) else "thread"


PF_KTHREAD = 0x00200000


@dataclass(frozen=True)
class Membership:
    """One namespace that a process is in. See: namespaces(7), ioctl_ns(2).

    Attributes:
        kind: the long option of unshare(1).
        inode: its number.
        own: whether it is another one than that of the reference; None where that could not be read.
        with_parent: whether the parent process is in it, too; None where that could not be read.
        owner: inode of the user namespace that owns it; None where the kernel does not say.
        for_children: where its children will be, if that is another one (pid and time namespaces).
    """

    kind: str
    inode: int
    own: bool | None
    with_parent: bool | None
    owner: int | None = None
    for_children: int | None = None


@dataclass(frozen=True)
class Limit:
    """One limit with what is used of it, under the name that cgroup v2 has for it.

    Attributes:
        key: interface file of v2, such as "memory.max".
        value: "max" for none.
        cgroup: path of the cgroup that sets it: the process's own, or the one above it that is tighter; "" where none does.
        used: what is used now, in the unit of `value`; None where that is not counted.
    """

    key: str
    value: int | str
    cgroup: str = ""
    used: int | None = None


@dataclass(frozen=True)
class CgroupPlace:
    """The cgroup of a process in one hierarchy.

    Attributes:
        hierarchy: "" for v2, else the v1 controllers mounted together.
        path: as /proc/PID/cgroup says.
        directory: where it lies; None where the hierarchy is not mounted in the reader's sight.
    """

    hierarchy: str
    path: str
    directory: str | None


@dataclass(frozen=True)
class Cgroups:
    """Where a process is in every hierarchy, and what limits it.

    Attributes:
        places: one a hierarchy.
        limits: those that are set, here or above.
        cpu_usec: CPU time used by the cgroup, in microseconds; None where it is not counted.
        frozen: whether it is frozen, itself or by one above; None where no freezer says.
    """

    places: tuple[CgroupPlace, ...]
    limits: tuple[Limit, ...] = ()
    cpu_usec: int | None = None
    frozen: bool | None = None


@dataclass(frozen=True)
class Root:
    """The root directory of a process. See: proc_pid_root(5), mount_namespaces(7).

    Attributes:
        link: what /proc/PID/root says: "/", or where in its mount namespace a chroot is.
        same: whether it is the same directory as the root of the reference; None where that could not be read.
        mount: the mount it lies on; None where that is not in sight.
        on_host: the same directory as the reader sees it, checked by device and inode; None where it is not in sight.
        lowerdir: of an overlay, the topmost first, symlinks resolved.
        upperdir: of an overlay, or "".
        workdir: of an overlay, or "".
    """

    link: str
    same: bool | None
    mount: MountState | None = None
    on_host: str | None = None
    lowerdir: tuple[str, ...] = ()
    upperdir: str = ""
    workdir: str = ""

    @property
    def chroot(self) -> bool:
        """Whether it is a directory below the root of its mount namespace."""
        return self.link != "/"

    @property
    def read_only(self) -> bool:
        """Whether the mount can be written by nobody."""
        return self.mount is not None and "ro" in (*self.mount.options, *self.mount.super_options)


@dataclass(frozen=True)
class Way:
    """How one veth leads to the outside.

    Attributes:
        ifname: the end in the container.
        peer: the other end; "" where that is not in sight.
        netns: where the other end is: "host", a name under /run/netns, or "net:[INODE]".
        bridge: what the other end is a port of, or "".
        bridge_addresses: of the bridge.
        outside: the link by which the other end's namespace reaches the default route, or "".
        gateway: next hop of that route, or "".
        masquerade: the rules there that give its packets the address of the outside link.
        forwards: whether that namespace forwards IPv4; None where that could not be read.
    """

    ifname: str
    peer: str
    netns: str
    bridge: str = ""
    bridge_addresses: tuple[str, ...] = ()
    outside: str = ""
    gateway: str = ""
    masquerade: tuple[str, ...] = ()
    forwards: bool | None = None


@dataclass(frozen=True)
class Network:
    """The network namespace of a process.

    Attributes:
        name: "host", a name under /run/netns, or "net:[INODE]".
        links: with addresses.
        routes: IPv4 and IPv6 of the main table.
        ways: one a veth.
        ports: mappings that lead to one of its addresses.
        user_mode: processes outside that carry its packets (slirp4netns, pasta), each as "pasta (pid 812)".
    """

    name: str
    links: tuple[LinkState, ...] = ()
    routes: tuple[RouteState, ...] = ()
    ways: tuple[Way, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    user_mode: tuple[str, ...] = ()


@dataclass(frozen=True)
class IdMaps:
    """The user and group ids of a user namespace. See: user_namespaces(7).

    Attributes:
        uid: (inside, outside, count), outside as the reader numbers them.
        gid: the same of the groups.
        setgroups: "allow" or "deny"; "" where the kernel does not say.
    """

    uid: tuple[tuple[int, int, int], ...]
    gid: tuple[tuple[int, int, int], ...]
    setgroups: str = ""

    @property
    def identity(self) -> bool:
        """Whether every id is outside what it is inside."""
        return all(row == (0, 0, 4294967295) for row in (*self.uid, *self.gid)) and bool(self.uid)


@dataclass(frozen=True)
class Security:
    """What a process may do. See: capabilities(7), seccomp(2), proc_pid_status(5).

    Attributes:
        ids: user and group ids.
        capabilities: "effective", "permitted", "inheritable", "bounding", "ambient" to names.
        known: every capability that this kernel has.
        seccomp: "disabled", "strict" or "filter"; "" where the kernel does not say.
        filters: how many seccomp filters; None where the kernel does not say.
        no_new_privs: whether execve(2) can give it nothing more; None where the kernel does not say.
        label: of the Linux security module, such as "docker-default (enforce)"; "" where none labels it.
        rlimits: name to (soft, hard), None for unlimited.
        rlimits_differ: the names of those that are not as the reference's.
        oom_score_adj: -1000 to 1000.
    """

    ids: Ids
    capabilities: Mapping[str, tuple[str, ...]]
    known: tuple[str, ...]
    seccomp: str
    filters: int | None
    no_new_privs: bool | None
    label: str | NotRead
    rlimits: Mapping[str, tuple[int | None, int | None]]
    rlimits_differ: tuple[str, ...] = ()
    oom_score_adj: int | None = None

    def dropped(self, of: str = "bounding") -> tuple[str, ...]:
        """Return the capabilities that a set does not have."""
        return tuple(name for name in self.known if name not in self.capabilities.get(of, ()))


@dataclass(frozen=True)
class Tree:
    """The processes of a container, and who watches over it.

    Attributes:
        by: how they were told: "pid namespace", "cgroup", or "descendants" where neither sets them apart.
        members: by pid.
        outside: the parents outside, nearest first, up to the first process.
    """

    by: Literal["pid namespace", "cgroup", "descendants"]
    members: tuple[Member, ...]
    outside: tuple[Member, ...]


@dataclass(frozen=True)
class Sign:
    """A trace that a program leaves on what it starts, as it was read.

    Attributes:
        where: "cgroup", "environment", "file", "parent".
        what: such as "container=lxc", "/run/.containerenv" or "/lxc.payload.web".
    """

    where: str
    what: str


@dataclass(frozen=True)
class Xray:
    """One process with everything that confines it, read at one instant.

    Attributes:
        name: as it was asked for.
        process: itself.
        reference: with whose namespaces its own are compared: 1, or the reader's pid where those of 1 may not be read.
        hostname: in its UTS namespace.
        namespaces: by kind; a kind that this kernel does not have is missing.
        cgroups: in every hierarchy.
        root: its root directory.
        mounts: in the kernel's order.
        network: what it can reach.
        maps: its user namespace.
        security: what it may do.
        tree: who else is in there.
        signs: traces of who made it.
        parent: of a zombie, who has not waited for it; None for what is none.
    """

    name: str
    process: Member
    reference: int
    hostname: str | NotRead
    namespaces: tuple[Membership, ...] | NotRead
    cgroups: Cgroups | NotRead
    root: Root | NotRead
    mounts: tuple[MountState, ...] | NotRead
    network: Network | NotRead
    maps: IdMaps | NotRead
    security: Security | NotRead
    tree: Tree
    signs: tuple[Sign, ...] = ()
    parent: Member | None = None

    @property
    def is_host(self) -> bool:
        """Whether it shares every namespace and the root directory with the reference: nothing confines it but its cgroups."""
        if isinstance(self.namespaces, NotRead) or not self.namespaces:
            return False
        return all(each.own is False for each in self.namespaces) and not isinstance(self.root, NotRead) and self.root.same is True

    def own(self, kind: str) -> bool | None:
        """Whether it has a namespace of this kind for itself; None where that is not known."""
        if isinstance(self.namespaces, NotRead):
            return None
        return next((each.own for each in self.namespaces if each.kind == kind), None)
