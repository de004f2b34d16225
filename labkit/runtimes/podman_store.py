"""A store of podman's for what is typed in a lab: images, containers, locks and configuration of its own, which go with the lab.

What podman keeps for the rest of the machine is neither read nor changed. The cgroups alone lie where podman puts those of everybody:
which are the lab's, the ids of the containers in the store tell.
See: containers.conf(5), containers-storage.conf(5)
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from labkit import ledger, trace
from labkit.host.account import Account
from labkit.host.services.mirrors import containers_conf
from labkit.kernel import trees
from labkit.kernel.cgroups import hierarchies, members
from labkit.kernel.processes import ending

LOW_LEVEL = ("runc", "crun")
"""The runtimes that podman starts; each keeps the states of its containers below /run."""

_KIND = "podman store"
_PARENT = "libpod_parent"  # podman's own default, which no configuration changes
_OUTSIDE = (
    "/var/lib/containers/cache/blob-info-cache-v1.boltdb", "/var/lib/containers/cache", "/var/lib/containers",
    "/run/containers/networks", "/run/containers", *(f"/run/{runtime}" for runtime in LOW_LEVEL),
)  # fmt: skip
"""What podman and its runtimes make outside of every store, whatever they are told; each before the directory that it is in."""

_STORAGE = """[storage]
driver = "overlay"
graphroot = "{graph}"
runroot = "{run}"
[storage.options.overlay]
skip_mount_home = "true" # else it is mounted on itself, with the first container
"""

_CRUN = """#!/bin/sh -e
# crun takes no machine with controllers in both versions of cgroups: here it gets a mount namespace in which v2 is hidden
exec unshare --mount sh -ec 'mount -t tmpfs none "$0"; exec crun "$@"' {unified} "$@"
"""

_PATIENCE = 10.0
_ID = 64


def graph(directory: Path) -> Path:
    """Return where a store keeps images and containers."""
    return directory / "storage"


def session(directory: Path) -> Path:
    """Return what a store has until the machine is started anew; podman takes no path of more than 50 letters for it."""
    return Path(f"/run/labkit-podman-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]}")


def environment(directory: Path) -> dict[str, str]:
    """Return the variables by which podman uses the store of a directory, and keeps there with which accounts one has logged in."""
    return {**_configured(directory), "REGISTRY_AUTH_FILE": f"{directory}/auth.json"}


def _configured(directory: Path) -> dict[str, str]:
    return {"CONTAINERS_CONF": f"{directory}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{directory}/storage.conf"}


def ids(directory: Path) -> set[str]:
    """Return the containers that have a directory in the store, those that are being made or removed among them."""
    return {found.parent.name for found in graph(directory).glob("*-containers/*/userdata")}


def _told(directory: Path, kind: str) -> set[str]:
    """Return the containers or the pods of which the store's log of events tells, those that were among them.

    Of a container whose conmon was killed, podman lets the cgroups be; of a pod, those of the hierarchies without a controller.
    """
    found = set()
    with suppress(OSError):
        for line in (session(directory) / "libpod/events/events.log").read_text().splitlines():
            with suppress(ValueError):  # its writer was killed in the middle of it
                event = json.loads(line)
                found |= {event["ID"]} if event.get("Type") == kind else set()
    return found


def is_used(graphroot: Path) -> bool:
    """Return whether podman has written down a container there: it would make the files in order to look."""
    return any((graphroot / file).exists() for file in ("libpod/bolt_state.db", "db.sql"))


def of_the_labs() -> tuple[Path, ...]:
    """Return the directories of the stores of labs, as far as something was typed there."""
    places = [Path(entry.key["directory"]) for entry in ledger.live() if entry.kind == _KIND]
    return tuple(place for place in places if is_used(graph(place)))


def configuration(directory: Path, containers: Mapping[str, str] | None = None, engine: Mapping[str, str] | None = None) -> str:
    """Return a containers.conf that says the same on every machine: loopback alone, and whom a stop kills at once.

    Args:
        directory: of the lab.
        containers: more of the table of this name, as TOML.
        engine: the same.
    """
    wanted = {
        "runtime": '"runc"',
        "cgroup_manager": '"cgroupfs"',
        "events_logger": '"file"',
        "lock_type": '"file"  # those of the other kind are the whole machine\'s',
        "stop_timeout": "0",
    }
    more = f'[engine.runtimes]\ncrun = ["{directory}/crun"]\n' if _hidden() else ""
    return containers_conf({"netns": '"none"', **(containers or {})}, {**wanted, **(engine or {})}) + more


def make(directory: Path) -> None:
    """Make an empty store in a directory of the lab: housekeeping, kept out of the trace.

    It is undone after the lab's cgroups if those are made later: who still types in them has ended then.
    """
    with trace.silent():
        run = trees.make_tree(session(directory))
        run.chmod(0o700)
        with ledger.making(_KIND, directory=str(directory)) as entry:
            entry.identity.update(absent=[str(place) for place in _beside() if not place.exists()])
            own = {"cgroups": '"no-conmon"  # conmon stays where podman was typed, and ends with the lab'}
            (directory / "containers.conf").write_text(configuration(directory, own, {"tmp_dir": f'"{run}/libpod"'}))
            (directory / "storage.conf").write_text(_STORAGE.format(graph=graph(directory), run=run / "run"))
            (directory / "auth.json").touch(0o600)
            (directory / "auth.json").write_text("{}\n")  # podman refuses one that is not there
            exports = [f"export {name}={shlex.quote(value)}\n" for name, value in environment(directory).items()]
            (directory / "podman.env").write_text("".join(exports))
            if unified := _hidden():
                (directory / "crun").write_text(_CRUN.format(unified=shlex.quote(str(unified))))
                (directory / "crun").chmod(0o755)


def make_for(user: Account, directory: Path) -> None:
    """Make what podman needs in a session of a user in a lab, in which containers lie in the home directory as they always do.

    Args:
        user: who it is.
        directory: of the lab, in which `home` will be its home directory.
    """
    with trace.silent():
        own = trees.make_tree(directory / f"{user.name}.d")
        run = trees.make_tree(session(own))
        run.chmod(0o700)
        os.chown(run, user.uid, user.gid)
        (run / "auth.json").write_text("{}\n")
        os.chown(run / "auth.json", user.uid, user.gid)
        (own / "containers.conf").write_text(configuration(directory))
        (own / "storage.conf").write_text(_STORAGE.format(graph=directory / "home/.local/share/containers/storage", run=run / "containers"))


def environment_of(user: Account, directory: Path) -> dict[str, str]:
    """Return the variables of a session of a user in a lab; XDG_RUNTIME_DIR is what a login would have given it."""
    own = directory / f"{user.name}.d"
    return {"XDG_RUNTIME_DIR": str(session(own)), **_configured(own), "REGISTRY_AUTH_FILE": f"{session(own)}/auth.json"}


def _hidden() -> Path | None:
    """Return the mount point of v2 where crun must not see it."""
    here = hierarchies()
    return here.unified if here.mode == "hybrid" and here.v2_controllers else None


def _beside() -> Iterator[Path]:
    """Yield all that podman makes outside of the store and keeps, each before the directory that it is in."""
    yield from map(Path, _OUTSIDE)
    yield from _parents()


def _parents() -> Iterator[Path]:
    yield from (hierarchy.path / _PARENT for hierarchy in hierarchies().mounted)


def _pods(directory: Path) -> Iterator[Path]:
    """Yield the cgroups of the store's pods, which are called by their ids: its log has told of those, or its database has them in it."""
    told = _told(directory, "pod")
    kept = [file.read_bytes() for name in ("libpod/bolt_state.db", "db.sql*") for file in graph(directory).glob(name)]
    for parent in _parents():
        for place in parent.glob("[0-9a-f]*"):
            if len(place.name) == _ID and (place.name in told or any(place.name.encode() in each for each in kept)):
                yield place


