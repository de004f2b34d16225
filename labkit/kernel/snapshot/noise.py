"""What of a kernel's state is no news to a student: rules, as data, that a difference of two snapshots leaves out.

Each table says what it leaves out and why. What is in no table is shown.
"""

from __future__ import annotations

import re
from ipaddress import ip_interface

from labkit.kernel.state import LinkState, MountState, ProcessState, RouteState

LAB_CGROUP = re.compile(r"(?:^/lab|/lab-[^/]+)(?:/|$)")
"""A process is the lab's when its cgroup in any hierarchy is this one or below it; every other process is noise."""

HOUSEKEEPING_PROCESS = re.compile(r"/labkit/kernel/processes/launcher\.py$")
"""The lab's own launcher, by the script in its command line: it starts the processes that a student sees."""

INITS = frozenset(("systemd", "init"))
"""What a system's process 1 is called. In a container it stands for the system: what it starts is the system's own affair."""

MONITORS = frozenset(("unshare", "systemd-nspawn", "lxc-start"))
"""Who starts such an init and waits for its end. The init itself is shown."""

SHIMS = frozenset(("containerd-shim", "conmon"))
"""Who watches over a container of an engine. Its child is the container's first process, or what was executed in it: that is shown."""

CLEANER = ("podman", "cleanup")
"""Whom conmon calls once what it watched over has ended, by its comm and a word of its command line: it comes and goes at its own time."""

BY_HAND = re.compile(r"/lab(?:-[^/]+)?/runc(?:/[^./][^/]*)?$")
"""Where runc keeps what a person starts with it in a lab: as many as the machine has hierarchies, so their coming and going is left out,
and told by the processes in them; a value changed in them is shown."""

TYPED = re.compile(r"/lab(?:-[^/]+)?/runc(?:/\.typed)?$")
"""Where runc itself runs, if a person typed it. With both versions of cgroups it has a mount namespace there, for its view of v2."""

KEPT_BY_AN_ENGINE = re.compile(r"/libpod-[0-9a-f]{64}(?:\.scope)?(?:/|$)|/lab(?:-[^/]+)?/runc/[^./][^/]*$")
"""The cgroup of a container that goes on when who watched over it has ended: its first process is still shown."""

BY_DEFAULT_OF_THE_ENGINE = frozenset(("cgroup",))
"""Namespaces that a container of an engine has on a machine with cgroup v2 alone, and not elsewhere: in its X-ray."""

PAYLOAD = re.compile(r"/(?:lxc\.payload\.|machine-)([^/]+?)(?:\.scope)?(?:/|$)")
"""The cgroup that a runtime makes for a container, with the container's name."""

POD = re.compile(r"/lab(?:-[^/]+)?/rkt-[0-9a-f-]{36}(?:/|$)")
"""Where rkt keeps a pod and its apps, in each hierarchy."""

CGROUPS = re.compile(
    r"\.(?:slice|scope|service|mount|socket|swap)(?:/|$)"  # systemd's: units come and go by themselves
    r"|/lxc\.(?:payload|monitor)\.|/lxc\.pivot(?:/|$)|/lab(?:-[^/]+)?/lxc(?:-unprivileged)?\."  # where LXC keeps a container: in its X-ray
    r"|^/docker(?:/[0-9a-f]{64})?$|/kubepods(?:/|$)|^/libpod_parent(?:/|$)"  # and where the engines keep theirs
    r"|/(?:docker|libpod|crio|cri-containerd)-[0-9a-f]{64}(?:/|$)|/lab(?:-[^/]+)?/containerd\."
    r"|/lab(?:-[^/]+)?/docker(?:/|$)"  # also those of a lab's own daemon
    rf"|{POD.pattern}"  # and where rkt keeps its pods
    r"|/lab(?:-[^/]+)?/runc/\.typed$"  # and where runc itself runs
    r"|/lab(?:-[^/]+)?/processes(?:/|$)"  # where the lab keeps a process so that it can be ended: the process itself is shown
)
"""Cgroups that are left out altogether, by their path."""

CGROUP_HOME = re.compile(r"^(?:/.*)?/lab(?:-[^/]+)?$|^/$")
"""A lab's own directory, made on demand, and the root of a hierarchy, which comes with its mount: their coming and going are left out;
a value changed in them is shown."""

NAMELESS_TRACKER = re.compile(r"process(?:-\d+)?")
"""The place of a process that nobody named: it is called by its comm."""

CGROUP_FILES = re.compile(
    r"\.(?:stat|stat\.local|current|peak|pressure|events|events\.local|usage_in_bytes|max_usage_in_bytes|failcnt|numa_stat)$"  # counters
    r"|^(?:cgroup\.procs|cgroup\.threads|tasks)$"  # who is in it: shown as a change of the process
    r"|^cgroup\.controllers$|\.effective|_effective|^freezer\.(?:self|parent)_freezing$|^cpu\.weight\.nice$"  # follow from another file
    r"|^cpuacct\.|_usage_us$|^cpu\.rt_"
)
"""Interface files whose value counts, or follows from another one."""

HANDED_DOWN = "cgroup.subtree_control"
"""Which controllers a cgroup above the lab's hands down: opening and closing a lab switches them. In its own it is shown."""

