"""Checkpoints of lab 9.2, storage with rkt: what a volume is to the kernel, who may write there, and how long it stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course import rkt_pods, volumes
from labkit.course.checkpoints import Checkpoint, Verdict, until

if TYPE_CHECKING:
    from labkit.course.lab import Lab
    from labkit.course.rkt_pods import Running

TITLE = "Storage with rkt"
AIMS = (
    "give a pod a directory of the host, and find what it wrote after the pod is gone",
    "let the same directory be read-only for one app and not for another, and say what refuses the write",
    "read from mountinfo what a volume is to the kernel",
    "tell how long an empty volume lives, and what an image's mount points ask for",
)
NEEDS = ("root", "namespaces", "overlay", "registry", "rkt")

GUEST = 33
DATA, NOTES, NOTE = "/data-dir", "/notes", "today"


def kept(lab: Lab) -> Verdict:
    """Measure that an etcd runs in a pod and keeps its data in a mount that does not lie in the pod's directory."""
    found = [one for one in rkt_pods.running(lab, ["etcd"]) if "etcd" in one.processes]
    if not found:
        return rkt_pods.absent(lab, ["etcd"])
    (one, *_) = found
    pid = one.processes["etcd"].pid
    wrong = [] if volumes.mounted(pid, DATA) else [f"nothing is mounted at its {DATA}"]
    wrong += [f"its {DATA} is an empty volume, which goes with the pod"] if _in_pod(one, pid, DATA) else []
    wrong += [] if volumes.seen(pid, f"{DATA}/member") else [f"it has written nothing into {DATA}"]
    return Verdict(not wrong, "a pod runs with etcd", "; ".join(wrong) or None)


def mended(lab: Lab) -> Verdict:
    """Measure that writer runs as the user 33, and has written into an empty volume of its pod at /notes."""
    found = [one for one in rkt_pods.running(lab, ["writer"]) if "writer" in one.processes]
    if not found:
        return rkt_pods.absent(lab, ["writer"])
    (one, *_) = found
    writer = one.processes["writer"]
    note = volumes.seen(writer.pid, f"{NOTES}/{NOTE}")
    wrong = [] if writer.uid == GUEST else [f"writer runs as user {writer.uid}"]
    wrong += [] if _in_pod(one, writer.pid, NOTES) else [f"what is at {NOTES} is no empty volume of the pod"]
    wrong += [] if note and note.st_uid == GUEST else [f"the user {GUEST} has written no {NOTES}/{NOTE}"]
    return Verdict(not wrong, "a pod runs with writer", "; ".join(wrong) or None)


def alone(lab: Lab) -> Verdict:
    """Measure that author and reader of one pod see $LAB/board at /out and /in, and that the mount of reader alone is read-only."""
    apps = ("author", "reader")
    found = [one for one in rkt_pods.running(lab, apps) if set(apps) <= one.processes.keys()]
    if not found:
        return rkt_pods.absent(lab, apps)
    wrong = []
    for app, place, read_only in (("author", "/out", False), ("reader", "/in", True)):
        pid = found[0].processes[app].pid
        mount = volumes.mounted(pid, place)
        if mount is None or not volumes.is_seen(lab.path("board"), pid, place):
            wrong.append(f"{place} of {app} is not $LAB/board")
        elif ("ro" in mount.options) != read_only:
            wrong.append(f"the mount at {place} of {app} is {'read-only' if not read_only else 'not read-only'}")
    return Verdict(not wrong, "one pod runs with author and reader", "; ".join(wrong) or None)


def _in_pod(one: Running, pid: int, place: str) -> bool:
    """Tell whether what a process sees at a place is one of the empty volumes of its pod."""
    return any(volumes.is_seen(volume, pid, place) for volume in (one.pod.directory / "sharedVolumes").glob("*"))


QUIET = " > /dev/null 2>&1"
STOP = f"rkt stop --force --uuid-file={{0}}.uuid{QUIET} || true\nrkt status --wait $(cat {{0}}.uuid){QUIET} || true\n"
RUN = "rkt run --insecure-options=image --net=none --uuid-file-save={0}.uuid {1} > {0}.log 2>&1 &\n"
OVER = "! kill -0 $! 2> /dev/null"

