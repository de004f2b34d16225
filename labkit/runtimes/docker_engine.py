"""A dockerd in a network namespace of its own: whoever speaks to it by a network meets another machine.

It has its state in the lab's directory, and the mount namespace of a lab's own dockerd (docker_daemon.py), so what it binds below
/run/docker/netns ends with its processes; its links, its rules and its ports end with the network namespace. It has no bridge
docker0, no link outside, and writes no rule. See: dockerd(8), network_namespaces(7)
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.kernel import commands, network, rooted, trees
from labkit.kernel.cgroups.delegation import hand_down, homes
from labkit.kernel.network import NetworkNamespace
from labkit.kernel.processes.process import Process
from labkit.runtimes import docker_daemon

_KIND = "docker engine"
_CLAIM = "docker engine claim"


def claim(name: str) -> None:
    """Take a name for an engine that starts when this lab opens: of the engine, of its network namespace, and of its context.

    Raises:
        LabError: there is such a network namespace, and it is not this lab's.
    """
    NetworkNamespace.claim(name)
    ledger.intend(_CLAIM, name=name)


def claimed() -> tuple[str, ...]:
    """Return the names of the engines of the lab that owns what is made."""
    return tuple(entry.key["name"] for entry in ledger.live(ledger.owner()) if entry.kind == _CLAIM)


def serve(directory: Path, name: str, **settings: object) -> Process:
    """Start an engine, and return once it answers: `docker --context NAME` speaks to it. Housekeeping, kept out of the trace.

    Args:
        directory: of the lab.
        name: of the engine and of its network namespace, which is made if it is not there.
        settings: more of daemon.json.

    Raises:
        UnsupportedError: there is no dockerd.
        LabError: it ended instead, or does not answer in time, with the last line of its log.
    """
    for program in ("docker", "dockerd"):
        if not shutil.which(program):
            raise commands.missing(program)
    with trace.silent():
        homes()
        hand_down()
        own = trees.make_tree(directory / name)
        (own / "docker.sock").unlink(missing_ok=True)  # of one that was killed
        network.up("lo", NetworkNamespace.create(name))
        (own / "daemon.json").write_text(json.dumps(docker_daemon.configuration(own, "none") | settings, indent=2) + "\n")
        with ledger.making(_KIND, directory=str(own)):
            process = docker_daemon.start(own, name, enter={"net": NetworkNamespace(name)})
        _name_for_clients(directory, name, own)
    return process


def serves(name: str) -> bool:
    """Tell whether the lab that owns what is made, or outside of a lab any, has an engine of this name."""
    return _directory(name) is not None


def pid(name: str, container: str) -> int:
    """Return the first process of a container of an engine, as this machine numbers it.

    Shell:
        docker --context NAME container inspect --format '{{.State.Pid}}' CONTAINER

    Args:
        name: of the engine.
        container: its name.

    Raises:
        LabError: there is no such engine, it has no such container, or it does not run.
    """
    directory = _directory(name)
    if directory is None:
        raise LabError(f"no lab has an engine {name}")
    client = ["docker", "--context", name, "container", "inspect", "--format", "{{.State.Pid}}", container]
    asked = commands.run(client, env=_environment(directory.parent), check=False)
    if asked.status or not asked.stdout.strip().isdigit():
        raise LabError(f"the engine {name} has no container {container}")
    if asked.stdout.strip() == "0":
        raise LabError(f"the container {container} of the engine {name} does not run")
    return int(asked.stdout)


def sandboxes() -> tuple[str, ...]:
    """Return the files by which the engines keep network namespaces, those of their networks among them, as this machine reaches them."""
    engines = [known for directory in _directories() for known in docker_daemon.processes_of(str(directory))]
    return tuple(str(file) for known in engines for file in sorted(Path(f"/proc/{known.pid}/root/run/docker/netns").glob("*")))


def _directories() -> list[Path]:
    return [Path(entry.key["directory"]) for entry in ledger.live(ledger.owner() or None) if entry.kind == _KIND]


def _directory(name: str) -> Path | None:
    return next((directory for directory in reversed(_directories()) if directory.name == name), None)


def _environment(directory: Path) -> dict[str, str]:
    return {**rooted.ENVIRONMENT, **docker_daemon.environment(directory)}


def _name_for_clients(directory: Path, name: str, own: Path) -> None:
    """Make the context by which docker's client finds an engine; of an earlier try it is there. See: docker-context(1)."""
    environment = _environment(directory)
    if commands.run(["docker", "context", "inspect", name], env=environment, check=False).status:
        endpoint = f"host=unix://{own}/docker.sock"
        commands.run(["docker", "context", "create", name, "--docker", endpoint], env=environment)


@ledger.undoes(_KIND)
def _undo(entry: ledger.Entry) -> None:
    """Kill the engine. Its containers and shims end with the lab's cgroups, its links with its network namespace."""
    docker_daemon.end(entry.key["directory"])


@ledger.undoes(_CLAIM)
def _undo_claim(_: ledger.Entry) -> None:
    """Do nothing: a claim holds nothing by itself."""
