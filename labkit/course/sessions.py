"""A session of a user who is not root: a home directory and cgroups of its own, all the lab's, so that they go with it.

The way into it is a small script in the lab's directory, for cells and for a terminal beside the notebook alike.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import trace
from labkit.host.account import STUDENT, Account, delegable, find
from labkit.kernel import trees
from labkit.runtimes import podman_store

if TYPE_CHECKING:
    from labkit.course.workplace import Workplace

_DOOR = """#!/bin/bash -e
# Run a command as {name}, with a home directory and a cgroup of the lab: {door} COMMAND
scope=$$-$RANDOM.scope # for each its own: a cgroup that was divided takes no processes any more
for slice in {slices}; do
    mkdir -p "$slice/$scope"
    for cgroup in "$slice" "$slice/$scope"; do
        chown {name}: "$cgroup" "$cgroup"/cgroup.procs
        chown {name}: "$cgroup"/{{cgroup.threads,cgroup.subtree_control,tasks}} 2> /dev/null || true # v2 has the first two, v1 the last
    done
    echo $$ > "$slice/$scope/cgroup.procs"
done
export HOME={home} USER={name} LOGNAME={name}{more}
exec {command} "$@"
"""


@dataclass(frozen=True)
class Session:
    """What a user has in one lab.

    Attributes:
        account: who it is.
        home: its home directory in the lab; that of the machine is left alone.
        door: a command of root's that runs another one in the session.
        cgroups: its own, called as systemd would call them; below each, every command gets one for itself.
        environment: of the lab's shell cells, with the user's own.
    """

    account: Account
    home: Path
    door: Path
    cgroups: tuple[Path, ...]
    environment: dict[str, str]

    @classmethod
    def open(cls, place: Workplace, name: str = STUDENT) -> Session:
        """Return the session of a user in a lab; what it needs is made where it is not there.

        Shell:
            mkdir -m 711 $LAB/home; chown labkit-student: $LAB/home

        Raises:
            UnsupportedError: there is no such user.
        """
        user = find(name)
        home, door = place.directory / "home", place.directory / user.name
        if not home.is_dir():
            trees.make_tree(home)
            os.chmod(home, 0o711)  # noqa: S103 - root inside its containers is somebody else, and has to go through
            os.chown(home, user.uid, user.gid)
            trace.record(f"chmod 711 {home}; chown {user.name}: {home}")
        podman = podman_store.environment_of(user, place.directory) if "podman" in place.needs else {}
        environment = {**place.environment(), **user.environment(), **podman, "HOME": str(home), "LAB": str(place.directory)}
        session = cls(user, home, door, tuple(delegable(f"{user.name}.slice")), environment)
        if not door.exists():
            session._make_door(podman)
        return session

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return how root types a command of the session."""
        return [str(self.door), *argv]

    def _make_door(self, more: Mapping[str, str]) -> None:
        exports = "".join(f" {variable}={shlex.quote(value)}" for variable, value in more.items())
        words = {"name": self.account.name, "door": self.door, "home": shlex.quote(str(self.home)), "more": exports}
        text = _DOOR.format(**words, slices=shlex.join(map(str, self.cgroups)), command=shlex.join(self.account.typed([])))
        self.door.write_text(text)
        self.door.chmod(0o755)
        trace.record(f"cat > {self.door} << 'END'\n{text}END\nchmod 755 {self.door}")
