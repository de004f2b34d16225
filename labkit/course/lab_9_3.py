"""Checkpoints of lab 9.3, storage drivers: where what was written lands, and whose blocks a file is made of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict
from labkit.course.volume_views import LARGE, blocks, root_of
from labkit.errors import LabError
from labkit.kernel import mounts
from labkit.kernel.mounts.origin import origin, upperdir
from labkit.runtimes import docker_engine

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Storage drivers, and what copy-up costs"
AIMS = (
    "say what a layer is on the disk for three storage drivers, and what a new container costs with each",
    "predict what the first write to a large file costs, and say who pays it, and when",
    "tell what a full disk still lets you do in an upper directory",
    "choose where what is written belongs",
)
NEEDS = ("root", "namespaces", "overlay", "btrfs", "dockerd", "registry", "podman")
ENGINES = ("overlay2", "vfs", "btrfs")
CLAIMS = tuple(("storage driver", engine) for engine in ENGINES)

IMAGE = r"""#!/bin/bash -e
# The image big, on each engine that has it not, or on those named:
# busybox, a layer with a file of 32 MB, and a layer with a small one
make() { # FROM NAME COMMAND...
    docker container run --name making "$1" "${@:3}"
    docker container commit making "$2"
    docker container rm making
}
random="if=/dev/urandom bs=1M count=32"
{
    docker container rm -f making
    docker image inspect busybox || docker image pull busybox
    docker image inspect half || make busybox half dd of=/big $random
    docker image inspect big || make half big sh -c 'echo small > /small'
} > image/log 2>&1
for engine in ${*:-overlay2 vfs btrfs}; do
    docker --context $engine image inspect big > /dev/null 2>&1 ||
        docker image save big | docker --context $engine image load > /dev/null
done
"""
EXAMPLES = {"image": {"image/make.sh": IMAGE}}

LITTLE = 2**20


def thin(_: Lab) -> Verdict:
    """Measure that a container thin of one of the engines has changed the beginning of /big, and shares its other blocks with the image."""
    pid = next((pid for pid in (_pid(engine, "thin") for engine in ENGINES) if pid), None)
    if pid is None:
        return Verdict(passed=False, measured="thin does not run", cause="no engine has a container thin that runs")
    whose = blocks(pid, "/big")
    wrong = [] if _begins(pid, "/big", b"mine") else ["its /big does not begin with mine"]
    wrong += ["all blocks of its /big are its own"] if whose == "a copy" else []
    return Verdict(not wrong, f"thin runs, blocks of its /big: {whose}", "; ".join(wrong) or None)


def mended(lab: Lab) -> Verdict:
    """Measure that editor, on overlay2, has changed the beginning of /big, which is as long as it was."""
    pid = docker_engine.pid("overlay2", "editor")
    size = os.stat(f"/proc/{pid}/root/big").st_size
    wrong = [] if _begins(pid, "/big", b"mended") else ["its /big does not begin with mended"]
    wrong += [] if size == LARGE else ["its /big is not as long as it was"]
    free = os.statvfs(lab.path("overlay2/root"))
    full = wrong and free.f_bavail * free.f_frsize < LARGE
    wrong += ["the disk of overlay2 has no room for another /big"] if full else []
    return Verdict(not wrong, "editor runs on overlay2", "; ".join(wrong) or None)


def alone(_: Lab) -> Verdict:
    """Measure that alone, on overlay2, has a large file at /store that lies in a volume, and next to nothing in its upper directory."""
    pid = docker_engine.pid("overlay2", "alone")
    work = mounts.at("/store", among=mounts.mountinfo(pid))
    place = Path(f"/proc/{pid}/root/store/big")
    wrong = [] if work and origin(work) else ["nothing that lies on a disk is mounted at its /store"]
    wrong += [] if place.is_file() and place.stat().st_size == LARGE else ["its /store/big is not there, or not 32 MB"]
    wrong += [] if _begins(pid, "/store/big", b"mine") else ["its /store/big does not begin with mine"]
    wrong += [] if _written(upperdir(root_of(pid))) < LITTLE else ["its upper directory has a large file"]
    return Verdict(not wrong, "alone runs on overlay2", "; ".join(wrong) or None)


def _pid(engine: str, name: str) -> int | None:
    try:
        return docker_engine.pid(engine, name)
    except LabError:
        return None


def _begins(pid: int, path: str, words: bytes) -> bool:
    """Tell whether a file that a process sees begins so."""
    try:
        with open(f"/proc/{pid}/root{path}", "rb") as file:
            return file.read(len(words)) == words
    except OSError:
        return False


def _written(upper: str | None) -> int:
    """Return how many bytes the files of an upper directory take."""
    return sum(os.lstat(file).st_blocks * 512 for file in Path(upper).rglob("*")) if upper else 0


MADE = "[ -e image ] || labkit example 9.3 image > /dev/null; image/make.sh {0}\n"
GONE = "docker --context {0} container rm --force {1} > /dev/null 2>&1 || true\n"
RUN = GONE + "docker --context {0} container run --detach --name {1} {2} big top > /dev/null\n"
TELL = "docker --context {0} container exec {1} sh -c '{2}' > /dev/null 2>&1 || true\n"
CHANGE = "printf {0} | dd of={1} conv=notrunc"


def _told(engine: str, name: str, script: str, options: str = "") -> str:
    """Return the lines that run a container and do something in it."""
    return RUN.format(engine, name, options) + TELL.format(engine, name, script)


MINE = CHANGE.format("mine", "/big")
COPY = "cp /big /store/big; " + CHANGE.format("mine", "/store/big")

FULL = """\
docker --context overlay2 container rm -f editor hog > /dev/null 2>&1 || true
docker --context overlay2 container run -d --name editor big top > /dev/null
docker --context overlay2 container run --name hog big sh -c \\
  'dd if=/dev/zero of=/spare bs=1M count=10; cat /dev/zero > /junk; rm /spare' > /dev/null 2>&1 || true
