"""A session of a user who is not root: a home directory and a cgroup of its own, both the lab's, so that both go with it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import trace
from labkit.host.account import STUDENT, Account, delegate, find
from labkit.kernel import trees

if TYPE_CHECKING:
    from labkit.course.workplace import Workplace


@dataclass(frozen=True)
class Session:
    """What a user has in one lab.

    Attributes:
        account: who it is.
        home: its home directory in the lab; that of the machine is left alone.
        cgroups: those that it may divide further, as a login session has from systemd.
        environment: of the lab's shell cells, with the user's own.
    """

    account: Account
    home: Path
    cgroups: tuple[Path, ...]
    environment: dict[str, str]

    @classmethod
    def open(cls, place: Workplace, name: str = STUDENT) -> Session:
        """Return the session of a user in a lab; what it needs is made where it is not there.

        Shell:
            mkdir -m 711 $LAB/home; chown labkit-student $LAB/home; mkdir CGROUP; chown labkit-student CGROUP ...

        Raises:
            UnsupportedError: there is no such user.
        """
        user = find(name)
        home = place.directory / "home"
        if not home.is_dir():
            trees.make_tree(home)
            os.chmod(home, 0o711)  # noqa: S103 - root inside its containers is somebody else, and has to go through
            os.chown(home, user.uid, user.gid)
            trace.record(f"chmod 711 {home}; chown {user.name}: {home}")
        cgroups = tuple(delegate(user, user.name))
        return cls(user, home, cgroups, {**place.environment(), **user.environment(), "HOME": str(home), "LAB": str(place.directory)})

    def options(self) -> dict[str, Any]:
        """Return what a process of the session is started with, besides its command."""
        return {"cgroups": self.cgroups, "env": self.environment}

    def typed(self, script: str) -> str:
        """Return how root types a script of the session."""
        joins = "".join(f"echo $BASHPID > {path}/cgroup.procs; " for path in self.cgroups)
        line = f"{joins}HOME={self.home} USER={self.account.name} exec {shlex.join(self.account.typed(['bash', '-e', '-u']))} <<'END'"
        return f"{line}\n{script.strip()}\nEND"
