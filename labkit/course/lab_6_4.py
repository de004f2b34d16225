"""Checkpoints of lab 6.4, containers with Podman: what of a container is a process, what a file, and what two of them share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labkit.course.checkpoints import Checkpoint, Verdict, until
from labkit.course.podman_containers import absent, not_of_student, of_root, of_student
from labkit.host import account
from labkit.kernel import namespaces
from labkit.kernel.mounts.table import mountinfo
from labkit.kernel.xray.machine import Machine
from labkit.kernel.xray.root import root_of

if TYPE_CHECKING:
    from labkit.course.lab import Lab

TITLE = "Containers with Podman"
AIMS = (
    "take a container through its whole life, and say at each step what of it is a process and what is a file",
    "change what a container serves, from outside, and find the change on the machine's disk",
    "run one without being root, and say who each of its users is outside",
    "put containers into a pod, and tell what they share and what not",
)
NEEDS = ("root", "namespaces", "userns", "podman", "runc", "registry")

WELCOME = "Welcome to Container Fundamentals!"
PAGE = "usr/share/nginx/html/index.html"
PORT = 8080
_LISTEN = "0A"  # proc_pid_net(5): TCP_LISTEN


def page(_: Lab) -> Verdict:
    """Measure that page runs, that its index.html is the course's line, and that this file lies in the container's own layer."""
    machine = Machine()
    pid = of_root("page", machine)
    if pid is None:
        return absent("page")
    if _text(Path(f"/proc/{pid}/root") / PAGE) != WELCOME:
        return Verdict(passed=False, measured="page runs", cause=f"its /{PAGE} does not say {WELCOME!r}")
    layer = root_of(pid, mountinfo(pid), machine).upperdir
    own = _text(Path(layer) / PAGE) == WELCOME
    return Verdict(own, "page runs, its index.html is the course's line", None if own else "the file is not in the layer of page")


def guest(_: Lab) -> Verdict:
    """Measure that the program of guest has a subordinate id of the labs' user outside."""
    machine = Machine()
    pid = of_student("guest", machine)
    if pid is None:
        return not_of_student("guest")
    uid = machine.members[pid].uid
    ((_inside, lowest, count),) = account.find().id_map()
    if lowest <= uid < lowest + count:
        return Verdict(passed=True, measured="guest runs, its program is a subordinate id outside")
    who = account.STUDENT if uid == account.find().uid else "another user"
    return Verdict(passed=False, measured="guest runs", cause=f"its program is {who} outside")


def mended(_: Lab) -> Verdict:
    """Measure that broken runs, and that somebody listens on the port in its network namespace that its site asks for."""
    pid = of_root("broken", Machine())
    if pid is None:
        return absent("broken")
    there = PORT in _listening(pid)
    return Verdict(there, "broken runs", None) if there else Verdict(there, "broken runs", f"nobody in it listens on port {PORT}")


def alone(_: Lab) -> Verdict:
    """Measure that one and two run with the same processes in sight, which are not the machine's, and each with a network of its own."""
    machine = Machine()
    pids = [of_root(name, machine) for name in ("one", "two")]
    first, second = pids
    if first is None or second is None:
        return absent("one" if first is None else "two")
    same = namespaces.shared(first, second)
    host = namespaces.shared(first, machine.reference)
    wrong = [] if same["pid"] else ["they do not see each other's processes"]
    wrong += ["they see the machine's processes"] if host["pid"] else []
    wrong += ["they have one network"] if same["net"] else []
    measured = f"one and two run: pid {_word(same=same['pid'])}, net {_word(same=same['net'])}"
    return Verdict(not wrong, measured, "; ".join(wrong) or None)


def _word(*, same: bool) -> str:
    return "shared" if same else "own"


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _listening(pid: int) -> set[int]:
    """Return the TCP ports on which somebody listens in the network namespace of a process. See: proc_pid_net(5)."""
    found = set()
    for file in ("tcp", "tcp6"):
        for line in _text(Path(f"/proc/{pid}/net/{file}")).splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            found |= {int(local.rpartition(":")[2], 16)} if state == _LISTEN else set()
    return found


STUDENT = "%%lab --user labkit-student\n"
GONE = "podman rm --force --ignore {0} > /dev/null 2>&1\n"
QUIET = " > /dev/null 2>&1\n"
RUN = GONE + "podman run --quiet --detach {1} --name {0} busybox sleep 600" + QUIET
NGINX = GONE.format("page") + "podman run --quiet --detach {0} --name page nginx" + QUIET
FILE = f"echo '{WELCOME}' > host-file\n"
COPY = "podman cp host-file page:/{0}\n"

