"""The tools that run containers, one file each, behind one protocol: `find("lxc").list()`, `locate("web").pid`.

Each keeps to the `Runtime` of container.py, and nothing but the table below knows which there are.
"""

from __future__ import annotations

from importlib import import_module

from labkit.errors import LabError
from labkit.host.account import IdMap
from labkit.runtimes.container import Container, Runtime, State, running

__all__ = ["ALL", "Container", "IdMap", "Runtime", "State", "containers", "find", "load", "locate", "pid"]

_PLACES = {
    "chroot": ("chroot", "Chroot"),
    "containerd": ("containerd", "Containerd"),
    "cri": ("cri.runtime", "Cri"),
    "crio": ("crio", "Crio"),
    "docker": ("docker", "Docker"),
    "lxc": ("lxc", "Lxc"),
    "lxc-unprivileged": ("lxc", "LxcUnprivileged"),
    "lxd": ("lxd", "Lxd"),
    "incus": ("lxd", "Incus"),
    "nspawn": ("nspawn", "Nspawn"),
    "podman": ("podman", "Podman"),
    "podman-rootless": ("podman", "PodmanRootless"),
    "rkt": ("rkt", "Rkt"),
    "runc": ("oci", "Runc"),
    "crun": ("oci", "Crun"),
}
"""Name to the module and the class in it."""

_CLAIMS = (
    "runtimes.by_hand",
    "runtimes.containerd_namespace",
    "runtimes.docker_claims",
    "runtimes.docker_engine",
    "runtimes.docker_storage",
    "runtimes.cri.claim",
    "appc.claims",
)
"""Modules that take names for what is made by hand."""

ALL = tuple(_PLACES)
"""The names of the runtimes."""


def find(name: str) -> Runtime:
    """Return a runtime.

    Raises:
        LabError: there is none of this name.
    """
    if name not in _PLACES:
        raise LabError(f"there is no runtime {name!r}", remedy=f"one of {', '.join(ALL)}")
    module, cls = _PLACES[name]
    runtime: Runtime = getattr(import_module(f"labkit.runtimes.{module}"), cls)()
    return runtime


def load() -> None:
    """Import every runtime, so that the ledger can undo what any of them made."""
    for name in ALL:
        find(name)
    for module in _CLAIMS:
        import_module(f"labkit.{module}")


def containers() -> tuple[Container, ...]:
    """Return the containers of every runtime that is available, ours and others'."""
    usable = (runtime for runtime in map(find, ALL) if runtime.available() is None)
    return tuple(container for runtime in usable for container in runtime.list())


def locate(name: str) -> Container:
    """Return the container of this name, of whatever runtime.

    Args:
        name: "web", or "lxc:web" to say which runtime.

    Raises:
        LabError: there is none, or several runtimes have one that runs (or none that does).
    """
    runtime, _, short = name.rpartition(":")
    among = find(runtime).list() if runtime else containers()
    found = [container for container in among if container.name == short]
    found = [container for container in found if container.pid is not None] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise LabError(f"several containers are called {short!r}", remedy=f"say which: {', '.join(map(str, found))}")
    there = ", ".join(sorted(map(str, among))) or "none"
    raise LabError(f"there is no container {name!r}", remedy=f"there are: {there}")


def pid(container: Container | str) -> int:
    """Return the first process of a container, as the host numbers it.

    Raises:
        LabError: there is no such container, or it does not run.
    """
    return running(locate(container) if isinstance(container, str) else container)
