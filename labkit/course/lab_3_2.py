"""Checkpoints of lab 3.2, LXC: each looks at the first process of a container, and at who it is outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.host import account
from labkit.kernel import credentials, namespaces
from labkit.kernel.xray.containers import Found, containers
from labkit.kernel.xray.machine import Machine

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "LXC"
AIMS = (
    "run a whole system in a container without being root, and say who its root is outside",
    "tell what a container of root is kept from, and what one of a user is kept from",
    "name the fault when a container does not start",
)
NEEDS = ("root", "namespaces", "userns", "rootfs", "lxc", "lxc-unprivileged")
CLAIMS = (("lxc", "priv-cont"),)
HALF = account.IDS // 2
NONE = Verdict(passed=False, measured="no container", cause=f"no container here was started by {account.STUDENT}")


def unprivileged(_: Lab) -> Verdict:
    """Measure that a container of the user runs whose root is one of the user's subordinate ids outside."""
    machine = Machine()
    mine = list(_of_student(machine))
    if not mine:
        return NONE
    roots = {found.pid: _outside(found.pid) for found in mine}
    apart = [found for found in mine if _is_given(roots[found.pid])]
    if apart:
        return Verdict(passed=True, measured=f"{_name(apart[0])} runs, its root is another user outside")
    return Verdict(passed=False, measured="its root has no id of its own", cause=f"root of it is {account.STUDENT} outside, or nobody")


def attached(_: Lab) -> Verdict:
    """Measure that a program runs in a container of the user, in all its namespaces, started from outside."""
    machine = Machine()
    mine = list(_of_student(machine))
    if not mine:
        return NONE
    closest: tuple[str, ...] = ()
    for found in mine:
        for pid in _came_in(found, machine):
            missing = tuple(kind for kind, same in namespaces.shared(pid, found.pid).items() if not same)
            if not missing:
                return Verdict(passed=True, measured=f"a program from outside runs in {_name(found)}")
            closest = closest or missing
    cause = f"it has not the container's namespaces: {' '.join(closest)}" if closest else "what runs in it was started by its own init"
    return Verdict(passed=False, measured="nobody is in it", cause=cause)


def privileged(_: Lab) -> Verdict:
    """Measure that priv-cont runs, that its root is root outside, and that it lacks capabilities."""
    found = next((each for each in containers(Machine()) if each.is_called("priv-cont")), None)
    if found is None:
        return Verdict(passed=False, measured="priv-cont does not run", cause="no container here is called priv-cont")
    outside = _outside(found.pid)
    if outside != 0:
        return Verdict(passed=False, measured="its root is not root outside", cause="it has a user namespace: root has not started it")
    dropped = set(credentials.capabilities()["bounding"]) - set(credentials.capabilities(found.pid)["bounding"])
    measured = f"its root is root outside, {len(dropped)} capabilities less than the machine's"
    return Verdict(bool(dropped), measured, None if dropped else "it has all capabilities of root")


def apart(_: Lab) -> Verdict:
    """Measure that `mine` runs, and that its users and groups lie in the upper half of the user's ids."""
    found = next((each for each in _of_student(Machine()) if _name(each) == "mine"), None)
    if found is None:
        return Verdict(passed=False, measured="mine does not run", cause=f"no container called mine was started by {account.STUDENT}")
    student = account.find()
    low = []
    for word, ids, given in (
        ("users", namespaces.uid_map(found.pid), student.subuid),
        ("groups", namespaces.gid_map(found.pid), student.subgid),
    ):
        first, count = given or (0, 0)
        if not ids or any(not first + HALF <= outside <= first + count - number for _, outside, number in ids):
            low.append(word)
    if low:
        cause = f"its {' and '.join(low)} are not in the upper half"
        return Verdict(passed=False, measured="mine runs", cause=cause)
    return Verdict(passed=True, measured="mine runs, its users and groups lie in the upper half")


def _of_student(machine: Machine) -> Iterator[Found]:
    """Yield the containers that a process of the user watches over."""
    student = account.find()
    for found in containers(machine):
        member = machine.members.get(found.pid)
        parent = machine.members.get(member.ppid) if member else None
        if member and parent and len(member.pids) > len(parent.pids) and parent.uid == student.uid:
            yield found


def _name(found: Found) -> str:
    return next(iter(found.names), found.comm)


def _outside(pid: int) -> int | None:
    """Return who root of a container is outside; None where it has no root."""
    return next((outside for inside, outside, _ in namespaces.uid_map(pid) if inside == 0), None)


def _is_given(uid: int | None) -> bool:
    first, count = account.find().subuid or (0, 0)
    return uid is not None and first <= uid < first + count


def _came_in(found: Found, machine: Machine) -> Iterator[int]:
    """Yield the processes that share a namespace with a container's first process, and whose parent shares not its PID namespace."""
    inside = {kind: set(machine.inhabitants(kind).get(inode, ())) for kind, inode in namespaces.of(found.pid).items()}
    host = namespaces.of("self")
    own = [pids for kind, pids in inside.items() if namespaces.of(found.pid)[kind] != host[kind]]
    for pid in sorted(set[int]().union(*own) - {found.pid}):
        member = machine.members.get(pid)
        if member and member.ppid not in inside["pid"]:
            yield pid


