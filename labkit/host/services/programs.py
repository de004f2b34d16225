"""How each service is started where systemd does not run, and the configuration that it gets."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from labkit.host.services import accounts, bridges, files, handlers, mirrors
from labkit.host.services.places import Places
from labkit.host.services.table import named

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Program:
    """What runs.

    Attributes:
        argv: the program, in the foreground, and its arguments.
        user: who runs it.
        stopsignal: what ends it.
        environment: what is added to its environment.
    """

    argv: tuple[str, ...]
    user: str = "root"
    stopsignal: str = "TERM"
    environment: tuple[tuple[str, str], ...] = ()


def program(name: str, places: Places) -> Program:
    """Return how a service is run in the foreground."""
    return _PROGRAMS[name](places)


def prepare(name: str, places: Places, *, systemd: bool = False) -> bool:
    """Write the configuration of a service and make what it needs beside its process; tell whether a file changed.

    Where systemd runs, the distribution's units need none: docker's, LXD's, Incus', the bridge's.

    Raises:
        LabError: a file or directory cannot be written.
    """
    try:
        if systemd and name in ("docker", "lxd", "incus", "lxc-bridge"):
            return False
        for directory in (places.state, places.configuration, places.logs, places.run):
            directory.mkdir(parents=True, exist_ok=True)
        return _PREPARE[name](places)
    except OSError as error:
        raise LabError(f"{name}: {error.filename} cannot be written: {error.strerror}") from error


def registry_configuration(places: Places, *, with_accounts: bool) -> str:
    """Return the configuration of a docker-registry: JSON, which is YAML."""
    storage = places.accounts_directory / "storage" if with_accounts else places.registry_storage
    http: dict[str, object] = {"addr": f"127.0.0.1:{places.accounts if with_accounts else places.registry}"}
    text: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": http,
    }
    if with_accounts:
        directory = places.accounts_directory
        http["tls"] = {"certificate": str(directory / "server.crt"), "key": str(directory / "server.key")}
        text["auth"] = {"htpasswd": {"realm": "labkit", "path": str(directory / "htpasswd")}}
    return json.dumps(text, indent=2) + "\n"


def _registry(places: Places) -> Program:
    return Program(("docker-registry", "serve", str(places.configuration / "registry.yml")), user=_registry_user()[0])


def _prepare_registry(places: Places) -> bool:
    _owned(places.registry_storage, places)
    return files.write(places.configuration / "registry.yml", registry_configuration(places, with_accounts=False))


def _accounts(places: Places) -> Program:
    return Program(("docker-registry", "serve", str(places.configuration / "accounts.yml")), user=_registry_user()[0])


def _prepare_accounts(places: Places) -> bool:
    _, uid, gid = _registry_user()
    made = accounts.make(places.accounts_directory, (uid, gid))
    _owned(places.accounts_directory / "storage", places)
    return files.write(places.configuration / "accounts.yml", registry_configuration(places, with_accounts=True)) or made


def _registry_user() -> tuple[str, int, int]:
    try:
        entry = pwd.getpwnam("docker-registry")
    except KeyError as error:
        raise LabError("there is no user docker-registry", remedy="apt-get install docker-registry") from error
    return entry.pw_name, entry.pw_uid, entry.pw_gid


def _owned(directory: Path, places: Places) -> None:
    """Make a directory of the registries' user, who must be able to go there."""
    directory.mkdir(parents=True, exist_ok=True)
    _, uid, gid = _registry_user()
    os.chown(directory, uid, gid)
    closed = next((parent for parent in (places.state, *places.state.parents) if not parent.stat().st_mode & 0o001), None)
    if closed:
        raise LabError(f"the user docker-registry cannot enter {closed}", remedy=f"chmod o+x {closed}, or set LABKIT_STATE elsewhere")


