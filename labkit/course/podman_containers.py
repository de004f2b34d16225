"""The containers of podman that checkpoints look for: root's, by the names in the lab's store, and a user's, by who watches over them."""

from __future__ import annotations

from labkit.course.checkpoints import Verdict
from labkit.host import account
from labkit.kernel.xray.containers import containers
from labkit.kernel.xray.machine import Machine
from labkit.runtimes.podman import Podman


def of_root(name: str, machine: Machine) -> int | None:
    """Return the first process of a container of root's, if the kernel has it: podman may think so of one that has ended."""
    there = {each.pid for each in containers(machine)}
    return next((each.pid for each in Podman().list() if each.name == name and each.pid in there), None)


def of_student(name: str, machine: Machine) -> int | None:
    """Return the first process of a container over which a conmon of the labs' user watches."""
    student = account.find().uid
    for found in containers(machine):
        parent = machine.members.get(machine.members[found.pid].ppid)
        if found.is_called(name) and parent and parent.uid == student:
            return found.pid
    return None


def absent(name: str) -> Verdict:
    """Say that a container of root's does not run, and whether podman has it."""
    there = any(each.name == name for each in Podman().list())
    cause = f"podman has {name}, the kernel has no process of it" if there else f"root's podman has no container {name}"
    return Verdict(passed=False, measured=f"{name} does not run", cause=cause)


def not_of_student(name: str) -> Verdict:
    """Say that no container of the labs' user is called so."""
    return Verdict(passed=False, measured=f"{name} does not run", cause=f"no container {name} was started by {account.STUDENT}")