"""
EDIT = TELL.format("overlay2", "editor", CHANGE.format("mended", "/big"))

CHECKPOINTS = (
    Checkpoint(
        "thin",
        task="thin, a container of any engine, has changed the beginning of its /big to mine, and shares the rest with the image",
        measure=thin,
        hints=(
            "which of the three drivers copies less than a file?",
            "with btrfs the first write copies one block",
            f"docker --context btrfs container exec thin sh -c '{MINE}'",
        ),
        given=MADE.format(""),
        solution=_told("btrfs", "thin", MINE),
        undo=GONE.format("btrfs", "thin"),
        near_misses={
            "overlay2": _told("overlay2", "thin", MINE),
            "nothing written": _told("btrfs", "thin", "true"),
            "written anew": _told("btrfs", "thin", f"cat /big > /new; mv -f /new /big; {MINE}"),
        },
    ),
    Checkpoint(
        "mended",
        task="editor, a container of overlay2, has changed the beginning of its /big to mended, and /big is as long as it was",
        measure=mended,
        hints=(
            "what does overlayfs need before it can change one byte of a file of the image?",
            "who has filled the disk? docker --context overlay2 container ls -a --size",
            "docker --context overlay2 container rm hog, and the line again",
        ),
        given=MADE.format("overlay2") + FULL,
        solution=GONE.format("overlay2", "hog") + EDIT,
        undo=GONE.format("overlay2", "editor"),
        near_misses={
            "once more": EDIT,
            "written over": TELL.format("overlay2", "editor", "printf mended > /big"),
            "another file": TELL.format("overlay2", "editor", "printf mended > /note"),
        },
    ),
    Checkpoint(
        "alone",
        task="alone, a container of overlay2, has 32 MB in /store/big that begin with mine, and next to nothing in its upper directory",
        measure=alone,
        hints=(
            "what is written often, or is large, belongs into no layer",
            "a volume at /store; cp /big /store/big, then change the copy",
            f"docker --context overlay2 container run -d --name alone -v store:/store big top; then, in it: {COPY}",
        ),
        given=MADE.format("overlay2"),
        solution=_told("overlay2", "alone", COPY, "-v store:/store"),
        undo=GONE.format("overlay2", "alone"),
        near_misses={
            "no volume": _told("overlay2", "alone", f"mkdir /store; {COPY}"),
            "in memory": _told("overlay2", "alone", COPY, "--tmpfs /store"),
            "changed first, then copied": _told("overlay2", "alone", f"{MINE}; cp /big /store/big", "-v store:/store"),
        },
    ),
)
