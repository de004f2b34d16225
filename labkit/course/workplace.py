"""Where a lab works: its directory, its part of the cgroup hierarchies, and the variables of its shell cells."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import ledger, trace
from labkit.cni import claims as cni
from labkit.errors import LabError, UnsupportedError
from labkit.host import account
from labkit.host.rootfs import packed
from labkit.images import search
from labkit.kernel import cgroups, trees
from labkit.kernel.cgroups import delegation
from labkit.kernel.mounts import ownership as mount_ledger
from labkit.runtimes import by_hand, crio, docker_daemon, docker_engine, docker_storage, podman_store, rkt_by_hand

if TYPE_CHECKING:
    from labkit.course.terminal import Terminal
    from labkit.kernel.processes.process import Process

VARIABLES = {"CGROUP2": "", "FREEZER": "freezer", "MEMORY": "memory", "PIDS": "pids", "CPU": "cpu", "CPUACCT": "cpuacct"}
"""Variable of a shell cell to the controller whose directory of this lab it names; "" is the v2 hierarchy."""

DELEGATING = frozenset(("systemd-nspawn", "lxc-unprivileged", "podman"))
"""What makes cgroups in systemd's own hierarchy as well, also when it is typed by hand: there they shall be the lab's, too."""


class Workplace:
    """The place of one lab on this machine.

    Args:
        lab_id: the lab, such as "2.1".
        needs: what it needs of the machine.
    """

    def __init__(self, lab_id: str, needs: Sequence[str] = ()) -> None:
        self.id = lab_id
        self.needs = tuple(needs)
        self.directory = ledger.state() / "labs" / lab_id
        self.started: dict[str, Process] = {}
        self.terminals: dict[str, Terminal] = {}
        self._wanted: dict[str, str] = {}
        self.homes: dict[str, Path] = {}
        self.is_open = False

    def set_up(self) -> None:
        """Make the lab's directory and cgroups: housekeeping, kept out of the trace."""
        with trace.silent():
            trees.make_tree(self.directory)
            mount_ledger.claim(self.directory)
            if "podman" in self.needs:
                podman_store.make(self.directory)
                podman_store.make_for(account.find(), self.directory)
            for variable, controller in VARIABLES.items():
                with suppress(UnsupportedError):  # the variable stays unset, and a line that uses it says so
                    self.homes[variable] = cgroups.home(controller)
            if "freezer" in self.needs:  # the v1 freezer has words of its own; where the machine has none mounted, the lab does
                with suppress(UnsupportedError):
                    self.homes["FREEZER"] = cgroups.home("freezer", version=1)
            if DELEGATING & set(self.needs):
                delegation.homes(bare=True)
            if by_hand.is_claimed():
                by_hand.make(self.directory)
            if "cni" in self.needs:
                cni.caller(self.directory / "cni")
            if "dockerd" in self.needs:
                self.started[docker_daemon.NAME] = docker_daemon.serve(self.directory)
            for engine in docker_engine.claimed():
                self.started[engine] = docker_engine.serve(self.directory, engine, **docker_storage.settings(self.directory, engine))
            if "rkt" in self.needs:
                self.started[rkt_by_hand.NAME] = rkt_by_hand.serve(self.directory)
        self.is_open = True

    def attach(self) -> None:
        """Take the place as another process has set it up."""
        ledger.own(self.id)
        self.is_open = self.directory.is_dir()

    def take_down(self) -> None:
        """End and remove everything that the ledger holds for this lab; what is made from now on is this lab's.

        Raises:
            LabError: something resists, and stays in the ledger; everything else is gone.
        """
        ledger.own(self.id)
        self.started.clear()
        self.terminals.clear()
        self._wanted.clear()
        self.is_open = False
        try:
            ledger.undo(self.id)
        except ExceptionGroup as group:
            what = "; ".join(str(error) for error in group.exceptions)
            raise LabError(f"what lab {self.id} made could not all be removed: {what}", remedy=f"labkit clean {self.id}") from group

    def environment(self) -> dict[str, str]:
        """Return the environment of a shell cell: $LAB, the lab's cgroup directories, a pid for each named process, `labkit` in PATH.

        $REGISTRY and $ACCOUNTS are the addresses of the two registries, in labs that need them.
        """
        from labkit.host import services

        plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "JPY_", "PYDEVD"))}
        path = os.pathsep.join([*by_hand.path(self.directory), os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        places = {"LAB": str(self.directory), "ROOTFS": str(packed()), **{name: str(path) for name, path in self.homes.items()}}
        pids = {variable(name): str(process.pid) for name, process in self.started.items() if process.alive}
        engines = services.environment() if {service.name for service in services.SERVICES} & set(self.needs) else {}
        served = services.places()
        addresses = {"registry": served.registry_address, "accounts": served.accounts_address}
        engines |= {name.upper(): address for name, address in addresses.items() if name in self.needs}
        if "cri" in self.needs:
            engines["CONTAINER_RUNTIME_ENDPOINT"] = f"unix://{crio.endpoint().socket()}"
        own = podman_store.environment(self.directory) if "podman" in self.needs else {}
        own |= docker_daemon.environment(self.directory) if "dockerd" in self.needs else {}
        own |= rkt_by_hand.environment(self.directory) if "rkt" in self.needs else {}
        own |= search.environment(self.directory)
        if "accounts" in self.needs:
            own["ACCOUNTS_PASSWORD"] = str(served.accounts_directory / "password")
        fixed = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TERM": "dumb", "PATH": path}
        return {**plain, **fixed, **engines, **places, **own, **pids}

    def must_be_open(self) -> None:
        """Refuse when the lab was closed.

        Raises:
            LabError: it is closed.
        """
        if not self.is_open:
            raise LabError(f"lab {self.id} is closed", remedy=f'open it again: lab = open_lab("{self.id}")')

    def short(self, text: str) -> str:
        """Return text with the lab's directory written as the shell cells write it, `$LAB`."""
        return text.replace(str(self.directory), "$LAB")


def variable(name: str) -> str:
    """Return the shell variable for a process of this name: what a variable cannot hold becomes `_`."""
    return re.sub(r"\W", "_", name)
