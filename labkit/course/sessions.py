"""A session of a user who is not root: a home directory and a cgroup of its own, both the lab's, so that both go with it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

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
        cgroups: its own, below which each script gets one for itself: a cgroup that was divided takes no processes any more.
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
            mkdir -m 711 $LAB/home; chown labkit-student: $LAB/home; mkdir CGROUP; chown -R labkit-student: CGROUP

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

    @contextmanager
    def scope(self) -> Iterator[tuple[Path, ...]]:
        """Give the block cgroups of its own, as systemd gives a scope; those that it leaves without children go with it."""
        number = next(number for number in count(1) if not any((path / str(number)).exists() for path in self.cgroups))
        places = tuple(delegate(self.account, f"{self.account.name}/{number}"))
        yield places
        for place in places:
            with suppress(OSError):
                place.rmdir()

    def typed(self, script: str, places: Sequence[Path]) -> str:
        """Return how root types a script of the session."""
        words = " ".join(map(str, places))
        owned = " ".join(map(str, self.cgroups))
        joins = f"mkdir -p {words}; chown -R {self.account.name}: {owned}; for c in {words}; do echo $BASHPID > $c/cgroup.procs; done"
        line = f"{joins}\nHOME={self.home} USER={self.account.name} exec {shlex.join(self.account.typed(['bash', '-e', '-u']))} <<'END'"
        return f"{line}\n{script.strip()}\nEND"
