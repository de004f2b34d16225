"""What the doctor measures of the tools that run containers: LXC, with and without root, nspawn, and what they run."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from labkit.errors import LabError, UnsupportedError
from labkit.host import account, rootfs
from labkit.host.account import Account
from labkit.host.findings import Finding, amber, green, red
from labkit.host.measures import Machine, tool

BRIDGE = "lxcbr0"
"""The bridge of LXC's containers."""

_UP = "labkit up lxc-bridge"
_CNI = ("iptables-restore", "dnsmasq")
_RKT = ("gpg", "gpgv", "openssl", "iptables-restore")
_PLUGINS = Path("/usr/lib/cni")


class Fault(NamedTuple):
    """One thing that keeps a user from running a container: what was measured, and what to do about it."""

    cause: str
    remedy: str


def lxc(machine: Machine) -> Finding:
    """Tell whether root can run LXC: the tools, the parser of profiles where AppArmor is in force, the bridge."""
    found = tool(machine, "lxc-start")
    if found.colour != "green":
        return found
    if _confines(machine) and not shutil.which("apparmor_parser", path=machine.path):
        return red(found.measured, "AppArmor is in force, and no command apparmor_parser in PATH", "apt-get install apparmor")
    if not (machine.sys / "class/net" / BRIDGE).exists():
        return amber(found.measured, f"there is no bridge {BRIDGE}: containers have loopback alone", _UP)
    return green(f"{found.measured}, bridge {BRIDGE}")


def lxc_unprivileged(machine: Machine, home: Path | None = None, cgroups: Iterable[Path] = ()) -> Finding:
    """Tell whether a user can run LXC, and else which of the usual faults is there.

    Args:
        machine: where to look.
        home: where the user's containers lie; the user's home directory by default.
        cgroups: those from which the user would start one; none to look only whether there is a hierarchy for it.
    """
    found = tool(machine, "lxc-start")
    if found.colour != "green":
        return found
    try:
        user = account.find(etc=machine.etc)
    except UnsupportedError as error:
        return red(error.found, f"there is no user {account.STUDENT}", error.remedy)
    faults = list(faults_of(user, machine, [home] if home else [], cgroups))
    if faults:
        return red(f"{user.name} cannot start a container", *faults[0])
    first = user.id_map()[0][1]
    measured = f"{user.name}, root inside is {first} outside"
    plug = unplugged(user, machine)
    return amber(measured, *plug) if plug else green(f"{measured}, bridge {BRIDGE}")


def faults_of(user: Account, machine: Machine, reached: Iterable[Path] = (), cgroups: Iterable[Path] = ()) -> Iterator[Fault]:
    """Yield what keeps a user from starting containers, the most basic first.

    Args:
        user: who.
        machine: where to look.
        reached: directories that root of its containers has to reach; its home directory by default.
        cgroups: those from which it would start one; none to look only whether there is a hierarchy for it.
    """
    try:
        user.id_map()
    except LabError as error:
        yield Fault(error.message, error.remedy or "make lab")
    else:
        yield from _overlaps(user, machine)
    for name in ("newuidmap", "newgidmap"):
        where = shutil.which(name, path=machine.path)
        if where is None:
            yield Fault(f"no command {name} in PATH", "apt-get install uidmap")
        elif not _privileged(where):
            yield Fault(f"{where} is neither setuid root nor has capabilities", f"chmod u+s {where}")
    for place in reached or (user.home,):
        for directory in (place, *place.parents):
            if directory.exists() and not directory.stat().st_mode & stat.S_IXOTH:
                yield Fault(f"{directory} has no x for others: root of its containers is one of them", f"chmod o+x {directory}")
    yield from _undelegated(user, machine, cgroups)


def unplugged(user: Account, machine: Machine) -> Fault | None:
    """Return why a user's containers get no network; None where they get one."""
    if not (machine.sys / "class/net" / BRIDGE).exists():
        return Fault(f"there is no bridge {BRIDGE}: containers have loopback alone", _UP)
    allowed = machine.etc / "lxc/lxc-usernet"
    lines = [line.split() for line in allowed.read_text().splitlines()] if allowed.exists() else []
    if not any(line[:3] == [user.name, "veth", BRIDGE] for line in lines):
        return Fault(f"{allowed} has no line for {user.name} and {BRIDGE}", f"echo {user.name} veth {BRIDGE} 10 >> {allowed}")
    return None