CGROUP_DEFAULTS = {
    "cgroup.freeze": "0", "cgroup.max.depth": "max", "cgroup.max.descendants": "max", "cgroup.subtree_control": "", "cgroup.type": "domain",
    "cpu.max": "max 100000", "cpu.weight": "100", "memory.high": "max", "memory.low": "0", "memory.max": "max", "memory.min": "0",
    "memory.swap.max": "max", "memory.oom.group": "0", "pids.max": "max",
    "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1", "cpu.shares": "1024", "freezer.state": "THAWED",
    "memory.limit_in_bytes": "9223372036854771712", "memory.memsw.limit_in_bytes": "9223372036854771712",
    "memory.soft_limit_in_bytes": "9223372036854771712", "memory.swappiness": "60",
}  # fmt: skip
"""What a new cgroup says of itself when nobody has set anything: of a cgroup that appeared, only other values are shown."""

MOUNTED_FIRST = frozenset(("uuid=on",))
"""What overlayfs says of a directory that it has not mounted before (uuid=auto), and not the next time."""

ANONYMOUS = "0:"
"""How the device of what lies on none begins: the kernel gives such a number again and again."""

NETNS = re.compile(r"^(?:/var)?/run/netns(?:/|$)")
"""Where ip-netns(8) keeps namespaces by their names."""

NETNS_OF_AN_ENGINE = re.compile(r"^/proc/\d+/root/.*/docker/netns/")
"""Where an engine whose mounts nobody else sees keeps network namespaces: of a container it is shown with its process."""

MOUNTPOINTS = re.compile(
    rf"{NETNS.pattern}"  # a named network namespace: shown as that
    r"|/docker/netns/"  # what keeps the network of a container of docker: shown with its process
    r"|/io\.containerd\.grpc\.v1\.cri/(?:netns|sandboxes)/|/crio/ns/"  # of a pod, and its shared memory
    r"|^/run/systemd/nspawn/"  # where systemd-nspawn keeps what it shares with a container
    r"|^/run/user/|^/run/credentials/|^/proc/sys/fs/binfmt_misc$"  # systemd's: mounted when first touched
)
"""Mounts that are left out, by their mount point."""

LINKS_OF_A_NEW_NAMESPACE = frozenset(
    ("lo", "sit0", "tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0", "ip6_vti0")
)  # fmt: skip
"""Links that the kernel itself puts into every new network namespace."""

BRIDGE_OF_PODS = frozenset(("cni0",))
"""The bridge that CNI makes with the first pod of a machine, and keeps: of each pod its own link is shown, and whose port that is."""

ADDRESSES = re.compile(r"^(?:127\.0\.0\.1/8|::1/128|fe[89ab][0-9a-f]:.*)$")
"""Addresses that the kernel gives by itself when a link goes up."""

ROUTES = re.compile(r"^(?:fe[89ab][0-9a-f]:.*|ff00::/8|multicast .*|127\.0\.0\.0/8|::1(?:/128)?|0\.0\.0\.0/32)$")
"""Routes that come with such an address."""

RULE_COUNTERS = ((re.compile(r"counter packets \d+ bytes \d+"), "counter"), (re.compile(r"\s*# handle \d+"), ""))
"""What counts, or numbers, inside the text of an nft rule."""

_HOOKS = "PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING"
NAT_OF_A_POD = re.compile(
    r"\bchain CNI-\S+$|\b(?:jump|goto) CNI-|\bchain CNI-(?:[0-9a-f]{24}|HOSTPORT-\w+|FORWARD\b.* (?:ct state|conntrack)) "
    rf"|^table ip6? (?:nat|filter)(?: chain (?:{_HOOKS})(?: type \w+ hook [^;]*; policy accept;)?)?$"
)
"""Rules of nft that CNI makes and removes with the network of a pod, and the way to them: shown with its link and its address; what a
published port is changed to, and whose packets are let through, is shown. And the bare tables and hooks that iptables makes first."""

STOPPED = frozenset("Tt")
"""Of the states in ps(1) only stopped is news: running, sleeping and waiting change all the time."""

ENDED = frozenset("ZX")
"""A process in these states has ended: it only waits for its parent to read its status."""


def cleans_up(process: ProcessState) -> bool:
    """Return whether a process clears away after a container that has ended."""
    return process.comm == CLEANER[0] and CLEANER[1] in process.argv


def is_of_a_pod(process: ProcessState) -> bool:
    """Return whether a process runs in a pod of rkt, by its cgroups."""
    return any(POD.search(path) for path in process.cgroups.values())


def is_lab_process(process: ProcessState) -> bool:
    """Return whether a living process is one of a lab's, by its cgroups."""
    if process.state in ENDED or cleans_up(process) or any(HOUSEKEEPING_PROCESS.search(word) for word in process.argv[:5]):
        return False
    return bool(process.name) or any(LAB_CGROUP.search(path) for path in process.cgroups.values())


def is_housekeeping_mount(mount: MountState, state: str) -> bool:
    """Return whether a mount is left out; `state` is the directory where labkit keeps what it needs itself."""
    own = mount.fstype in ("cgroup", "cgroup2") and mount.mountpoint.startswith(f"{state}/")
    return own or bool(MOUNTPOINTS.search(mount.mountpoint))


def is_implied_route(route: RouteState, links: tuple[LinkState, ...]) -> bool:
    """Return whether the kernel adds this route by itself, for an address of the link that it leaves by."""
    if ROUTES.search(route.destination):
        return True
    if route.gateway or route.destination == "default":
        return False
    addresses = [ip_interface(address) for link in links if link.ifname == route.ifname for address in link.addresses]
    return any(route.destination in (str(address.network), str(address.ip), address.with_prefixlen) for address in addresses)


def without_counters(rule: str) -> str:
    """Return the text of an nft rule with what counts taken out."""
    for pattern, instead in RULE_COUNTERS:
        rule = pattern.sub(instead, rule)
    return rule
