"""Checkpoints of lab 4.1, runc: a bundle that keeps to the specification, and the operations of the runtime specification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.kernel import namespaces, roots
from labkit.kernel.cgroups import hierarchies, members
from labkit.runtimes import bundle, conformance

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "runc"
AIMS = (
    "write an OCI bundle, and find the field and the clause where it breaks the specification",
    "take a container through create, start, kill and delete, and see what the kernel has at each step",
    "run one bundle with two runtimes, and tell what they do alike",
)
NEEDS = ("root", "namespaces", "cgroups", "runc", "crun", "registry")
CLAIMS = (("runc", "web"),)


def created(lab: Lab) -> Verdict:
    """Measure that the container web is there and waits: its first process is still the runtime's."""
    first = _first(lab)
    if first is None:
        return Verdict(passed=False, measured=f"no process 1 in the cgroup lab-{lab.id}/runc.web")
    waits = _comm(first).startswith("runc:")
    return Verdict(waits, f"its process 1 is {'runc' if waits else _comm(first)}", None if waits else "its program has been started")


def running(lab: Lab) -> Verdict:
    """Measure that the container web runs its program, with the bundle's root file system."""
    first = _first(lab)
    if first is None:
        return Verdict(passed=False, measured=f"no process 1 in the cgroup lab-{lab.id}/runc.web")
    if _comm(first).startswith("runc:"):
        return Verdict(passed=False, measured="its process 1 is runc", cause="it is created, and not started")
    inside = first in roots.processes_in(lab.directory / "web/rootfs")
    cause = None if inside else "its root directory is not web/rootfs"
    return Verdict(inside, f"its process 1 is {_comm(first)}", cause)


def mended(lab: Lab) -> Verdict:
    """Measure that the bundle broken keeps to the specification."""
    place = lab.directory / "broken"
    found = conformance.validate(bundle.load(place), place)
    cause = f"{found[0].field}: {found[0].message}" if found else None
    return Verdict(not found, f"{len(found) or 'no'} problem{'' if len(found) == 1 else 's'}", cause and lab.short(cause))


def _first(lab: Lab) -> int | None:
    """Return the process in the container's cgroup that is number 1 of a PID namespace of its own."""
    places = [hierarchy.path / f"lab-{lab.id}/runc.web" for hierarchy in hierarchies().mounted]
    found = sorted({pid for place in places for pid in members.pids(place)})
    return next((pid for pid in found if namespaces.process(pid).pid_inside == 1), None)


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


CONFIG = """{
 "ociVersion": "1.0.2", "hostname": "web", "root": {"path": "rootfs"},
 "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sleep", "600"], "env": ["PATH=/bin"]},
 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
 "linux": {
  "cgroupsPath": "/lab-4.1/runc.web",
  "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}]
 }
}
"""
ROOT = "mkdir -p {0}/rootfs/bin; cp /bin/busybox {0}/rootfs/bin/; ln -sf busybox {0}/rootfs/bin/sleep\n"
BUNDLE = f"{ROOT.format('web')}cat > web/config.json << 'END'\n{CONFIG}END\n"
CREATE = "runc --root state create --bundle web --pid-file pid web < /dev/null > web.log 2>&1\n"
START = "runc --root state start web\n" + until("grep -qz '^sleep' /proc/$(cat pid)/cmdline")
DELETE = "runc --root state delete --force web\n"
FAULTS = (('"cwd": "/"', '"cwd": "root"'), ('"type": "network"', '"type": "net"'), ('"path": "rootfs"', '"path": "root"'))
BROKEN = CONFIG
for _good, _bad in FAULTS:
    BROKEN = BROKEN.replace(_good, _bad)
GIVEN = f"{ROOT.format('broken')}cat > broken/config.json << 'END'\n{BROKEN}END\n"
MEND = [f"sed -i 's|{bad}|{good}|' broken/config.json\n" for good, bad in FAULTS]

CHECKPOINTS = (
    Checkpoint(
        id="created",
        task="the container web is created from the bundle web, and its program has not begun",
        measure=created,
        hints=(
            "create makes all that a container needs, and stops before the program",
            "the runtime wants the bundle, and a name for the container",
            "runc --root state create --bundle web web < /dev/null > web.log 2>&1",
        ),
        given=BUNDLE,
        solution=CREATE,
        undo=DELETE,
        near_misses={
            "started as well": CREATE + START,
            "only the bundle": "runc --root state list > /dev/null\n",
            "a program in the tree": "chroot web/rootfs /bin/sleep 600 > /dev/null 2>&1 &\n",
        },
    ),
    Checkpoint(
        id="running",
        task="the container web runs the bundle's program",
        measure=running,
        hints=("what is created waits for start", "runc --root state start web"),
        given=BUNDLE,
        solution=CREATE + START,
        undo=DELETE,
        near_misses={
            "created alone": CREATE,
            "a program in the tree": "chroot web/rootfs /bin/sleep 600 > /dev/null 2>&1 &\n",
            "another root directory": "mkdir -p other/rootfs\ncp -a web/rootfs/bin other/rootfs/\ncp web/config.json other/\n"
            + (CREATE + START).replace("--bundle web", "--bundle other"),
        },
    ),
    Checkpoint(
        id="mended",
        task="the bundle broken keeps to the specification",
        measure=mended,
        hints=(
            'lab.problems("broken") names each field and the clause that it breaks',
            "cwd is a path inside, from /; the specification spells the namespaces out; root.path names a directory of the bundle",
            'sed -i \'s|"cwd": "root"|"cwd": "/"|\' broken/config.json',
        ),
        given=GIVEN,
        solution="".join(MEND),
        undo=GIVEN,
        near_misses={
            "two of three": MEND[0] + MEND[1],
            "the other two": MEND[1] + MEND[2],
            "a configuration of another bundle without its tree": "mkdir -p broken/new\nmv broken/rootfs broken/new/\n" + "".join(MEND),
            "nothing in it": "echo '{}' > broken/config.json\n",
        },
    ),
)
