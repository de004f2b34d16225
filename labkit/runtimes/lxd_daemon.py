"""The LXD or Incus of the labs, asked through its own client: what there is, what is under way, and the labs' own pool and profile.

One that somebody else has set up is asked nothing and changed nowhere. The client gets a configuration directory of the lab's, so
that the one of the person who runs it stays as it is. See: lxc --help, lxd init --help, incus --help, incus admin init --help
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import CommandError, LabError
from labkit.host import services
from labkit.kernel import commands, processes, rooted
from labkit.kernel.commands import Completed

MARK = "user.labkit"
"""The key of an instance's configuration that has the id of its entry in the ledger: it is there from the first moment on."""

_TICK = 0.02  # seconds between two questions about what LXD is still doing
_PATIENCE = 30.0


@dataclass(frozen=True)
class Names:
    """What LXD, or the fork of it, calls its parts; the API and the words of the client are the same.

    Attributes:
        service: the service of labkit, its directory among `services.places()`, and the runtime.
        title: its own name; in capital letters, the beginning of its variables.
        client: the command.
        daemon: the file of the program that starts containers.
        init: the command that takes a preseed.
    """

    service: str
    title: str
    client: str
    daemon: str
    init: tuple[str, ...]


LXD = Names("lxd", "LXD", "lxc", "lxd", ("lxd", "init"))
INCUS = Names("incus", "Incus", "incus", "incusd", ("incus", "admin", "init"))


class Daemon:
    """One LXD, known by its directory (LXD_DIR); or one Incus (INCUS_DIR)."""

    def __init__(self, directory: Path, names: Names = LXD) -> None:
        self.directory = directory
        self.names = names

    @property
    def environment(self) -> dict[str, str]:
        """Return what its client needs: nothing of the notebook's, nothing of the user's."""
        variable, client = self.names.title.upper(), ledger.state() / f"{self.names.service}-client"
        return {**rooted.ENVIRONMENT, f"{variable}_DIR": str(self.directory), f"{variable}_CONF": str(client)}

    def answers(self) -> bool:
        """Return whether it is up."""
        return commands.run([self.names.client, "query", "/1.0"], env=self.environment, timeout=_PATIENCE, check=False).status == 0

    def ask(self, path: str) -> Any:
        """Return what its API answers to GET; None where there is no such thing.

        Raises:
            CommandError: it is down.
        """
        done = commands.run([self.names.client, "query", path], env=self.environment, timeout=_PATIENCE, check=False)
        if done.status and "not found" not in done.stderr.lower():
            raise CommandError(done.argv, done.status, done.stderr)
        return json.loads(done.stdout or "null") if done.status == 0 else None

    def type(self, argv: Sequence[str], *, check: bool = True, given: str = "", line: str | None = None) -> Completed:
        """Run its client, or another tool of it, as a person types it.

        Args:
            argv: program and arguments.
            check: raise where it fails.
            given: a short text for its standard input.
            line: what the trace shows in place of them.

        Raises:
            CommandError: it failed.
        """
        stdin, typed = _pipe(given), line or shlex.join(argv)
        try:
            done = processes.run(argv, env=self.environment, cwd="/", stdin=stdin, on_error=lambda _: None, shell_line=typed)
        finally:
            os.close(stdin)
        if check and done.status:
            raise CommandError(argv, done.status, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.stdout)
        return done

    def tell(self, argv: Sequence[str], *, check: bool = True) -> None:
        """Run its client as housekeeping: there is nothing of it to undo.

        Raises:
            CommandError: it failed.
        """
        commands.run(argv, env=self.environment, timeout=2 * _PATIENCE, check=check)

    def instance(self, name: str) -> dict[str, Any] | None:
        """Return one instance as the API describes it."""
        found: dict[str, Any] | None = self.ask(f"/1.0/instances/{name}")
        return found

    def settle(self) -> None:
        """Wait until nothing is under way any more: what a client that was killed had asked for goes on.

        Raises:
            LabError: something still is.
        """
        deadline = time.monotonic() + _PATIENCE
        while running := (self.ask("/1.0/operations?recursion=1") or {}).get("running"):
            if not any(operation["class"] == "task" for operation in running):
                return
            if time.monotonic() > deadline:
                busy = f"{self.names.title} is busy: {running[0]['description']}"
                raise LabError(busy, cause=f"after {_PATIENCE:g} s it still is", remedy="try again")
            time.sleep(_TICK)