STUDENT = "%%lab --user labkit-student\n"
AS_ROOT = "%%lab\n"
TREE = "-t local -- --metadata $ROOTFS/metadata.tar.xz --fstree $ROOTFS/debian.tar.xz\n"
CONF = """mkdir -p ~/.config/lxc; cp /etc/lxc/default.conf ~/.config/lxc/
{ awk -F: -v u=$USER '$1 == u {print "lxc.idmap = u 0", $2, $3}' /etc/subuid
  awk -F: -v u=$USER '$1 == u {print "lxc.idmap = g 0", $2, $3}' /etc/subgid
  echo lxc.apparmor.profile = unconfined; } >> ~/.config/lxc/default.conf
"""
CREATE = "lxc-create -n {} " + TREE
CREATE_SMALL = "lxc-create -n {} -t busybox > /dev/null\n"
START = "lxc-start -n {} -d\n"
RUNS = STUDENT + CONF + CREATE_SMALL.format("small") + START.format("small")
STOP = "lxc-stop -k -n {}\n"
UPPER = """mkdir -p ~/.config/lxc; cp /etc/lxc/default.conf ~/mine.conf
{{ awk -F: -v u=$USER '$1 == u {{print "lxc.idmap = u 0", $2 + {users}, 32768}}' /etc/subuid
  awk -F: -v u=$USER '$1 == u {{print "lxc.idmap = g 0", $2 + {groups}, 32768}}' /etc/subgid
  echo lxc.apparmor.profile = unconfined; }} >> ~/mine.conf
lxc-create -n mine -f ~/mine.conf -t {template}
"""
MINE = STUDENT + UPPER + START.format("mine")

CHECKPOINTS = (
    Checkpoint(
        id="unprivileged",
        task="a container of labkit-student runs, and its root is not root outside",
        measure=unprivileged,
        hints=(
            "~/.config/lxc/default.conf is what lxc-create begins a container with",
            "lxc.idmap = u 0 FIRST 65536, with FIRST from the line of labkit-student in /etc/subuid; g from /etc/subgid",
            "lxc-create -n unpriv-cont-user -t local -- --metadata ... --fstree ..., then lxc-start -n unpriv-cont-user -d",
        ),
        solution=STUDENT + CONF + CREATE.format("unpriv-cont-user") + START.format("unpriv-cont-user"),
        undo=STUDENT + STOP.format("unpriv-cont-user"),
        near_misses={
            "made, not started": STUDENT + CONF + CREATE_SMALL.format("unpriv-cont-user"),
            "as root": AS_ROOT + CREATE_SMALL.format("priv-cont") + START.format("priv-cont"),
            "root inside is the user": STUDENT
            + "unshare --user --map-root-user --pid --fork sleep 600 > /dev/null 2>&1 &\n"
            + until("pgrep --parent $! > /dev/null"),
        },
    ),
    Checkpoint(
        id="attached",
        task="a program that you started from outside runs in the container of labkit-student",
        measure=attached,
        hints=("lxc-attach -n NAME starts a shell in it", "what stays: lxc-attach -n NAME -- sleep 600 &"),
        given=RUNS,
        solution=STUDENT + "lxc-attach -n small -- sh -c 'echo inside; exec sleep 600' > ~/said 2>&1 &\n" + until("grep -q inside ~/said"),
        undo=STUDENT + STOP.format("small"),
        near_misses={
            "two of its namespaces": STUDENT
            + "lxc-info -n small -pH > ~/pid\n"
            + AS_ROOT
            + "nsenter --target $(cat home/pid) --uts --net sleep 600 > /dev/null 2>&1 &\n"
            + until("grep -qx sleep /proc/$!/comm"),
            "its own init started it": STUDENT + "lxc-attach -n small -- sh -c 'sleep 600 > /dev/null 2>&1 &'\n",
        },
    ),
    Checkpoint(
        id="privileged",
        task="priv-cont runs, its root is root outside, and it may not do all that root may",
        measure=privileged,
        hints=(
            "root has a configuration, too: /etc/lxc/default.conf, without lxc.idmap",
            "lxc-create -n priv-cont -t local -- --metadata ... --fstree ..., then lxc-start -n priv-cont -d",
        ),
        solution=CREATE.format("priv-cont") + START.format("priv-cont"),
        undo=STOP.format("priv-cont"),
        near_misses={
            "made, not started": CREATE_SMALL.format("priv-cont"),
            "nothing is dropped": CREATE_SMALL.format("priv-cont") + "lxc-start -n priv-cont -d -s lxc.cap.drop=\n",
            "of the user": RUNS.replace("small", "priv-cont"),
        },
    ),
    Checkpoint(
        id="apart",
        task="a container of labkit-student called mine runs; its ids are the upper half of those that the user has",
        measure=apart,
        hints=(
            "the second number of lxc.idmap is the first id outside, the third how many there are",
            "32768 ids, the first of them 32768 above the one in /etc/subuid; the same for the groups",
            "lxc-create -n mine -f FILE takes another configuration than default.conf",
        ),
        solution=MINE.format(users=HALF, groups=HALF, template=TREE.removeprefix("-t ").strip()),
        undo=STUDENT + STOP.format("mine"),
        near_misses={
            "the whole range": RUNS.replace("small", "mine"),
            "users alone": MINE.format(users=HALF, groups=0, template="busybox > /dev/null"),
            "made, not started": STUDENT + UPPER.format(users=HALF, groups=HALF, template="busybox > /dev/null"),
        },
    ),
)