SITE = "server {{ listen {port}; root /usr/share/nginx/html{end} }}"
SITES = {name: SITE.format(port=PORT, end=end) for name, end in (("bad", ""), ("good", ";"))}
WRITE = "echo '{0}' > site.conf\npodman cp site.conf broken:/etc/nginx/conf.d/site.conf\n"
START = "podman container start broken" + QUIET
LISTENS = until(f"grep -qi ':{PORT:04X} .* 0A ' /proc/$(podman inspect --format '{{{{.State.Pid}}}}' broken)/net/tcp")
GIVEN = GONE.format("broken") + "podman container create --name broken nginx" + QUIET + WRITE.format(SITES["bad"])
GIVEN += f"{START}podman wait broken > /dev/null\npodman container cleanup broken > /dev/null\n"
MEND = WRITE.format(SITES["good"]) + START + LISTENS

NO_POD = "podman pod rm --force --ignore alone" + QUIET + GONE.format("one") + GONE.format("two")
POD = NO_POD + "podman pod create {0} --name alone" + QUIET
MEMBERS = RUN.format("one", "--pod alone") + RUN.format("two", "--pod alone")

CHECKPOINTS = (
    Checkpoint(
        "page",
        task="a container of root's called page runs nginx, and the index.html in its own layer is the course's line",
        measure=page,
        hints=("podman cp copies a file into a container, as cp would", f"podman cp host-file page:/{PAGE}"),
        solution=NGINX.format("") + FILE + COPY.format(PAGE),
        undo=GONE.format("page"),
        near_misses={
            "nginx's own page": NGINX.format("") + FILE,
            "another directory": NGINX.format("") + FILE + COPY.format("usr/share/nginx/index.html"),
            "mounted, not copied": FILE + NGINX.format(f"--volume $LAB/host-file:/{PAGE}"),
            "copied and stopped": NGINX.format("") + FILE + COPY.format(PAGE) + "podman stop page" + QUIET,
        },
    ),
    Checkpoint(
        "guest",
        task="a container of labkit-student called guest runs, and its program is a subordinate id outside",
        measure=guest,
        hints=("root inside is labkit-student outside; every other user inside is a subordinate id", "podman run has an option --user"),
        solution=STUDENT + RUN.format("guest", "--user 33"),
        undo=STUDENT + GONE.format("guest"),
        near_misses={
            "root inside": STUDENT + RUN.format("guest", ""),
            "the user's own id": STUDENT + RUN.format("guest", "--userns keep-id"),
            "a container of root's": RUN.format("guest", "--user 33"),
        },
    ),
    Checkpoint(
        "mended",
        task=f"the container broken runs nginx, which listens on port {PORT}",
        measure=mended,
        hints=(
            "what a container wrote before it ended stays: podman container logs broken",
            "podman cp works with a container that does not run, in both directions",
            "in site.conf a semicolon is missing after the word html",
        ),
        given=GIVEN,
        solution=MEND,
        undo=GONE.format("broken"),
        near_misses={
            "started again": START + "podman wait broken > /dev/null\n",
            "the site is empty": "> site.conf\npodman cp site.conf broken:/etc/nginx/conf.d/site.conf\n" + START,
            "mended, not started": WRITE.format(SITES["good"]),
            "another program": RUN.format("broken", ""),
        },
    ),
    Checkpoint(
        "alone",
        task="two containers of root's, one and two, see each other's processes, and each has a network of its own",
        measure=alone,
        hints=(
            "what the containers of a pod share is told when it is made: man podman-pod-create, --share",
            "podman pod create --share pid --name alone",
            "podman run --detach --pod alone --name one busybox sleep 600",
        ),
        solution=POD.format("--share pid") + MEMBERS,
        undo=NO_POD,
        near_misses={
            "what a pod shares by default": POD.format("") + MEMBERS,
            "processes and network": POD.format("--share pid,net") + MEMBERS,
            "no pod": RUN.format("one", "") + RUN.format("two", ""),
            "the machine's processes": RUN.format("one", "--pid host") + RUN.format("two", "--pid host"),
            "one of two": POD.format("--share pid") + RUN.format("one", "--pod alone"),
        },
    ),
)
