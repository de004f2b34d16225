"""Checkpoints of lab 9.1, storage with Docker: what a container has mounted where, by its mountinfo and that of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course import volumes
from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.kernel import mounts
from labkit.kernel.mounts.origin import origin
from labkit.runtimes.docker import Docker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from labkit.course.lab import Lab
    from labkit.kernel.state import MountState

TITLE = "Storage with Docker"
AIMS = (
    "say of every file of a container where on the machine it lies, and when it goes",
    "give containers volumes and directories of the host, and read both mounts in mountinfo",
    "tell what refuses a write, and why a mount of the host is seen in a container or not",
    "see what is left behind, and remove it",
)
NEEDS = ("root", "namespaces", "overlay", "dockerd", "registry")
CLAIMS = (("shared mount", "mnt"),)

VOLUMES = "dockerd/root/volumes"


def kept(lab: Lab) -> Verdict:
    """Measure that reader has the named volume diary at /data, read-only, and that the note which writer left is in it."""
    pid = _pid("reader")
    if pid is None:
        return _absent("reader")
    mount, writer = mounts.at("/data", among=mounts.mountinfo(pid)), _names() & {"writer"}
    wrong = [] if volumes.is_seen(lab.path(f"{VOLUMES}/diary/_data"), pid, "/data") else ["its /data is not the volume diary"]
    wrong += [] if mount and "ro" in mount.options else ["it may write at /data"]
    wrong += [] if volumes.seen(pid, "/data/note") else ["there is no /data/note in it"]
    wrong += ["the container writer is still there"] if writer else []
    return Verdict(not wrong, "reader runs", "; ".join(wrong) or None)


def mended(lab: Lab) -> Verdict:
    """Measure that watcher's /data is $LAB/mnt and gets what is mounted there later: its mount is in the peer group, or its slave."""
    pid, here = _pid("watcher"), mounts.at(lab.path("mnt"))
    if pid is None:
        return _absent("watcher")
    mount = mounts.at("/data", among=mounts.mountinfo(pid))
    if mount is None or not volumes.is_seen(lab.path("mnt"), pid, "/data"):
        return Verdict(passed=False, measured="watcher runs", cause="its /data is not $LAB/mnt")
    if _group(mount, ("shared", "master")) & _group(here, ("shared",)):
        return Verdict(passed=True, measured="watcher's /data gets what is mounted in $LAB/mnt")
    cause = "its mount at /data is in no peer group: what is mounted in $LAB/mnt from now on does not reach it"
    return Verdict(passed=False, measured="watcher runs, and has $LAB/mnt at /data", cause=cause)


def alone(lab: Lab) -> Verdict:
    """Measure that alone may write into the volume results and into memory, and neither into its settings nor into its root."""
    pid = _pid("alone")
    if pid is None:
        return _absent("alone")
    there = {mount.mountpoint: mount for mount in mounts.mountinfo(pid)}
    wrong = [] if volumes.is_seen(lab.path(f"{VOLUMES}/results/_data"), pid, "/out") else ["its /out is not the volume results"]
    wrong += [] if volumes.is_seen(lab.path("settings"), pid, "/etc/app") else ["its /etc/app is not $LAB/settings"]
    scratch = there.get("/scratch")  # a volume may lie on a tmpfs, too, but has a path here
    wrong += [] if scratch and scratch.fstype == "tmpfs" and not origin(scratch) else ["its /scratch is not in memory"]
    wrong += [f"it may write at {one}" for one in ("/etc/app", "/") if one in there and "ro" not in there[one].options]
    wrong += [f"it may not write at {one}" for one in ("/out", "/scratch") if one in there and "ro" in there[one].options]
    return Verdict(not wrong, "alone runs", "; ".join(wrong) or None)


def _pid(name: str) -> int | None:
    """Return the first process of a container that Docker has started."""
    return next((each.pid for each in Docker().list() if each.name == name), None)


def _names() -> set[str]:
    return {each.name for each in Docker().list()}


def _absent(name: str) -> Verdict:
    cause = f"{name} is there, and has no process" if name in _names() else f"docker has no container {name}"
    return Verdict(passed=False, measured=f"{name} does not run", cause=cause)


