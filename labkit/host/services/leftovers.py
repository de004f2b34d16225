"""What a service leaves in the kernel when it has ended: noted before it starts, removed after it was stopped.

Processes, mounts, links, rules and cgroups are removed where they are known as ours: by the mark in the environment, by the directory,
by the service's own records, or because they were not there before the service was started for the first time.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labkit.host.services import bridges, holders, packet_filter
from labkit.host.services.places import Places
from labkit.kernel import commands, syscalls

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_SHIMS = "/run/containerd/s"
"""Where containerd's shims listen, whatever containerd is told."""
_RUNC = "/run/containerd/runc"
"""Where runc keeps the state of the shims' containers."""
_PIPES = "/run/containerd/fifo"
"""Where ctr makes the pipes of a detached container."""
_FORWARDING = ("docker", "containerd", "lxc-bridge")
"""The services that switch forwarding on."""


def before(name: str) -> dict[str, Any]:
    """Note what is there before a service starts."""
    from labkit.kernel import network

    noted: dict[str, Any] = {}
    if name in _FORWARDING:
        noted["links"] = [link.ifname for link in network.links()]
        noted["ip_forward"] = _FORWARD.read_text().strip()
    if name in ("docker", "containerd"):
        noted["cgroups"] = [str(path) for path in _cgroups()]
        noted["filter"] = packet_filter.state()
    return noted


def remove(name: str, places: Places, noted: dict[str, Any], *, others: Iterable[str] = ()) -> None:
    """Remove what a service has left; `others` are the services of ours that still run."""
    if name in ("docker", "containerd"):
        _end_shims(name, places)
    holders.end(holders.marked(places, name), politely=5)
    _unmount(_directories(name, places))
    links = _links(name, places, noted)
    if not places.apart and name in ("docker", "containerd"):
        packet_filter.restore(name, links, _addresses(links), noted.get("filter", {}))
    for ifname in links:
        _delete_link(ifname)
    if name == "lxc-bridge":
        bridges.remove_tables(places.bridge)
    for directory in _runtime_directories(name, places):
        shutil.rmtree(directory, ignore_errors=True)
    _remove_empty(name, places)
    _remove_cgroups(name, places, set(noted.get("cgroups", ())))
    if noted.get("ip_forward") == "0" and name in _FORWARDING and not set(_FORWARDING) & set(others):
        _FORWARD.write_text("0\n")


def _end_shims(name: str, places: Places) -> None:
    """Kill containers whose engine is gone, and the shims above them; their sockets and pipes are theirs alone."""
    shims = [shim for shim in holders.marked(places, "containerd") if holders.comm(shim).startswith("containerd-shim")]
    if name == "docker":
        shims = [shim for shim in shims if b"\0-namespace\0moby\0" in holders.command(shim)]
    sockets = [socket for shim in shims for socket in holders.listens(shim) if socket.startswith(f"{_SHIMS}/")]
    containers = [_container(shim) for shim in shims]
    holders.end(shims)
    for socket in sockets:
        Path(socket).unlink(missing_ok=True)
    for namespace, identifier in containers:
        shutil.rmtree(f"{_RUNC}/{namespace}/{identifier}", ignore_errors=True)
        for pipe in Path(_PIPES).glob(f"*/{glob.escape(identifier)}-std*"):  # that ctr has made
            pipe.unlink(missing_ok=True)
            _rmdir(pipe.parent)
        _rmdir(f"{_RUNC}/{namespace}")


def _container(shim: int) -> tuple[str, str]:
    """Return the namespace and the id of the container that a shim was started for."""
    words = holders.command(shim).decode().split("\0")
    following = dict(itertools.pairwise(words))
    return Path(following.get("-namespace", "-")).name, Path(following.get("-id", "-")).name


