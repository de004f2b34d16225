"""The user account of the labs: who runs containers without root, with ids of its own to map. Made by the set-up.

See: subuid(5), newuidmap(1), user_namespaces(7)
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import UnsupportedError
from labkit.kernel import rooted
from labkit.kernel.cgroups import hierarchies, subtree
from labkit.kernel.cgroups.delegation import homes

STUDENT = "labkit-student"
"""The account that vagrant/provision makes."""

IDS = 65536
"""How many ids a container of Debian needs: up to nobody, 65534."""

IdMap = tuple[tuple[int, int, int], ...]
"""Lines of uid_map and gid_map: (first id inside, first id outside, how many); empty where ids are the host's."""


@dataclass(frozen=True)
class Account:
    """One user with the ids that it may give away in its user namespaces.

    Attributes:
        name: of the user.
        uid: its user id.
        gid: its group id.
        home: its home directory.
        subuid: first and count of its subordinate user ids; None where /etc/subuid has no line for it.
        subgid: the same of groups.
    """

    name: str
    uid: int
    gid: int
    home: Path
    subuid: tuple[int, int] | None
    subgid: tuple[int, int] | None

    def id_map(self) -> IdMap:
        """Return the map of a container: root inside is the first subordinate id outside.

        Raises:
            UnsupportedError: there are too few of them.
        """
        for file, ids in (("/etc/subuid", self.subuid), ("/etc/subgid", self.subgid)):
            if ids is None or ids[1] < IDS:
                raise UnsupportedError(f"{IDS} ids for {self.name} in {file}", f"{ids[1] if ids else 'no line'}", remedy="make lab")
        first = self.subuid[0] if self.subuid else 0
        return ((0, first, IDS),)

    def typed(self, argv: Sequence[str]) -> list[str]:
        """Return a command as root types it, to be run as this user.

        Shell:
            setpriv --reuid=labkit-student --regid=labkit-student --init-groups COMMAND

        Not runuser(1), which opens a session: systemd would move the process out of its cgroup.
        """
        return ["setpriv", f"--reuid={self.name}", f"--regid={self.gid}", "--init-groups", *argv]

    def environment(self) -> dict[str, str]:
        """Return the environment of its session."""
        return {**rooted.ENVIRONMENT, "HOME": str(self.home), "USER": self.name, "LOGNAME": self.name}


def find(name: str = STUDENT, *, etc: Path = Path("/etc")) -> Account:
    """Return an account.

    Raises:
        UnsupportedError: there is none of this name.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UnsupportedError(f"the user {name}", "no such user", remedy="make lab") from None
    ids = (_ids(etc / "subuid", name, user.pw_uid), _ids(etc / "subgid", name, user.pw_uid))
    return Account(name, user.pw_uid, user.pw_gid, Path(user.pw_dir), *ids)


def cannot_map() -> str | None:
    """Return why the labs' user cannot run a container with ids of its own, or None where it can."""
    try:
        find().id_map()
    except UnsupportedError as error:
        return f"{error.needs}: {error.found}"
    return None if shutil.which("newuidmap") else "no command newuidmap in PATH"


def delegate(account: Account, relative: str) -> list[Path]:
    """Give a user a cgroup of its own below the lab's part, where it may make others: of v2, and of systemd's v1 hierarchy.

    Shell:
        mkdir -p CGROUP; chown -R labkit-student CGROUP

    Args:
        account: who gets it.
        relative: below the lab's part.

    Returns:
        The cgroups that are its own now.

    See: cgroups(7), "Cgroups delegation"; `systemd-run --user --scope -p Delegate=yes`, which does the same
    """
    given = delegable(relative)
    for directory in given:
        directory.mkdir(parents=True, exist_ok=True)
        for path in (directory, *(directory / file for file in _delegated())):
            if path.exists():
                os.chown(path, account.uid, account.gid)
    return given


def delegable(relative: str) -> list[Path]:
    """Return where a cgroup lies that a user may be given: in v2, and in systemd's v1 hierarchy. It is not made.

    Args:
        relative: below the lab's part.
    """
    homes(bare=True)
    there = (each for each in hierarchies().mounted if each.version == 2 or each.name.startswith("name="))
    return [each.path / subtree() / relative for each in there]


def _delegated() -> list[str]:
    """Return the interface files that go with a delegated cgroup: the kernel's own list, and the one of v1."""
    listed = Path("/sys/kernel/cgroup/delegate")
    return [*(listed.read_text().split() if listed.exists() else ("cgroup.procs", "cgroup.subtree_control")), "tasks"]


def _ids(file: Path, name: str, uid: int) -> tuple[int, int] | None:
    """Return the largest range that a file of subordinate ids gives a user."""
    try:
        lines = [line.split(":") for line in file.read_text().splitlines()]
    except OSError:
        return None
    found = [(int(line[1]), int(line[2])) for line in lines if len(line) == 3 and line[0] in (name, str(uid))]
    return max(found, key=lambda ids: ids[1], default=None)