MADE = "mkdir -p etcd-data other board\n"
ETCD = RUN.format("etcd", "{0} coreos.com/etcd:v3.1.7") + until(f"grep -q 'ready to serve' etcd.log || {OVER}")
HOST = "--volume=data-dir,kind=host,source=$LAB/etcd-data"

NOTES_SH = """\
rkt run --insecure-options=image --net=none --uuid-file-save=notes.uuid \\
  --volume=notes,kind=empty --mount volume=notes,target=/notes \\
  docker://busybox --name=writer --user=33 --group=33 --exec=/bin/sh -- \\
  -c 'echo first line > /notes/today && echo written && exec sleep 600'
"""
START = f"bash notes.sh > notes.log 2>&1 &\n{until(f'grep -q written notes.log || {OVER}')}"
CHANGED = f"sed -i {{0}} notes.sh\n{START}"

BOARD = "--volume={0},kind=host,source=$LAB/{1},readOnly={2}"
APP = "docker://busybox --name={0} --mount volume={1},target={2} {3} --exec=/bin/sh -- -c 'echo up; exec sleep 600'"
TWO = RUN.format("board", f"{{0}} {APP.format('author', '{1}', '/out', '')} --- {APP.format('reader', '{2}', '/in', '{3}')}")
TWO += until(f"[ $(grep -c ': up' board.log) = 2 ] || {OVER}")
OUT, IN = BOARD.format("out", "board", "false"), BOARD.format("in", "board", "true")

CHECKPOINTS = (
    Checkpoint(
        "kept",
        task="a pod runs etcd, and what etcd writes into its /data-dir outlives the pod",
        measure=kept,
        hints=(
            "a volume of kind empty lies in the pod's directory, one of kind host does not",
            "the image has a mount point data-dir: a volume of that name is mounted there",
            "--volume=data-dir,kind=host,source=$LAB/etcd-data",
        ),
        given=MADE,
        solution=ETCD.format(HOST),
        undo=STOP.format("etcd"),
        near_misses={
            "no volume": ETCD.format(""),
            "an empty one": ETCD.format("--volume=data-dir,kind=empty"),
            "mounted elsewhere": ETCD.format("--volume=other,kind=host,source=$LAB/other --mount volume=other,target=/other"),
            "read-only": ETCD.format(f"{HOST},readOnly=true"),
        },
    ),
    Checkpoint(
        "mended",
        task="the app writer runs as the user 33, and writes into its pod's empty volume at /notes",
        measure=mended,
        hints=(
            "notes.log has the last words of writer: who may write into a new directory of root's?",
            "an empty volume takes mode=, uid= and gid=",
            "--volume=notes,kind=empty,uid=33,gid=33",
        ),
        given=f"cat > notes.sh << 'END'\n{NOTES_SH}END\nbash notes.sh > notes.log 2>&1 || true\n",
        solution=CHANGED.format("s/kind=empty/kind=empty,uid=33,gid=33/"),
        undo=STOP.format("notes"),
        near_misses={
            "once more": START,
            "as root": CHANGED.format("s/--user=33/--user=0/"),
            "a group that may only read": CHANGED.format("s/kind=empty/kind=empty,gid=33/"),
            "written elsewhere": CHANGED.format("s,/notes/today,/tmp/today,"),
            "a directory of the host": "mkdir -p -m 777 other\n" + CHANGED.format('"s|kind=empty|kind=host,source=$LAB/other|"'),
        },
    ),
    Checkpoint(
        "alone",
        task="author and reader are apps of one pod and see $LAB/board, at /out and at /in; reader may not write there",
        measure=alone,
        hints=(
            "read-only is a property of the volume, not of the mount",
            "two volumes may have the same source",
            "--volume=in,kind=host,source=$LAB/board,readOnly=true, another one called out, and a --mount behind each image",
        ),
        given=MADE,
        solution=TWO.format(f"{OUT} {IN}", "out", "in", ""),
        undo=STOP.format("board"),
        near_misses={
            "one volume for both": TWO.format(OUT, "out", "out", ""),
            "read-only for both": TWO.format(IN, "in", "in", ""),
            "the root is read-only": TWO.format(OUT, "out", "out", "--readonly-rootfs"),
            "the wrong way round": TWO.format(f"{OUT} {IN}", "in", "out", ""),
            "another directory": TWO.format(f"{OUT} {BOARD.format('in', 'other', 'true')}", "out", "in", ""),
        },
    ),
)
