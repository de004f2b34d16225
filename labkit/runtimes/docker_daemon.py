"""A dockerd of a lab's own, beside the machine's: what `prune` and `rm -f $(docker ps -q)` meet there is the lab's alone.

It has its state in the lab's directory, a bridge and a cgroup of its own, and a mount namespace in which an empty /run keeps its
containerd, its shims and the state of runc apart from the machine's. Its mounts end with its processes. The machine's packet filter
it leaves alone; where the lab claims it, it stands in a network namespace and has one there (docker_netns.py). See: dockerd(8), https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.host.services.places import places
from labkit.kernel import commands, network, processes, rooted, trees
from labkit.kernel.cgroups import subtree
from labkit.kernel.cgroups.delegation import hand_down, homes
from labkit.kernel.processes import ending
from labkit.kernel.processes.process import Process
from labkit.runtimes import docker_netns, granting

NAME = "dockerd"
"""Of the process in its lab, and of its directory below the lab's."""

BRIDGE = "172.30.0.1/24"
"""The address of its bridge: docker's own, 172.17.0.1/16, is the machine's."""

_KIND = "docker daemon"
_VETH = "veth[0-9a-f]{7}"  # the names that docker gives
_STEPS = (
    'cp -L /etc/resolv.conf "$0"',
    "mount -t tmpfs none /run",
    '[ -e /etc/resolv.conf ] || install -D "$0"/resolv.conf "$(readlink -m /etc/resolv.conf)"',  # it may be a link into /run
    'exec dockerd --config-file "$0"/daemon.json',
)
_SCRIPT = "; ".join(_STEPS)
_UNFORWARDING = "echo 0 > /proc/sys/net/ipv4/ip_forward; "  # a new namespace has this machine's: dockerd drops what it forwards if it was 0


def socket() -> Path | None:
    """Return where the daemon of the lab that owns what is made listens; outside of a lab, that of any lab. None: there is none."""
    of = ledger.owner() or None
    found = [Path(entry.key["directory"]) / "docker.sock" for entry in ledger.live(of) if entry.kind == _KIND]
    return next((each for each in reversed(found) if each.is_socket()), None)


def environment(directory: Path) -> dict[str, str]:
    """Return the variables by which docker's client uses the daemon of a lab, and keeps its accounts there.

    Args:
        directory: of the lab.
    """
    own = directory / NAME
    return {"DOCKER_HOST": f"unix://{own}/docker.sock", "DOCKER_CONFIG": f"{own}/client"}


def bridge(lab: str) -> str:
    """Return the name of the bridge of a lab's daemon: at most 15 letters."""
    return f"docker-{lab.replace('.', '-')}"[:15]


def serve(directory: Path) -> Process:
    """Start the daemon of a lab, and return once it answers: housekeeping, kept out of the trace.

    Args:
        directory: of the lab. `docker.env` there has the variables for a terminal.

    Raises:
        UnsupportedError: there is no dockerd.
        LabError: it ended instead, or does not answer in time, with the last line of its log.
    """
    for program in ("docker", "dockerd"):
        if not shutil.which(program):
            raise commands.missing(program)
    own = directory / NAME
    with trace.silent():
        homes()
        hand_down()
        trees.make_tree(own)
        (own / "docker.sock").unlink(missing_ok=True)  # of one that was killed
        (own / "client").mkdir(exist_ok=True)
        (own / "client/config.json").write_text("{}\n")  # podman reads it, too, and wants it to be there
        exports = [f"export {name}={shlex.quote(value)}\n" for name, value in environment(directory).items()]
        (directory / "docker.env").write_text("".join(exports))
        machine = docker_netns.claimed()
        if machine:
            docker_netns.make(machine, own)
        ifname = "" if machine else _bridge()
        (own / "daemon.json").write_text(json.dumps(configuration(own, ifname), indent=2) + "\n")
        newest = max(link.index for link in network.links())
        with ledger.making(_KIND, directory=str(own), bridge=ifname, after=str(newest)):
            process = start(own, NAME, enter={"net": docker_netns.inside(machine)} if machine else {})
    return process


def configuration(own: Path, ifname: str) -> dict[str, object]:
    """Return what daemon.json says.

    Args:
        own: the daemon's directory.
        ifname: its bridge; "" where it has a machine of its own.
    """
    here = {"bridge": ifname, "iptables": False, "ip6tables": False, "ip-forward": False}
    return {
        "data-root": f"{own}/root",
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "hosts": [f"unix://{own}/docker.sock"],
        "registry-mirrors": [f"http://{places().registry_address}"],
        **(here if ifname else docker_netns.configuration()),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/{subtree()}/docker",
        "shutdown-timeout": 1,
        "log-level": "warn",
        **granting.settings(own),
    }


def start(own: Path, name: str, enter: Mapping[str, object]) -> Process:
    """Start a daemon by its daemon.json in a mount namespace with an empty /run, and return once it answers.

    Args:
        own: its directory, with daemon.json.
        name: of the process in its lab.
        enter: kind to the namespace that it stands in; none for this machine's network.

    Raises:
        LabError: it ended instead, or does not answer in time, with the last line of its log.
    """
    argv = ["sh", "-c", f"{_UNFORWARDING if enter else ''}{_SCRIPT}", str(own)]
    options: dict[str, Any] = {"new": ("mount",), "enter": enter, "propagation": "slave", "env": rooted.ENVIRONMENT, "cwd": "/"}
    process = processes.start(argv, name=name, stdout=own / "dockerd.log", **options)
    process.wait_ready(lambda: answers(own), f"the lab's {name}")
    return process


def _bridge() -> str:
    ifname = bridge(ledger.owner())
    network.bridge(ifname)
    network.address(ifname, BRIDGE)
    network.up(ifname)
    return ifname


def answers(own: Path) -> bool:
    """Tell whether the daemon of this directory answers."""
    if not (own / "docker.sock").is_socket():
        return False
    argv = ["docker", "--config", f"{own}/client", "--host", f"unix://{own}/docker.sock", "version", "--format", "{{.Server.Version}}"]
    return commands.run(argv, env=rooted.ENVIRONMENT, check=False).status == 0


def processes_of(own: str) -> list[ending.Known]:
    """Return the processes that were told to read the daemon.json of a directory: its daemon."""
    told, found = os.fsencode(f"{own}/daemon.json"), []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if told in (process / "cmdline").read_bytes().split(b"\0") and (known := ending.known(int(process.name))):
                found.append(known)
    return found


def end(own: str) -> None:
    """Kill the daemon of a directory and its containerd: alive, they start containers again."""
    for known in processes_of(own):
        ending.end([], root=known)


@ledger.undoes(_KIND)
def _undo(entry: ledger.Entry) -> None:
    """Kill the daemon. Containers and shims end with the lab's cgroups."""
    end(entry.key["directory"])
    if entry.key["bridge"]:  # in a machine of its own they go with that
        network.delete_unfinished(_VETH, int(entry.key["after"]), entry.key["bridge"])