def _directories(name: str, places: Places) -> tuple[Path, ...]:
    """Return where a service mounts things."""
    own = {
        "docker": (places.docker_root, places.docker_run),
        "containerd": (places.containerd_root, places.containerd_run),
        "lxd": (places.lxd,),
        "incus": (places.incus,),
    }
    return own.get(name, ())


def _runtime_directories(name: str, places: Places) -> tuple[Path, ...]:
    """Return what a service keeps below our run directory."""
    return {"docker": (places.run / "docker",), "containerd": (places.run / "containerd", places.run / "cni")}.get(name, ())


def _remove_empty(name: str, places: Places) -> None:
    """Remove what a daemon makes below /run wherever it is told to work."""
    sockets = {"docker": [places.docker], "containerd": [places.containerd, places.containerd.with_name("containerd.sock.ttrpc")]}
    if not places.under_systemd:
        for socket in sockets.get(name, ()):
            socket.unlink(missing_ok=True)  # its daemon was killed, and nobody listens
    made = {"docker": ("/run/docker/plugins", "/run/docker"), "containerd": (_SHIMS, _PIPES, _RUNC, "/run/containerd")}.get(name, ())
    for directory in made:
        _rmdir(directory)


def _rmdir(directory: str | Path) -> None:
    with contextlib.suppress(OSError):  # not empty: somebody else is in it, or not there
        os.rmdir(directory)


def remove_run(places: Places) -> None:
    """Remove our directory of sockets, when no service of ours is left."""
    _unmount((places.run,))
    shutil.rmtree(places.run, ignore_errors=True)


def _unmount(directories: Iterable[Path]) -> None:
    from labkit.kernel.mounts.table import at_or_below

    for directory in directories:
        for mount in reversed(at_or_below(directory)):
            with contextlib.suppress(OSError):
                syscalls.umount2(mount.mountpoint, syscalls.MNT_DETACH)


def _links(name: str, places: Places, noted: dict[str, Any]) -> list[str]:
    """Return the links that a service has made and left."""
    from labkit.kernel import network

    there = [link.ifname for link in network.links()]
    ours = {"docker": _docker_bridges, "containerd": _cni_bridges, "lxc-bridge": _lxc_bridges}.get(name, _none)(places)
    return [ifname for ifname in there if ifname in ours and ifname not in noted.get("links", ())]


def _addresses(links: Iterable[str]) -> list[str]:
    from labkit.kernel import network

    return [address for link in network.links() if link.ifname in links for address in link.addresses]


def _docker_bridges(places: Places) -> set[str]:
    """Return the default bridge, and those of docker's own records: a user's network is br- and the beginning of its id."""
    records = places.docker_root / "network/files/local-kv.db"
    try:
        found = re.findall(rb'"BridgeName":"(br-[0-9a-f]{12})"', records.read_bytes())
    except OSError:
        found = []
    return {places.docker_bridge, *(name.decode() for name in found)}


def _cni_bridges(places: Places) -> set[str]:
    return {places.docker_bridge.replace("docker-", "cni-") if places.apart else "cni0"}


def _lxc_bridges(places: Places) -> set[str]:
    return {places.bridge}


def _none(places: Places) -> set[str]:  # noqa: ARG001 - the others look at it
    return set()


def _delete_link(ifname: str) -> None:
    commands.run(["ip", "link", "delete", ifname], check=False)


def _cgroups() -> list[Path]:
    """Return the top cgroups of every hierarchy."""
    from labkit.kernel.cgroups.hierarchy import hierarchies

    found = hierarchies()
    tops = {top for top in (found.unified, *found.v1.values()) if top}
    return sorted(Path(entry.path) for top in tops for entry in os.scandir(top) if entry.is_dir())


def _remove_cgroups(name: str, places: Places, known: set[str]) -> None:
    ours = {"docker": {"docker", places.docker_bridge}, "containerd": {"k8s.io", "default"}}.get(name, set())
    for top in _cgroups():
        if top.name in ours and str(top) not in known:
            for directory, _, _ in os.walk(top, topdown=False):
                _rmdir(directory)
