"""What this machine can do for the labs: a table of checks, each measured now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from labkit.errors import LabError
from labkit.host import containers, cri, measures
from labkit.host.findings import Finding, Report
from labkit.host.measures import Machine
from labkit.host.services.table import here


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        id: the word by which a lab says that it needs this.
        title: what is looked at.
        measure: looks at the machine and says what it found.
    """

    id: str
    title: str
    measure: Callable[[Machine], Finding]


def _tool(name: str) -> Check:
    return Check(name, f"the command {name}", lambda machine: measures.tool(machine, name))


def _controller(name: str) -> Check:
    return Check(name, f"the cgroup controller {name}", lambda machine: measures.controller(machine, name))


def _service(name: str, title: str) -> Check:
    def measure(machine: Machine) -> Finding:  # noqa: ARG001 - a service is where this instance has it
        from labkit.host.services import diagnosis

        return diagnosis.service(name)

    return Check(name, title, measure)


def _starter(machine: Machine) -> Finding:
    from labkit.host.services import diagnosis

    return diagnosis.starter(machine)


CHECKS = (
    Check("root", "user id", measures.root),
    Check("kernel", "version of the kernel", measures.kernel),
    Check("capabilities", "what root may do here", measures.capabilities),
    Check("cgroups", "cgroup hierarchies", measures.cgroups),
    *map(_controller, ("freezer", "memory", "pids", "cpu")),
    Check("namespaces", "kinds of namespace", measures.namespaces),
    Check("userns", "whether one can be made", measures.user_namespaces),
    Check("overlay", "the overlay file system", measures.overlay),
    Check("btrfs", "the btrfs file system", measures.btrfs),
    Check("fuse", "file systems in user space", measures.fuse),
    Check("unionfs", "a union file system in user space", measures.union),
    *map(_tool, ("lscgroup", "ip", "ifconfig", "unshare", "nsenter", "lsns", "nft")),
    *map(_tool, ("debootstrap", "mmdebstrap")),
    Check("rootfs", "what the set-up packed for containers", containers.packed),
    Check("lxc", "LXC as root", containers.lxc),
    Check("lxc-unprivileged", "LXC as a user", containers.lxc_unprivileged),
    Check("nspawn", "systemd-nspawn", containers.nspawn),
    Check("ping", "ICMP echo", measures.ping),
    Check("execs", "the process connector", measures.connector),
    Check("lsm", "security modules", measures.security_modules),
    Check("disk", "space for what the labs keep", measures.disk),
    Check("services", "what starts services", _starter),
    *(_service(service.name, service.title) for service in here()),
    Check("cri", "who serves the CRI", cri.cri),
    Check("crio", "CRI-O", cri.crio),
    Check("rkt", "what rkt fetches, and what its pods need", containers.rkt),
    Check("cni", "the plugins of the Container Network Interface", containers.cni),
)
"""Every check; a lab names those that it needs by their ids."""

ALWAYS = ("root", "kernel", "capabilities", "lsm", "disk", "services")
"""What is looked at for every lab."""


def examine(needs: Iterable[str] | None = None, *, lab: str = "", machine: Machine | None = None) -> Report:
    """Measure what a lab needs, or everything.

    Shell: labkit doctor LAB

    Args:
        needs: ids of checks; None for all of them. The name of any command is an id too.
        lab: the lab's id, for the report's title.
        machine: where to look; the running one by default.

    Raises:
        LabError: a need that is neither a check nor the name of a command known here.
    """
    machine = machine or Machine()
    chosen = CHECKS if needs is None else _chosen(tuple(needs))
    return Report(lab, tuple(_found(check, machine) for check in chosen))


def _chosen(needs: tuple[str, ...]) -> tuple[Check, ...]:
    from labkit.kernel.commands import PACKAGES

    known = {check.id for check in CHECKS}
    for need in needs:
        if need not in known and need not in PACKAGES:
            raise LabError(f"the doctor has no check {need!r}", remedy=f"it has {', '.join(sorted(known))}")
    listed = tuple(check for check in CHECKS if check.id in needs or check.id in ALWAYS)
    return listed + tuple(_tool(need) for need in needs if need not in known)


def _found(check: Check, machine: Machine) -> Finding:
    return dataclasses.replace(check.measure(machine), id=check.id, title=check.title)
