"""The configuration that makes the local registry the mirror of docker.io, and the registry with accounts trusted, for every tool.

dockerd gets its mirror where it is started. The other tools read files of /etc: each of ours says so in its first line, and one that a
person wrote is left as it is. See: containers-registries.conf(5), containers-certs.d(5), containers.conf(5).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labkit.host.services import files
from labkit.host.services.places import SYSTEMD, Places

UPSTREAM = {"docker.io": "https://registry-1.docker.io", "registry.k8s.io": "https://registry.k8s.io"}
"""The registries that the local one stands for in containerd; registry.k8s.io has the pause image of pods."""

SANDBOX_IMAGE = "registry.k8s.io/pause:3.6"
"""What holds the namespaces of a pod: the one that the registry has, whatever a version of containerd would take."""


@dataclass(frozen=True)
class Written:
    """A file of the configuration.

    Attributes:
        path: where it is.
        ours: False where a person wrote it: it was left as it is.
        changed: whether it was written now.
    """

    path: Path
    ours: bool
    changed: bool


def configure(places: Places) -> tuple[Written, ...]:
    """Write what is not there yet; a file that is not ours is left.

    Raises:
        LabError: a file cannot be written.
    """
    done = []
    for path, text in texts(places).items():
        ours = files.is_ours(path)
        done.append(Written(path, ours, ours and files.write(path, text)))
    return tuple(done)


def pending(places: Places) -> tuple[Path, ...]:
    """Return the files that `configure` would write."""
    return tuple(path for path, text in texts(places).items() if files.is_ours(path) and not _holds(path, text))


def unconfigure(places: Places) -> tuple[Path, ...]:
    """Remove the files of ours outside of the state directory, and the directories that are empty then; return the files."""
    gone = []
    for path in texts(places):
        if path.exists() and files.is_ours(path) and not path.is_relative_to(places.state):
            path.unlink()
            gone.append(path)
            with contextlib.suppress(OSError):
                path.parent.rmdir()
                path.parent.parent.rmdir()
    return tuple(gone)


def texts(places: Places) -> dict[Path, str]:
    """Return every file of the configuration with what is in it; beside another instance none is outside of the state directory."""
    found = {_registries_conf(places): registries_conf(places)}
    if places.systemd == SYSTEMD.is_dir():  # else it is another machine's root file system, and what is measured here is not so there
        found[places.state / "containers.conf"] = containers_conf()
    for host, server in UPSTREAM.items():
        found[places.certs_d / host / "hosts.toml"] = hosts_toml(server, f"http://{places.registry_address}")
    authority = places.accounts_directory / "ca.crt"
    if authority.exists():
        with_accounts = f"https://{places.accounts_address}"
        text = hosts_toml(with_accounts, with_accounts, f'  ca = "{authority}"\n', pushes=True)
        found[places.certs_d / places.accounts_address / "hosts.toml"] = text
    if authority.exists() and not places.apart:
        for directory in (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d")):
            found[directory / places.accounts_address / "ca.crt"] = f"{files.MARK}\n{authority.read_text()}"
    return found


def registries_conf(places: Places) -> str:
    """Return the mirrors of podman, buildah, skopeo and CRI-O. A short name is docker.io's, so that it needs no terminal to ask."""
    return f"""{files.MARK}
unqualified-search-registries = ["docker.io"]

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "{places.registry_address}"
insecure = true

[[registry]]
location = "{places.registry_address}"
insecure = true
"""


def hosts_toml(server: str, host: str, more: str = "", *, pushes: bool = False) -> str:
    """Return containerd's way to a registry: a host that is asked first."""
    able = '"pull", "resolve", "push"' if pushes else '"pull", "resolve"'
    return f'{files.MARK}\nserver = "{server}"\n\n[host."{host}"]\n  capabilities = [{able}]\n{more}'


def containers_conf(containers: Mapping[str, str] | None = None, engine: Mapping[str, str] | None = None) -> str:
    """Return what podman and buildah need on this machine, as measured: nothing on most.

    Args:
        containers: more of the table of this name, or something else than was measured; values as TOML.
        engine: the same.
    """
    from labkit.host.measures import Machine, capabilities_lacking
    from labkit.kernel.cgroups.hierarchy import hierarchies

    tables: dict[str, dict[str, str]] = {"containers": {}, "engine": {}}
    if "sys_resource" in capabilities_lacking(Machine()):
        tables["containers"]["default_ulimits"] = '["nofile=1024:1024", "nproc=1024:1024"]  # CAP_SYS_RESOURCE is missing'
    if hierarchies().mode in ("v1", "hybrid"):
        tables["engine"]["runtime"] = '"runc"  # crun refuses cgroups of two versions'
    if not SYSTEMD.is_dir():
        tables["engine"] |= {"cgroup_manager": '"cgroupfs"  # systemd does not run', "events_logger": '"file"'}
    tables["containers"] |= containers or {}
    tables["engine"] |= engine or {}
    lines = [line for name, table in tables.items() for line in (f"[{name}]", *(f"{key} = {value}" for key, value in table.items()))]
    return "\n".join([files.MARK, *lines, ""])


def _registries_conf(places: Places) -> Path:
    return places.configuration / "registries.conf" if places.apart else Path("/etc/containers/registries.conf.d/50-labkit.conf")


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except OSError:
        return False