def nspawn(machine: Machine) -> Finding:
    """Tell whether systemd-nspawn is there, and whether machined keeps its list."""
    found = tool(machine, "systemd-nspawn")
    if found.colour != "green":
        return found
    if not (machine.run / "systemd/system").is_dir():
        why = "systemd does not run here: containers boot all the same, machinectl knows nothing of them, /proc does"
        return amber(found.measured, why)
    return green(f"{found.measured}, registered with machined")


def packed(machine: Machine) -> Finding:  # noqa: ARG001 - it lies where the set-up has put it
    """Tell whether the set-up has packed the root file systems."""
    try:
        files = [rootfs.tarball(name) for name in ("debian", "metadata")]
    except UnsupportedError as error:
        return red(error.found, f"{error.needs} is not there", error.remedy)
    return green(f"{files[0]}, {files[0].stat().st_size >> 20} MiB")


def rkt(machine: Machine) -> Finding:
    """Tell whether the set-up has made the ACIs of the course, and what signs them, reaches them and joins a pod to a network is there."""
    try:
        sites = rootfs.acis()
    except UnsupportedError as error:
        return red(error.found, f"{error.needs} are not there", error.remedy)
    missing = [found for found in (tool(machine, name) for name in _RKT) if found.colour == "red"]
    if missing:
        return missing[0]
    if not (_PLUGINS / "ptp").exists():
        return red("no CNI plugins", f"{_PLUGINS} has no ptp", "apt-get install containernetworking-plugins")
    return green(f"ACIs of {', '.join(sorted(each.name for each in sites.iterdir()))}")


def cni(machine: Machine) -> Finding:
    """Tell whether Debian's CNI plugins are there, what they call, and a DHCP server."""
    missing = [found for found in (tool(machine, name) for name in _CNI) if found.colour == "red"]
    if missing:
        return missing[0]
    if not (_PLUGINS / "bridge").exists():
        return red("no CNI plugins", f"{_PLUGINS} has no bridge", "apt-get install containernetworking-plugins")
    return green(f"plugins in {_PLUGINS}")


def _confines(machine: Machine) -> bool:
    enabled = machine.sys / "module/apparmor/parameters/enabled"
    return enabled.exists() and enabled.read_text().strip() == "Y"


def _privileged(program: str) -> bool:
    mode = os.stat(program)
    if mode.st_uid == 0 and mode.st_mode & stat.S_ISUID:
        return True
    try:
        return bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def _overlaps(user: Account, machine: Machine) -> Iterator[Fault]:
    """Yield whose ids are the user's too: what one of them may touch, the other may."""
    for file, mine in (("subuid", user.subuid), ("subgid", user.subgid)):
        for line in (machine.etc / file).read_text().splitlines():
            name, _, words = line.partition(":")
            first, _, count = words.partition(":")
            others = name not in (user.name, str(user.uid)) and first.isdigit() and count.isdigit()
            if mine and others and int(first) < mine[0] + mine[1] and mine[0] < int(first) + int(count):
                yield Fault(f"{machine.etc / file} gives ids of {user.name} to {name} too", "give one of them another range: subuid(5)")


def _undelegated(user: Account, machine: Machine, cgroups: Iterable[Path]) -> Iterator[Fault]:
    from labkit.kernel.cgroups.hierarchy import hierarchies

    unified = hierarchies(machine.proc).unified
    if unified is None:
        why = "no cgroup2 hierarchy is mounted, and only of that one a user may be given a part"
        yield Fault(why, "mount -t cgroup2 none /sys/fs/cgroup")
    elif os.statvfs(unified).f_flag & os.ST_RDONLY:
        yield Fault(f"{unified} is mounted read-only", "in a container start it with --privileged")
    for directory in cgroups:
        owner = directory.stat().st_uid
        if owner != user.uid:
            why = f"the cgroup {directory} is not delegated: it belongs to user id {owner}"
            yield Fault(why, "systemd-run --user --scope -p Delegate=yes COMMAND")
