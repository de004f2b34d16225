"""The fixture that fails a test which leaves something on the machine, or takes something away from it.

It reads the kernel by itself, with none of the lab's readers: what they would overlook is seen here.
"""

import gc
import importlib
import os
import pkgutil
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import kernel, ledger, runtimes

ROOMS = ("kernel", "cni", "appc", "runtimes", "notebooks", "faults")
"""The rooms whose tests are watched; a test from outside tests/ is watched too."""

PATIENCE = 3.0
"""Seconds in which the kernel may still end what a test has let go (a network namespace is taken down by a worker)."""

SYSTEMD_CGROUP = re.compile(r"\.(slice|scope|service|mount|socket|swap)$")
LAB_HOME = re.compile(r"/lab(-[^/]+)?(/processes)?$")
"""The lab's own directories stay until `ledger.undo`: empty, they are no leak."""

BRIDGES_OF_ENGINES = re.compile(r"\bfe80::.*\b(docker0|cni0)\b|\b(docker0|cni0)\b.*\bfe80::")
"""The kernel gives a bridge a link-local address with its first port, and it stays with the bridge, which is its engine's."""

HOMES_OF_ENGINES = ("docker", "libpod_parent")
"""Cgroups at the root of a hierarchy that an engine makes with its first container and keeps; what it leaves in them is a leak."""

MACHINE = re.compile(r"machine-\d+")
"""Cgroups at the root of a hierarchy in which other tests have a machine of their own (tests/machine)."""

NETNS_OF_DOCKER = "/docker/netns/default"
"""Where dockerd keeps the machine's network namespace at hand, from the first container on that shares it."""

LAUNCHER = "labkit/kernel/processes/launcher.py"

State = dict[str, Counter[str]]


def machine() -> State:
    """Read what a test may not change: each kind of thing, with how often each is there."""
    return {
        "mount": Counter(_mounts()),
        "network namespace": Counter(os.listdir("/run/netns") if Path("/run/netns").is_dir() else ()),
        "link": Counter(os.listdir("/sys/class/net")),
        "address or route": Counter(_lines("ip", "-o", "address") + _lines("ip", "route") + _lines("ip", "-6", "route")),
        "nft": Counter(_lines("nft", "-s", "list", "ruleset")),
        "cgroup": Counter(_cgroups()),
        "child process": Counter(_children()),
        "open file": Counter(_open_files()),
    }


def leaks(before: State, after: State) -> list[str]:
    """Name what is there now and was not, and what is not and was; of the test's own process only what is new."""
    found = []
    for kind in after:
        found += [f"{kind} left behind: {thing}" for thing in (after[kind] - before[kind]).elements()]
        if kind not in ("child process", "open file"):
            found += [f"{kind} taken away: {thing}" for thing in (before[kind] - after[kind]).elements()]
    return found


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which mounts, network, nft rules, cgroups, children or open files are not as they were before it."""
    here = Path(__file__).parent
    if request.path.is_relative_to(here) and request.path.relative_to(here).parts[0] not in ROOMS:
        yield
        return
    before = machine()
    yield
    if found := _settled_leaks(before):
        pytest.fail("\n".join([*found, *_clean()]), pytrace=False)


def _settled_leaks(before: State) -> list[str]:
    found = leaks(before, machine())
    deadline = time.monotonic() + PATIENCE
    while found and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.1)
        found = leaks(before, machine())
    return found


def _clean() -> list[str]:
    """Undo what the ledger names, so that the next test starts clean; return what could not be undone."""
    for module in pkgutil.iter_modules(kernel.__path__):
        if module.name != "launcher":  # the program of a child, not a module
            importlib.import_module(f"labkit.kernel.{module.name}")
    runtimes.load()
    try:
        ledger.undo()
    except ExceptionGroup as group:
        return [f"and could not be undone: {error}" for error in group.exceptions]
    return []


def _mounts() -> Iterator[str]:
    state = str(ledger.state())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        _, _, _, root, mountpoint, options = left.split()[:6]
        fstype, source = right.split()[:2]
        housekeeping = (
            mountpoint == "/run/netns"
            or mountpoint.endswith(NETNS_OF_DOCKER)
            or (fstype in ("cgroup", "cgroup2") and mountpoint.startswith(state))
        )
        if not housekeeping:  # those stay until `ledger.undo`, or, of ip-netns(8), for ever
            yield f"{mountpoint} ({fstype} {source} {root} {options})"


def _lines(*argv: str) -> list[str]:
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    watched = (line for line in lines if not BRIDGES_OF_ENGINES.search(line))
    return [re.sub(r"(valid_lft|preferred_lft|expires) \S+| linkdown\b", "", line) for line in watched]


def _hierarchies() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            yield left.split()[4]


OTHERS = {entry.path for root in _hierarchies() for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("lab")}
"""Cgroups that were there before the first test: what their owners do below them is their business."""


def _cgroups() -> Iterator[str]:
    for root in _hierarchies():
        for directory, children, _ in os.walk(root):
            children[:] = [name for name in children if not SYSTEMD_CGROUP.search(name)]
            kept = [name for name in children if name in HOMES_OF_ENGINES or MACHINE.fullmatch(name)] if directory == root else ()
            yield from (path for name in children if name not in kept and not LAB_HOME.search(path := f"{directory}/{name}"))
            if directory == root:
                children[:] = [name for name in children if f"{root}/{name}" not in OTHERS and not MACHINE.fullmatch(name)]


def _children() -> Iterator[str]:
    for pid, argv in _children_with_launcher():
        if LAUNCHER not in argv:  # one a process, started with its first need
            yield argv or f"{Path(f'/proc/{pid}/comm').read_text().strip()} (ended, not waited for)"


def _children_with_launcher() -> Iterator[tuple[str, str]]:
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text()
        except OSError:  # the thread has ended
            continue
        for pid in children.split():
            try:
                yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue


def _open_files() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if not re.fullmatch(r"/proc/\d+/fd|/sys/fs/cgroup(/.*)?", target):  # cgroup files stay open from one snapshot to the next
            yield re.sub(r":\[\d+\]$", "", target)
    if not any(LAUNCHER in argv for _, argv in _children_with_launcher()):
        yield "socket"  # the one that the launcher will need
