"""The rows: what is compared with what. Each function sets up its ground, lets the contestants take turns, and clears it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from benchmarks.live import live
from benchmarks.measure import Contestant, Result, Row, alternate, command, limit, said, timed
from benchmarks.pods import pods
from labkit.kernel import syscalls

_QUICK = "where system calls are quick, what Python does between them weighs more: on an AMD EPYC it was 1.18 and 1.23 of the limit"
KINDS = ("mount", "uts", "ipc", "net", "pid", "cgroup")
"""Namespaces of the container that is started in each way."""


def importing(_room: Path, _limits: Path) -> list[Result]:
    """Compare `import labkit` with a bare interpreter."""
    row = Row("`import labkit` in a fresh interpreter", 1.5, "bare python")
    return [alternate(row, {
        "labkit": command(sys.executable, "-c", "import labkit"),
        "bare python": command(sys.executable, "-c", "pass"),
    })]  # fmt: skip


def starting(room: Path, limits: Path) -> list[Result]:
    """Compare ways to run `true` in six new namespaces with a root of its own, from a process of 150 MB."""
    from labkit.kernel import processes

    bundle = _bundle(room, limits)
    root = bundle / "rootfs"

    def start() -> None:
        processes.start(["/true"], new=KINDS, root=root, mount_proc=True).wait(10)

    options = [f"--{kind}" for kind in KINDS]
    work = "`true` in 6 new namespaces with pivot_root and /proc, start to end, from a process of 150 MB"
    reason = (
        "beyond the system calls of the limit a cgroup is made in which the process can be ended with all it starts; the request and"
        " its two answers pass between two Python processes, and the fork of the smallest Python costs 0.25 ms more than that of a C"
        " program (docs/decisions/5-one-message-to-the-launcher.md)"
    )
    row = Row(work, 1.1, "limit", reason=reason)
    return [alternate(row, {
        "labkit": timed(start),
        "limit": command(str(limits / "start"), str(root), "/true"),
        "unshare -R": command("unshare", *options, "--fork", "--mount-proc", "-R", str(root), "/true"),
        "crun without cgroups": _where_crun_runs(command("crun", "--cgroup-manager=disabled", "run", "-b", str(bundle), "labkit-bench")),
    })]  # fmt: skip


def _where_crun_runs(contestant: Contestant) -> Contestant:
    """Let crun see v2 alone, also on a machine with both versions, which it refuses: in a thread with mounts of its own."""

    def hide_v1() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")

    thread = ThreadPoolExecutor(1, initializer=hide_v1)
    return lambda: thread.submit(contestant).result()


def _bundle(room: Path, limits: Path) -> Path:
    bundle = room / "bundle"
    for directory in ("proc", "dev"):  # crun looks for a /dev
        (bundle / "rootfs" / directory).mkdir(parents=True, exist_ok=True)
    (bundle / "rootfs" / "true").write_bytes((limits / "true").read_bytes())
    (bundle / "rootfs" / "true").chmod(0o755)
    config = {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {"args": ["/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind.replace("net", "network")} for kind in KINDS]},
    }
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


@contextmanager
def _crowd(count: int, limits: Path) -> Iterator[None]:
    crowd = subprocess.Popen([str(limits / "crowd"), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert crowd.stdin is not None
    assert crowd.stdout is not None
    try:
        if crowd.stdout.readline() != "ready\n":
            raise RuntimeError(f"the machine does not take {count} more processes")
        yield
    finally:
        crowd.stdin.close()
        crowd.stdout.close()
        crowd.wait()


def namespaces(_: Path, limits: Path) -> list[Result]:
    """Compare ways to read the namespaces of all processes."""
    from labkit.kernel.namespaces import inventory

    results = []
    for count, rounds in ((1000, 10), (5000, 5)):
        with _crowd(count, limits):
            contestants = {"labkit": timed(inventory), "limit": limit(str(limits / "readlinks")), "lsns": command("lsns")}
            result = alternate(Row(f"namespaces of {count:,} processes", 1.3, "limit", rounds, reason=_QUICK), contestants)
            results.append(result)
    beside_lsns = Result(Row("the same, beside lsns", 0.15, "lsns"), _without(results[-1], "limit"))
    return [*results, beside_lsns]


def _without(result: Result, name: str) -> dict[str, float]:
    return {other: seconds for other, seconds in result.seconds.items() if other != name}


def cgroup_values(_: Path, limits: Path) -> list[Result]:
    """Compare ways to read the values of 1,000 cgroups, in the hierarchies that this machine has."""
    from labkit.kernel import cgroups

    homes = list(dict.fromkeys(cgroups.home(controller) for controller in ("freezer", "memory", "pids")))
    made = [home / f"bench-{number}" for home in homes for number in range(1000 // len(homes))]
    for directory in made:
        directory.mkdir()
    try:
        files = "".join(f"{each.directory}/{file}\n" for each in cgroups.states() for file in each.values)
        work = f"values of {len(made):,} cgroups ({len(files.splitlines()):,} files, {len(homes)} hierarchies)"
        reason = (
            "the limit reads files that are open already, and only those; labkit also looks at each directory for new children;"
            " who is in each is left out here, and takes a snapshot about as long again"
        )
        return [alternate(Row(work, 2.0, "limit", 10, reason=reason), {
            "labkit": timed(lambda: cgroups.states(procs=False)),
            "limit": limit(str(limits / "values"), text=files),
            "systemd-cgtop": command("systemd-cgtop", "--batch", "--iterations=1", "--raw"),
        })]  # fmt: skip
    finally:
        for directory in made:
            directory.rmdir()


COURSE = """netns add bench1
netns add bench2
link add bveth1 type veth peer name bveth2
link set bveth1 netns bench1
link set bveth2 netns bench2
-n bench1 link set dev bveth1 up
-n bench2 link set dev bveth2 up
-n bench1 address add 192.168.1.1/24 dev bveth1
-n bench2 address add 192.168.1.2/24 dev bveth2
netns delete bench1
netns delete bench2"""
"""The order of the course, for ip(8), one process a line."""


def network(_: Path, limits: Path) -> list[Result]:
    """Compare ways to make two network namespaces joined by a veth pair with addresses, up, and to delete them."""
    from labkit.kernel import network as net
    from labkit.kernel.network import NetworkNamespace

    def labkit() -> None:
        one, two = NetworkNamespace.create("bench1"), NetworkNamespace.create("bench2")
        net.veth("bveth1", "bveth2", one, two)
        for ifname, address, netns in (("bveth1", "192.168.1.1/24", one), ("bveth2", "192.168.1.2/24", two)):
            net.address(ifname, address, netns)
            net.up(ifname, netns)
        one.delete()
        two.delete()

    def course() -> None:
        for line in COURSE.splitlines():
            said("ip", *line.split())

    def batches() -> None:
        for options, lines in _BATCHES:
            said("ip", *options, "-batch", "-", text=lines)

    reason = (
        "the limit leaves its namespaces without a name; labkit gives them one, as ip-netns(8) does, and before each thing is"
        " there it is in the ledger, synced to the disk"
    )
    row = Row("two network namespaces, veth, addresses, up, delete", 10, "limit", 12, reason=reason)
    result = alternate(row, {
        "labkit": _settled(labkit),
        "limit": limit(str(limits / "network")),
        "ip as the course types it": _settled(course),
        "ip -batch": _settled(batches),
    })  # fmt: skip
    course_row = Row("the same, beside the commands of the course", 0.25, "ip as the course types it")
    return [result, Result(course_row, _without(result, "limit"))]


def _batch(beginning: str) -> str:
    lines = [line for line in COURSE.splitlines() if line.startswith(beginning)]
    return "\n".join(line.removeprefix(beginning if beginning.startswith("-n") else "") for line in lines) + "\n"


_BATCHES = (
    ((), _batch("netns add") + _batch("link")),
    (("-n", "bench1"), _batch("-n bench1 ")),
    (("-n", "bench2"), _batch("-n bench2 ")),
    ((), _batch("netns delete")),
)
"""The same lines with one process a namespace: options of ip(8), and what it reads."""


def _settled(work: Callable[[], object]) -> Contestant:
    """Time the work, and wait outside of the time until the kernel has taken the links down: the next turn begins on clean ground."""
    contestant = timed(work)

    def once() -> float:
        seconds = contestant()
        deadline = time.monotonic() + 5
        while any(Path(f"/sys/class/net/{name}").exists() for name in ("bveth1", "bveth2")) and time.monotonic() < deadline:
            time.sleep(0.005)
        return seconds

    return once


def network_states(_: Path, _limits: Path) -> list[Result]:
    """Compare reading the links, addresses and routes of fifty network namespaces with the bare dumps of them."""
    from labkit.kernel import network as net
    from labkit.kernel.network import NetworkNamespace, netlink

    made = [NetworkNamespace.create(f"bench{number}") for number in range(50)]
    for one, other in zip(made[::2], made[1::2], strict=True):
        net.veth("eth0", "eth0", one, other)
    reason = "the dumps go by sockets that are open already, and nothing of them is understood"
    row = Row("links, addresses and routes of 50 network namespaces", 17, "the dumps alone", reason=reason)
    with ExitStack() as opened:
        routes = [netlink.within(f"/run/netns/{each.name}", netlink.NetlinkSocket) for each in made]
        for route in routes:
            opened.push(route)

        def dumps() -> None:
            for route in routes:
                for kind, size in ((netlink.RTM_GETLINK, 16), (netlink.RTM_GETADDR, 8), (netlink.RTM_GETROUTE, 12)):
                    route.dump(kind, bytes(size))

        return [alternate(row, {"labkit": timed(lambda: net.states(namespaces=())), "the dumps alone": timed(dumps)})]


def freezing(_: Path, limits: Path) -> list[Result]:
    """Compare ways to freeze a process and to know that it is frozen, in each version that this machine has."""
    from labkit.errors import UnsupportedError

    results = []
    for version in (1, 2):
        with suppress(UnsupportedError):
            results.append(_freezing(version, limits))
    return results


def _freezing(version: int, limits: Path) -> Result:
    from labkit.kernel import processes
    from labkit.kernel.cgroups import Cgroup

    group = Cgroup.create(f"bench-v{version}", controllers=("freezer",), version=version)
    process = processes.start(["sleep", "1000"])
    group.attach(process)

    def freeze() -> float:
        seconds = timed(group.freeze)()
        group.thaw()
        return seconds

    row = Row(f"freeze to frozen, cgroup v{version}", None, "", 40, limit_seconds=0.001)
    try:
        return alternate(row, {"labkit": freeze, "limit": limit(str(limits / "freeze"), str(group.path), str(version))})
    finally:
        process.kill()


def overlay(room: Path, limits: Path) -> list[Result]:
    """Compare ways to mount an overlay, copy one file up, and unmount."""
    from labkit.kernel.overlay import Overlay

    lower, upper, work, merged = (room / "overlay" / name for name in ("lower", "upper", "work", "merged"))
    for directory in (lower, upper, work, merged):
        directory.mkdir(parents=True)
    (lower / "file").write_text("x" * 4096)
    union = Overlay(lowerdir=[lower], upperdir=upper, workdir=work, merged=merged)
    data = f"lowerdir={lower},upperdir={upper},workdir={work}"

    def append() -> None:
        with (merged / "file").open("a") as file:
            file.write("x")

    def labkit() -> None:
        union.mount()
        append()
        union.unmount()

    def tools() -> None:
        said("mount", "-t", "overlay", "-o", data, "overlay", str(merged))
        append()
        said("umount", str(merged))

    reason = (
        "the mount is in the ledger, synced to the disk, before it is there, and mountinfo is read once to know it again and once to"
        " refuse what is not ours"
    )
    row = Row("overlay: mount, copy-up, unmount", 1.0, "limit", 20, reason=reason)
    return [alternate(row, {
        "labkit": _fresh(upper, timed(labkit)),
        "limit": _fresh(upper, limit(str(limits / "overlay"), *map(str, (lower, upper, work, merged)), "file")),
        "mount and umount": _fresh(upper, timed(tools)),
    })]  # fmt: skip


def _fresh(upper: Path, contestant: Contestant) -> Contestant:
    """Let the upper directory be empty at each turn, outside of the time, so that each turn copies the file up."""

    def once() -> float:
        seconds = contestant()
        (upper / "file").unlink()
        return seconds

    return once


def snapshots(_: Path, limits: Path) -> list[Result]:
    """Take the time of a snapshot of the whole machine, and of the difference of two."""
    from labkit.kernel.snapshot import diff, snapshot

    before = snapshot()
    results = [
        alternate(Row("snapshot of the machine as it is", None, "", 20, limit_seconds=0.05), {"labkit": timed(snapshot)}),
        alternate(Row("difference of two snapshots", None, "", 20, limit_seconds=0.016), {"labkit": timed(lambda: diff(before, before))}),
    ]
    with _crowd(1000, limits):
        results.append(alternate(Row("snapshot with 1,000 more processes", None, "", 5), {"labkit": timed(snapshot)}))
    return results


def runtimes(_room: Path, _limits: Path) -> list[Result]:
    """Compare the starts of a container by every runtime that works here, each until its program runs."""
    from labkit.runtimes import ALL, comparison

    found = comparison.compare(starts=1).rows
    for one in found:
        if one.seconds is None:
            print(f"(without {one.runtime}: {one.absent or one.failed})", end=" ")
    working = [one.runtime for one in found if one.seconds is not None]
    first = next(name for name in ("runc", *ALL) if name in working)
    row = Row("`sleep` in a root file system of busybox, until it runs", None, "", 7, first=first)
    return [alternate(row, {name: partial(comparison.seconds_to_start, name) for name in working})]


ROWS: dict[str, Callable[[Path, Path], list[Result]]] = {
    "import": importing,
    "start": starting,
    "namespaces": namespaces,
    "cgroup values": cgroup_values,
    "network": network,
    "network states": network_states,
    "freeze": freezing,
    "overlay": overlay,
    "snapshot": snapshots,
    "live": live,
    "pods": pods,
    "runtimes": runtimes,
}
"""In the order of the table; a word of the name picks a row."""
