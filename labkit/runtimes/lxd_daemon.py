"""The LXD of the labs, asked through its own client: what there is, what is under way, and the labs' own pool and profile.

An LXD that somebody else has set up is asked nothing and changed nowhere. The client gets a configuration directory of the
lab's, so that the one of the person who runs it stays as it is. See: lxc --help, lxd init --help
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import CommandError, LabError
from labkit.host import services
from labkit.kernel import commands, processes, rooted
from labkit.kernel.commands import Completed

MARK = "user.labkit"
"""The key of an instance's configuration that has the id of its entry in the ledger: it is there from the first moment on."""

_SEED = "lxd preseed"
_TICK = 0.02  # seconds between two questions about what LXD is still doing
_PATIENCE = 30.0


class Daemon:
    """One LXD, known by its directory (LXD_DIR)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def environment(self) -> dict[str, str]:
        """Return what its client needs: nothing of the notebook's, nothing of the user's."""
        return {**rooted.ENVIRONMENT, "LXD_DIR": str(self.directory), "LXD_CONF": str(ledger.state() / "lxd-client")}

    def answers(self) -> bool:
        """Return whether it is up."""
        return commands.run(["lxc", "query", "/1.0"], env=self.environment, timeout=_PATIENCE, check=False).status == 0

    def ask(self, path: str) -> Any:
        """Return what its API answers to GET; None where there is no such thing.

        Raises:
            CommandError: it is down.
        """
        done = commands.run(["lxc", "query", path], env=self.environment, timeout=_PATIENCE, check=False)
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
                raise LabError(f"LXD is busy: {running[0]['description']}", cause=f"after {_PATIENCE:g} s it still is", remedy="try again")
            time.sleep(_TICK)


def of_the_labs() -> Daemon:
    """Return the LXD of the labs' services."""
    return Daemon(services.places().lxd)


def why_not() -> str | None:
    """Return why it cannot be used: it is down, or somebody else has set it up; None where it can."""
    (found,) = services.status(["lxd"])
    if found.state == "up" or (found.by == "other labkit" and found.serves):
        return None
    if found.state == "foreign":
        return f"the LXD at {found.where} was set up by somebody else, and stays as it is"
    return f"LXD is {found.state}: {found.health} ({found.where}); labkit up lxd"


def seed(daemon: Daemon) -> str:
    """Return the name of the lab's storage pool (a directory) and profile, made by a preseed where they are not there.

    Shell:
        lxd init --preseed < preseed.yaml

    Raises:
        LabError: somebody else has a pool or a profile of this name.
    """
    name = f"labkit-{ledger.owner() or 'lab'}"
    places = [f"/1.0/storage-pools/{name}", f"/1.0/profiles/{name}"]
    there = [found for found in map(daemon.ask, places) if found]
    known = ledger.find(_SEED, name=name, lxd=str(daemon.directory))
    if known is not None:
        if known.identity and len(there) == len(places):
            return name
        with trace.silent():
            ledger.undo_one(known)
    elif there:
        remedy = f"lxc profile delete {name}; lxc storage delete {name}"
        raise LabError(f"LXD has a pool or a profile {name}, and no lab made it", remedy=remedy)
    with ledger.making(_SEED, name=name, lxd=str(daemon.directory)) as entry:
        daemon.type(["lxd", "init", "--preseed"], given=_preseed(name, entry.id), line="lxd init --preseed < preseed.yaml")
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


@ledger.undoes(_SEED, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Remove profile and pool where they are those that were made."""
    daemon, name = Daemon(Path(entry.key["lxd"])), entry.key["name"]
    if not must_answer(daemon):
        return
    daemon.settle()
    for kind, noun in (("profiles", "profile"), ("storage-pools", "storage")):
        found = daemon.ask(f"/1.0/{kind}/{name}")
        if found and found["description"] == f"labkit {entry.id}":
            daemon.tell(["lxc", noun, "delete", name])


def must_answer(daemon: Daemon) -> bool:
    """Return whether there is something to ask; False where that LXD and all that it kept are gone.

    Raises:
        LabError: it is there and does not answer: what it keeps cannot be removed.
    """
    if daemon.answers():
        return True
    if not (daemon.directory / "database").exists():
        return False
    raise LabError(f"the LXD of {daemon.directory} does not answer, and keeps what a lab made", remedy="labkit up lxd, then labkit clean")