def containerd_configuration(places: Places) -> str:
    """Return containerd's configuration: the course's paths, CRI with CNI and its handlers, and the mirrors of certs.d."""
    root, state = places.containerd_root, places.containerd_run
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""{files.MARK}
version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{places.containerd}"
[{cri}]
sandbox_image = "{mirrors.SANDBOX_IMAGE}"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{places.configuration / "cni"}"
[{cri}.registry]
config_path = "{places.certs_d}"
{handlers.of_containerd(places, cri)}[plugins."io.containerd.internal.v1.opt"]
path = "{root / "opt"}"
"""


def cni_configuration(places: Places) -> str:
    """Return the network of containerd's pods: a bridge of their own, nat to the outside, published ports."""
    number = int(places.docker_address.split(".")[2]) if places.apart else 10
    bridge = {
        "type": "bridge",
        "bridge": places.docker_bridge.replace("docker-", "cni-") if places.apart else "cni0",
        "isGateway": True,
        "ipMasq": not places.apart,
        "ipam": {
            "type": "host-local",
            "dataDir": str(places.run / "cni"),
            "ranges": [[{"subnet": f"10.203.{number}.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    plugins: list[dict[str, object]] = [bridge]
    if not places.apart:
        plugins.append({"type": "portmap", "capabilities": {"portMappings": True}})
    return json.dumps({"cniVersion": "0.4.0", "name": "labkit", "plugins": plugins}, indent=2) + "\n"


def _containerd(places: Places) -> Program:
    return Program(("containerd", "--config", str(places.configuration / "containerd.toml")))


def _prepare_containerd(places: Places) -> bool:
    places.containerd.parent.mkdir(parents=True, exist_ok=True)
    files.write(places.configuration / "cni" / "10-labkit.conflist", cni_configuration(places))
    handlers.prepare(places)
    return files.write(places.configuration / "containerd.toml", containerd_configuration(places))


def _docker(places: Places) -> Program:
    return Program(("dockerd", "--config-file", str(places.configuration / "docker.json")))


def _prepare_docker(places: Places) -> bool:
    own: dict[str, object] = {
        "data-root": str(places.docker_root),
        "exec-root": str(places.docker_run),
        "pidfile": str(places.run / "docker.pid"),
        "hosts": [f"unix://{places.docker}"],
        "containerd": str(places.containerd),
        "registry-mirrors": [f"http://{places.registry_address}"],
    }
    if crun := handlers.crun(places):
        handlers.prepare(places)
        own["runtimes"] = {"crun": {"path": str(crun)}}
    if places.apart:
        bridges.make(places.docker_bridge, places.docker_address)
        own |= {"bridge": places.docker_bridge, "iptables": False, "ip-forward": False, "cgroup-parent": places.docker_bridge}
    return files.write(places.configuration / "docker.json", json.dumps(own, indent=2) + "\n")


def _bridge(places: Places) -> Program:
    return Program(bridges.dnsmasq(places.bridge, places.bridge_address, places.run))


def _prepare_bridge(places: Places) -> bool:
    bridges.make(places.bridge, places.bridge_address)
    bridges.translate(places.bridge, places.bridge_address)
    return False


def _lxd(places: Places) -> Program:
    return Program(("lxd", "--group", _group("lxd")), stopsignal="PWR", environment=(("LXD_DIR", str(places.lxd)),))


def _prepare_lxd(places: Places) -> bool:
    places.lxd.mkdir(parents=True, exist_ok=True, mode=0o711)
    return False


def _incus(places: Places) -> Program:
    argv = (named("incus").program, "--group", _group("incus-admin"))
    return Program(argv, stopsignal="PWR", environment=(("INCUS_DIR", str(places.incus)),))


def _prepare_incus(places: Places) -> bool:
    places.incus.mkdir(parents=True, exist_ok=True, mode=0o711)
    return False


def _group(name: str) -> str:
    """Return who may speak to a daemon: this group, or root where there is none of this name."""
    import grp

    return next((group.gr_name for group in grp.getgrall() if group.gr_name == name), "root")


_PROGRAMS: dict[str, Callable[[Places], Program]] = {
    "registry": _registry,
    "accounts": _accounts,
    "containerd": _containerd,
    "docker": _docker,
    "lxc-bridge": _bridge,
    "lxd": _lxd,
    "incus": _incus,
}
_PREPARE: dict[str, Callable[[Places], bool]] = {
    "registry": _prepare_registry,
    "accounts": _prepare_accounts,
    "containerd": _prepare_containerd,
    "docker": _prepare_docker,
    "lxc-bridge": _prepare_bridge,
    "lxd": _prepare_lxd,
    "incus": _prepare_incus,
}