def _group(mount: MountState | None, words: Iterable[str]) -> set[str]:
    """Return the peer groups that a mount is in, or gets from, by the optional fields of mountinfo."""
    fields = [field.split(":") for field in mount.optional] if mount else []
    return {field[1] for field in fields if field[0] in words}


GONE = "docker container rm --force --volumes {0} > /dev/null 2>&1\n"
IMAGE = "docker image pull --quiet alpine > /dev/null\n"
RUN = IMAGE + GONE + "docker container run --detach --name {0} {1} alpine top > /dev/null 2>&1 || true\n"

NOTE = IMAGE + GONE.format("writer") + "docker container run --name writer -v {0}:/data alpine sh -c 'echo kept > /data/note'\n"
READ_ONLY = "--mount source=diary,target=/data,readonly"

MOUNTED = "mkdir -p mnt/disk; mountpoint -q mnt/disk || mount -t tmpfs none mnt/disk; touch mnt/disk/news\n"
BIND = "--mount type=bind,source=$LAB/mnt,target=/data"

MADE = "mkdir -p settings; echo 'verbose = yes' > settings/app.conf\n"
OUT, SETTINGS, SCRATCH = "-v results:/out", "-v $LAB/settings:/etc/app:ro", "--tmpfs /scratch"

CHECKPOINTS = (
    Checkpoint(
        "kept",
        task="the container writer left /data/note and is gone; reader runs, finds it at /data, and may not write there",
        measure=kept,
        hints=(
            "what has a name outlives the container: a volume, call it diary",
            "the second container gets the same volume, and may only read it",
            READ_ONLY,
        ),
        solution=NOTE.format("diary") + GONE.format("writer") + RUN.format("reader", READ_ONLY),
        undo=GONE.format("reader"),
        near_misses={
            "may write": NOTE.format("diary") + GONE.format("writer") + RUN.format("reader", "-v diary:/data"),
            "writer is there": NOTE.format("diary") + RUN.format("reader", READ_ONLY),
            "another volume": NOTE.format("diary") + GONE.format("writer") + RUN.format("reader", "-v other:/data:ro"),
            "nothing was written": RUN.format("reader", READ_ONLY),
        },
    ),
    Checkpoint(
        "mended",
        task="the container watcher has $LAB/mnt at /data, and sees there what the host mounts in it later",
        measure=mended,
        hints=(
            "man 7 mount_namespaces: to whom does a mount tell of what is mounted below it?",
            "the last field before the dash in mountinfo: $LAB/mnt is shared, watcher's copy is private",
            "bind-propagation=rslave, in the same --mount",
        ),
        given=RUN.format("watcher", BIND) + MOUNTED,
        solution=RUN.format("watcher", f"{BIND},bind-propagation=rslave"),
        undo=GONE.format("watcher"),
        near_misses={
            "begun anew, after the mount": RUN.format("watcher", BIND),
            "private by name": RUN.format("watcher", f"{BIND},bind-propagation=private"),
            "another directory": RUN.format("watcher", "--mount type=bind,source=$LAB/mnt/disk,target=/data"),
            "mounted again": "umount mnt/disk\n" + MOUNTED,
        },
    ),
    Checkpoint(
        "alone",
        task="alone may write into the volume results at /out and memory at /scratch, not into $LAB/settings at /etc/app, nor its root",
        measure=alone,
        hints=(
            "four places, four options: a volume, a directory read-only, memory, and the root itself",
            "docker run --help | grep -e tmpfs -e read-only",
            f"--read-only {OUT} {SETTINGS} {SCRATCH}",
        ),
        given=MADE,
        solution=RUN.format("alone", f"--read-only {OUT} {SETTINGS} {SCRATCH}"),
        undo=GONE.format("alone"),
        near_misses={
            "its root is writable": RUN.format("alone", f"{OUT} {SETTINGS} {SCRATCH}"),
            "settings may be changed": RUN.format("alone", f"--read-only {OUT} -v $LAB/settings:/etc/app {SCRATCH}"),
            "scratch on the disk": RUN.format("alone", f"--read-only {OUT} {SETTINGS} -v /scratch"),
            "a volume without a name": RUN.format("alone", f"--read-only -v /out {SETTINGS} {SCRATCH}"),
        },
    ),
)
