"""What is done for each app of a pod, written out for the program inside, which only does it: root, volumes, environment, ids, rights.

See:
    appc spec ace.md, "Execution Environment"
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.appc import cgroups, isolators, volumes
from labkit.appc.app import POST_STOP, PRE_START
from labkit.errors import LabError
from labkit.kernel import commands
from labkit.kernel.overlay import Overlay
from labkit.kernel.rooted import PATH, resolve

if TYPE_CHECKING:
    from labkit.appc.app import App
    from labkit.appc.pod import Pod, Settings
    from labkit.appc.pod_manifest import PodManifest, RuntimeApp
    from labkit.kernel.cgroups import Cgroup

CONTAINER = "rkt"
"""The value of the variable `container` in the environment of an app."""

_LARGEST = 1 << 20  # bytes of a passwd or group file that are read


def plan(pod: Pod, manifest: PodManifest, app: RuntimeApp, group: Cgroup, given: Mapping[str, str], console: str) -> dict[str, Any]:
    """Return what is to be done for an app, as `init.py` takes it; descriptors of its output are added by the sender.

    Args:
        pod: its files: the image's tree, and where the root is to be mounted.
        manifest: of the pod.
        app: one of its apps.
        group: the app's cgroup; beside it is that of stage 1.
        given: variables that every app gets, such as AC_METADATA_URL.
        console: a terminal, or "".

    Raises:
        LabError: there is nothing to run; the image has no such user or group; a volume cannot be had.
    """
    if app.app is None or not app.app.exec:
        raise LabError(f"stage1: app {app.name} has nothing to run", remedy="rkt run IMAGE --exec /bin/sh")
    tree = pod.image_of(app.name)
    outside = [str(directory.parent / cgroups.STAGE1) for directory in group.directories]
    bound = volumes.bound(pod, manifest, app)
    steps = {handler.name: list(handler.exec) for handler in app.app.event_handlers if handler.name in (PRE_START, POST_STOP)}
    return {
        "name": app.name,
        **_root(pod, app, tree),
        "volumes": [vars(one) for one in bound],
        "console": console,
        "shm": str(pod.directory / "shm"),
        "cgroups": [str(directory) for directory in group.directories],
        "outside": outside,
        "cgroup_mounts": cgroups.shown(group),
        "read_only": app.read_only_root_fs,
        "steps": {**steps, "main": list(app.app.exec)},
        "program": program(tree, app, given),
    }


def program(tree: Path, app: RuntimeApp, given: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return as whom, where and with which rights an app runs."""
    assert app.app is not None
    limits = isolators.limits(app.app.isolators)
    uid, gid = ids(tree, app.app)
    return {
        "env": environment(app, given or {}),
        "cwd": app.app.working_directory or "/",
        "uid": uid,
        "gid": gid,
        "groups": list(app.app.supplementary_gids),
        "capabilities": limits.capabilities,
        "no_new_privileges": limits.no_new_privileges,
        "seccomp": limits.seccomp,
        "oom_score_adj": limits.oom_score_adj,
        "profile": limits.profile,
    }


def environment(app: RuntimeApp, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an app: the image's own, PATH where it names none, and what the executor says of itself."""
    own = dict(app.app.environment if app.app else ())
    return {"PATH": PATH, **own, "AC_APP_NAME": app.name, "container": CONTAINER, **given}


def ids(root: Path, app: App) -> tuple[int, int]:
    """Return the user and group ids that an app's `user` and `group` mean.

    A path is the owner of that file. A name, or a number that is there as a name, is looked up in the image; else a number is an id.

    Raises:
        LabError: the image has no such user, group or file.
    """
    return _id(root, app.user, "user", "etc/passwd"), _id(root, app.group, "group", "etc/group")


def files(settings: Settings, name: str, address: str = "") -> dict[str, str]:
    """Return the files of a pod that are written into the root of each app: path to text.

    Args:
        settings: name servers and hosts, as they were given.
        name: of the pod's host.
        address: of the pod, or "".
    """
    if settings.hosts_entry == ("host",):
        hosts = Path("/etc/hosts").read_text()
    else:
        hosts = "127.0.0.1\tlocalhost localhost.localdomain\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        hosts += f"{address or '127.0.0.1'}\t{name}\n"
        pairs = [word.partition("=")[::2] for word in settings.hosts_entry if "=" in word]
        hosts += "".join(f"{ip}\t{host}\n" for ip, host in pairs)
    found = {"/etc/hosts": hosts, "/etc/hostname": f"{name}\n"}
    if settings.dns == ("host",):
        return {**found, "/etc/resolv.conf": Path("/etc/resolv.conf").read_text()}
    lines = [("domain", settings.dns_domain), ("search", " ".join(settings.dns_search)), ("options", " ".join(settings.dns_opt))]
    lines += [("nameserver", server) for server in settings.dns if server != "none"]
    text = "".join(f"{word} {value}\n" for word, value in lines if value)
    return {**found, "/etc/resolv.conf": text} if text else found


def _root(pod: Pod, app: RuntimeApp, tree: Path) -> dict[str, str]:
    """Make the directories of an app's root, and return where it is and with which options the overlay is mounted; a copy has none."""
    root, layers = pod.rootfs_of(app.name), pod.directory / "overlay" / app.name
    root.mkdir(parents=True, exist_ok=True)
    root.parent.chmod(0o755)
    if not pod.overlay:
        if not any(root.iterdir()):
            commands.run(["cp", "--archive", "--reflink=auto", f"{tree}/.", root])
        return {"root": str(root), "overlay": ""}
    overlay = Overlay(tree, layers / "upper", layers / "work", root)
    for directory in (layers / "upper", layers / "work"):
        directory.mkdir(parents=True, exist_ok=True)
    (layers / "upper").chmod(stat.S_IMODE(tree.stat().st_mode))  # the upper directory is what the root itself looks like
    os.chown(layers / "upper", tree.stat().st_uid, tree.stat().st_gid)
    return {"root": str(root), "overlay": overlay.options}


def _id(root: Path, text: str, what: str, table: str) -> int:
    if text.startswith("/"):
        place = resolve(root, text)
        if not os.path.lexists(place):
            raise LabError(f"stage1: {what} {text}: the image has no such file")
        status = place.lstat()
        return status.st_uid if what == "user" else status.st_gid
    for line in _lines(resolve(root, table)):
        name, _, rest = line.partition(":")
        if name == text and len(fields := rest.split(":")) > 1 and fields[1].isdecimal():
            return int(fields[1])
    if text.isdecimal() and int(text) < 2**32 - 1:
        return int(text)
    raise LabError(f"stage1: {what} {text}: the image has none of this name in /{table}")


def _lines(file: Path) -> list[str]:
    """Return the lines of a file of the image: of a regular one, and no more of it than such a file may have."""
    if not file.is_file():
        return []
    with open(file, encoding="utf-8", errors="replace") as opened:
        return opened.read(_LARGEST).splitlines()