@ledger.undoes(_KIND, survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """End who still works for the store, and what runs in it, and remove what the runtimes and the kernel keep of that.

    No podman is asked: it may have been killed in the middle. Mounts and files go with the directory.
    """
    directory = Path(entry.key["directory"])
    while working := list(_working_for(directory)):  # a conmon whose container ends starts one more podman
        for process in working:
            ending.end([], root=process)
    pods = list(_pods(directory))
    for identifier in ids(directory) | _told(directory, "container"):
        places = [parent / f"libpod-{identifier}" for parent in (*_parents(), *pods)]
        members.kill([place for place in places if place.is_dir()], _PATIENCE)
        for place in places:
            members.end(place, _PATIENCE)
        for runtime in LOW_LEVEL:
            shutil.rmtree(f"/run/{runtime}/{identifier}", ignore_errors=True)
    for pod in pods:
        members.end(pod, _PATIENCE)
    for place in map(Path, entry.identity.get("absent", ())):
        with suppress(OSError):  # not empty: somebody else has come
            place.rmdir() if place.is_dir() else place.unlink()


def _working_for(directory: Path) -> Iterator[ending.Known]:
    """Yield the podmans and conmons of the store, in whatever cgroup: they have its variables, or were told its path."""
    variable = b"CONTAINERS_STORAGE_CONF=" + environment(directory)["CONTAINERS_STORAGE_CONF"].encode()
    path = os.fsencode(graph(directory))
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() not in ("podman", "conmon"):
                continue
            words = (process / "cmdline").read_bytes().split(b"\0")
            told = any(word == path or word.startswith(path + b"/") for word in words)
            ours = told or variable in (process / "environ").read_bytes().split(b"\0")
            known = ending.known(int(process.name)) if ours else None
            if known:
                yield known