def of_the_labs(names: Names = LXD) -> Daemon:
    """Return the LXD, or the Incus, of the labs' services."""
    return Daemon(getattr(services.places(), names.service), names)


def of_entry(entry: ledger.Entry) -> Daemon:
    """Return the one that keeps what an entry says: its directory stands in the key under the name of the service."""
    names = next(names for names in (LXD, INCUS) if names.service in entry.key)
    return Daemon(Path(entry.key[names.service]), names)


def why_not(names: Names = LXD) -> str | None:
    """Return why it cannot be used: it is down, or somebody else has set it up; None where it can."""
    (found,) = services.status([names.service])
    if found.state == "up" or (found.by == "other labkit" and found.serves):
        return None
    if found.state == "foreign":
        return f"the {names.title} at {found.where} was set up by somebody else, and stays as it is"
    return f"{names.title} is {found.state}: {found.health} ({found.where}); labkit up {names.service}"


def seed(daemon: Daemon) -> str:
    """Return the name of the lab's storage pool (a directory) and profile, made by a preseed where they are not there.

    Shell:
        lxd init --preseed < preseed.yaml

    Raises:
        LabError: somebody else has a pool or a profile of this name.
    """
    names, kind = daemon.names, f"{daemon.names.service} preseed"
    name = f"labkit-{ledger.owner() or 'lab'}"
    places = [f"/1.0/storage-pools/{name}", f"/1.0/profiles/{name}"]
    there = [found for found in map(daemon.ask, places) if found]
    key = {"name": name, names.service: str(daemon.directory)}
    known = ledger.find(kind, **key)
    if known is not None:
        if known.identity and len(there) == len(places):
            return name
        with trace.silent():
            ledger.undo_one(known)
    elif there:
        remedy = f"{names.client} profile delete {name}; {names.client} storage delete {name}"
        raise LabError(f"{names.title} has a pool or a profile {name}, and no lab made it", remedy=remedy)
    with ledger.making(kind, **key) as entry:
        argv = [*names.init, "--preseed"]
        daemon.type(argv, given=_preseed(name, entry.id), line=f"{shlex.join(argv)} < preseed.yaml")
        entry.identity.update(mark=entry.id)
    return name


def _preseed(name: str, mark: str) -> str:
    """Return the YAML, of which JSON is a part."""
    root = {"type": "disk", "path": "/", "pool": name}
    pool = {"name": name, "driver": "dir", "description": f"labkit {mark}"}
    return json.dumps({"storage_pools": [pool], "profiles": [{"name": name, "description": f"labkit {mark}", "devices": {"root": root}}]})


def _pipe(text: str) -> int:
    """Return the end of a pipe from which a short text can be read."""
    read_end, write_end = os.pipe()
    os.write(write_end, text.encode())
    os.close(write_end)
    return read_end


@ledger.undoes("lxd preseed", survives_reboot=True)
@ledger.undoes("incus preseed", survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Remove profile and pool where they are those that were made."""
    daemon, name = of_entry(entry), entry.key["name"]
    if not must_answer(daemon):
        return
    daemon.settle()
    for kind, noun in (("profiles", "profile"), ("storage-pools", "storage")):
        found = daemon.ask(f"/1.0/{kind}/{name}")
        if found and found["description"] == f"labkit {entry.id}":
            daemon.tell([daemon.names.client, noun, "delete", name])


def must_answer(daemon: Daemon) -> bool:
    """Return whether there is something to ask; False where that daemon and all that it kept are gone.

    Raises:
        LabError: it is there and does not answer: what it keeps cannot be removed.
    """
    if daemon.answers():
        return True
    if not (daemon.directory / "database").exists():
        return False
    names = daemon.names
    remedy = f"labkit up {names.service}, then labkit clean"
    raise LabError(f"the {names.title} of {daemon.directory} does not answer, and keeps what a lab made", remedy=remedy)
