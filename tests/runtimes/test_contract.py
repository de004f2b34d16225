"""Every runtime keeps the same contract, each point read back from the kernel."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from labkit import ledger, runtimes
from labkit.errors import LabError, SyscallError
from labkit.host.services import Places
from labkit.kernel.cgroups import hierarchies
from labkit.kernel.processes import ending
from labkit.runtimes import Container, Runtime, ours

Root = Callable[[Runtime], Path]

CGROUP = {"cgroup"} if hierarchies().mode == "v2" else set()
"""A namespace that docker and podman make only where cgroups are of version 2 alone."""

OWN = {
    "chroot": set(),
    "containerd": {"ipc", "mnt", "net", "pid", "uts"} | CGROUP,
    "cri": {"ipc", "mnt", "net", "pid", "uts"} | CGROUP,
    "crio": {"ipc", "mnt", "net", "pid", "uts"} | CGROUP,
    "docker": {"ipc", "mnt", "net", "pid", "uts"} | CGROUP,
    "lxc": {"cgroup", "ipc", "mnt", "net", "pid", "uts"},
    "lxc-unprivileged": {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"},
    "lxd": {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"},
    "incus": {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"},
    "nspawn": {"cgroup", "ipc", "mnt", "pid", "uts"},
    "podman": {"ipc", "mnt", "net", "pid", "uts"} | CGROUP,
    "podman-rootless": {"ipc", "mnt", "net", "pid", "user", "uts"} | CGROUP,
    "rkt": {"cgroup", "ipc", "mnt", "net", "pid", "uts"},
    "runc": {"cgroup", "ipc", "mnt", "net", "pid", "uts"},
    "crun": {"cgroup", "ipc", "mnt", "net", "pid", "uts"},
}
"""The namespaces that each runtime makes."""

COPIES = {"cri", "crio", "docker", "incus", "lxd", "rkt"}
"""Runtimes that run a copy of the root directory, as an image; the others run the directory itself."""

MAY_BE_ABSENT = {"crio", "incus"}
"""What no Debian has, or not every one: these are skipped with the reason that was measured. The CRI is tested against containerd, too."""

LOOP = ["sh", "-c", 'trap "exit 0" TERM; while :; do sleep 0.1; done']
"""A program that ends on SIGTERM, also as process 1, which the kernel shields from signals that it does not handle."""


def usable(name: str) -> Runtime:
    """Return a runtime that can be used; skip what a machine may lack."""
    one = runtimes.find(name)
    if name in MAY_BE_ABSENT and (why := one.available()):
        pytest.skip(why)
    assert one.available() is None
    return one


@pytest.fixture(params=runtimes.ALL)
def runtime(request: pytest.FixtureRequest, services: Places) -> Iterator[Runtime]:
    one = usable(request.param)
    yield one
    for container in one.list():
        if container.ours:
            one.stop(container.name, 0)
            one.remove(container.name)


def namespaces(pid: int | str) -> dict[str, str]:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds}


def program(pid: int) -> bytes:
    """Return argv[0] of a process; in the middle of execve(2), while there is none, it is awaited."""
    deadline = time.monotonic() + 5
    while not (line := Path(f"/proc/{pid}/cmdline").read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return line.partition(b"\0")[0]


def named(runtime: Runtime, name: str) -> Container:
    return next(container for container in runtime.list() if container.name == name)


def test_a_container_is_started_seen_entered_stopped_and_removed(runtime: Runtime, root: Root):
    (root(runtime) / "root/note").write_text("inside")
    started = runtime.start(root(runtime), LOOP, "web")
    assert started == named(runtime, "web") == runtimes.locate(f"{runtime.name}:web")
    assert (started.runtime, started.state, started.ours) == (runtime.name, "running", True)
    assert started.rootfs is not None
    assert (started.rootfs / "root/note").read_text() == "inside"
    assert (started.rootfs == root(runtime)) == (runtime.name not in COPIES)
    assert started.pid == runtimes.pid(started)
    here = namespaces("self")
    assert {kind for kind, inode in namespaces(started.pid).items() if inode != here[kind]} == OWN[runtime.name]
    assert Path(f"/proc/{started.pid}/root/root/note").read_text() == "inside"
    assert program(started.pid).endswith(b"sh")
    assert ("/lab-contract/" in Path(f"/proc/{started.pid}/cgroup").read_text()) or Path("/run/systemd/system").is_dir()
    done = runtime.exec("web", ["sh", "-c", "cat /root/note; echo oops >&2; exit 3"])
    assert (done.status, done.stdout, done.stderr) == (3, "inside", "oops\n")
    init = ending.known(started.pid)
    runtime.stop("web")
    assert not ours.lives(init)
    assert (named(runtime, "web").state, named(runtime, "web").pid) == ("stopped", None)
    runtime.stop("web")
    runtime.remove("web")
    assert "web" not in [container.name for container in runtime.list()]
    assert (root(runtime) / "root/note").exists()


def test_exec_is_where_the_container_is(runtime: Runtime, root: Root):
    pid = runtimes.pid(runtime.start(root(runtime), LOOP, "web"))
    kinds = " ".join(sorted(namespaces(pid)))
    seen = runtime.exec("web", ["sh", "-c", f"test -e /proc/self || exit 9; for k in {kinds}; do readlink /proc/self/ns/$k; done"])
    if runtime.name == "chroot":
        assert seen.status == 9  # there is no /proc in it
    else:
        assert seen.stdout.split() == [namespaces(pid)[kind] for kind in kinds.split()]


def test_root_inside_is_who_the_id_map_says(runtime: Runtime, root: Root):
    pid = runtimes.pid(runtime.start(root(runtime), LOOP, "web"))
    assert runtime.exec("web", ["id", "-u"]).stdout == "0\n"
    outside = os.stat(f"/proc/{pid}").st_uid
    assert (outside != 0) == ("user" in OWN[runtime.name])
    assert runtime.name in COPIES or outside == (runtime.id_map()[0][1] if runtime.id_map() else 0)


def test_a_name_that_is_taken_is_refused_and_a_stopped_one_is_started_again(runtime: Runtime, root: Root):
    first = runtime.start(root(runtime), LOOP, "web")
    with pytest.raises(LabError, match=f"the container {runtime.name}:web is there already; cause: its state is running"):
        runtime.start(root(runtime), LOOP, "web")
    assert named(runtime, "web") == first
    runtime.stop("web")
    again = runtime.start(root(runtime), LOOP, "web")
    assert again.state == "running"
    assert again.pid != first.pid


def test_what_cannot_be_is_refused_with_the_name_and_the_remedy(runtime: Runtime, root: Root):
    for name in ("", "..", "a/b", "-n", "x" * 65, "a b"):
        with pytest.raises(LabError, match="cannot be the name of a container"):
            runtime.start(root(runtime), LOOP, name)
    with pytest.raises(SyscallError, match="ENOENT"):
        runtime.start(Path("/nonexistent"), LOOP, "web")
    for verb in (runtime.stop, runtime.remove):
        with pytest.raises(LabError, match=f"no container {runtime.name}:nobody; remedy: there are: "):
            verb("nobody")
    with pytest.raises(LabError, match="has no container 'nobody'"):
        runtime.exec("nobody", ["true"])
    runtime.start(root(runtime), LOOP, "web")
    with pytest.raises(LabError, match="is running; remedy: stop it first"):
        runtime.remove("web")
    runtime.stop("web")
    with pytest.raises(LabError, match="does not run; cause: its state is stopped"):
        runtime.exec("web", ["true"])


def test_a_program_that_cannot_run_is_told_with_its_cause_and_leaves_nothing(runtime: Runtime, root: Root):
    place = root(runtime)
    shutil.copy("/bin/true", place / "root/dynamic")
    (place / "root/plain").write_text("")
    (place / "root/script").write_text("#!/bin/nosuch\n")
    (place / "root/script").chmod(0o755)
    runtime.start(place, LOOP, "web")
    why = {
        "nosuch": "ENOENT.*cause: there is no nosuch in /usr/local/sbin",
        "/root/nosuch": "ENOENT.*cause: there is no file /root/nosuch",
        "/root/dynamic": "ENOENT.*cause: /root/dynamic is there, its loader /lib.* is not",
        "/root/script": "ENOENT.*cause: /root/script is there, its script interpreter /bin/nosuch is not",
        "/root/plain": "EACCES.*cause: .*no execute permission",
    }
    for program, cause in why.items():
        for attempt in (lambda p: runtime.start(place, [p], "two"), lambda p: runtime.exec("web", [p])):
            with pytest.raises(SyscallError, match=cause):
                attempt(program)
    assert "two" not in [container.name for container in runtime.list()]
    assert named(runtime, "web").state == "running"


def test_a_program_that_ends_at_once_is_a_stopped_container_or_an_error_but_no_hang(runtime: Runtime, root: Root):
    try:
        runtime.start(root(runtime), ["false"], "brief")
        ending_of(runtime, "brief")
    except LabError:
        assert "brief" not in [container.name for container in runtime.list()]


def ending_of(runtime: Runtime, name: str) -> None:
    deadline = time.monotonic() + 5
    while named(runtime, name).state != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_its_monitor_is_killed_and_the_clean_up_leaves_nothing(runtime: Runtime, root: Root):
    started = runtime.start(root(runtime), LOOP, "web")
    entry = next(entry for entry in ledger.live() if entry.key.get("name") == "web")
    known = ours.process_of(entry, "supervisor") or ours.process_of(entry, "init")
    init = ending.known(started.pid or 0)
    assert known is not None
    assert init is not None
    os.kill(known.pid, signal.SIGKILL)
    ledger.undo_one(entry)
    assert not ours.lives(init)
    assert "web" not in [container.name for container in runtime.list()]


def killer(state: Path, program: str, over: threading.Event) -> None:
    """Kill the tool that starts a container as soon as it is there: its command line has the state directory of the tests."""
    while not over.is_set():
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if os.fsencode(state) in words and Path(f"/proc/{pid}/comm").read_text().strip() == program[:15]:
                    os.kill(int(pid), signal.SIGKILL)
                    return
            except OSError:
                continue


TOOLS = [
    ("containerd", "ctr"),
    ("cri", "ctr"),
    ("crun", "crun"),
    ("docker", "docker"),
    ("incus", "incus"),
    ("lxc", "lxc-start"),
    ("lxc-unprivileged", "lxc-start"),
    ("lxd", "lxc"),
    ("nspawn", "systemd-nspawn"),
    ("podman", "podman"),
    ("podman-rootless", "podman"),
    ("rkt", "python"),
    ("runc", "runc"),
]


@pytest.mark.parametrize(("name", "program"), TOOLS)
@pytest.mark.usefixtures("services")
def test_the_tool_is_killed_in_the_middle_and_nothing_is_left(name: str, program: str, root: Root):
    one, over = usable(name), threading.Event()
    place = root(one)
    thread = threading.Thread(target=killer, args=(ledger.state(), program, over))
    thread.start()
    try:
        with suppress(LabError):
            one.start(place, ["sleep", "300"], "web")
    finally:
        over.set()
        thread.join()
    for entry in reversed(ledger.live()):
        if "container" in entry.kind or entry.kind == "cgroup":
            ledger.undo_one(entry)
    assert "web" not in [container.name for container in one.list()]
    assert subprocess.run(["pgrep", "-af", str(ledger.state())], capture_output=True, text=True).stdout == ""


STARTER = """
    import os, sys, threading
    from pathlib import Path
    from labkit import ledger, runtimes
    ledger.own("contract")
    runtime = runtimes.find(sys.argv[1])
    if float(sys.argv[3]) > 0:
        threading.Timer(float(sys.argv[3]), os.kill, (os.getpid(), 9)).start()
    sys.stdout.write(f"{runtime.start(Path(sys.argv[2]), ['sleep', '300'], 'web').pid}\\n")
    sys.stdout.flush()
    os.kill(os.getpid(), 9)
"""


def low_level_states() -> set[Path]:
    """Return what runc and crun keep of containers, and the locks of podman: places of the whole machine."""
    return {entry for place in ("/run/runc", "/run/crun", "/dev/shm") if Path(place).is_dir() for entry in Path(place).iterdir()}


@pytest.mark.parametrize("seconds", [0, 0.02, 0.06, 0.12, 0.25])
def test_who_starts_it_is_killed_and_the_clean_up_leaves_nothing(runtime: Runtime, root: Root, seconds: float):
    argv, before = [sys.executable, "-c", textwrap.dedent(STARTER), runtime.name, str(root(runtime)), str(seconds)], low_level_states()
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    known = ending.known(int(done.stdout)) if done.stdout else None
    for entry in reversed(ledger.live()):
        if "container" in entry.kind or entry.kind == "cgroup":
            ledger.undo_one(entry)
    assert known is None or not ours.lives(known)
    assert "web" not in [container.name for container in runtime.list()]
    assert low_level_states() == before
    deadline, argv = time.monotonic() + 10, ["pgrep", "-af", f"{ledger.state()}|lxc monitor.*{ledger.state()}"]
    while running := subprocess.run(argv, capture_output=True, text=True).stdout:
        assert time.monotonic() < deadline, running  # a client that only asked for something ends by itself


def test_containers_of_somebody_else_with_the_same_name_survive(runtime: Runtime, root: Root, tmp_path: Path):
    place = root(runtime)
    canary = subprocess.Popen(["chroot", place, "sleep", "300"])
    config = tmp_path / "web/config"
    config.parent.mkdir()
    config.write_text(f"lxc.rootfs.path = dir:{place}\nlxc.uts.name = web\nlxc.net.0.type = empty\nlxc.cgroup.dir = labkit-canary\n")
    subprocess.run(["lxc-start", "-P", tmp_path, "-n", "web", "--", "sleep", "300"], check=runtime.name == "lxc")
    try:
        runtime.start(place, LOOP, "web")
        runtime.stop("web")
        runtime.remove("web")
        ledger_left = [entry for entry in ledger.live() if "container" in entry.kind]
        assert ledger_left == []
        assert canary.poll() is None
        if runtime.name == "lxc":
            state = subprocess.run(["lxc-info", "-P", tmp_path, "-n", "web", "-sH"], capture_output=True, text=True).stdout
            assert state.split()[-1] == "RUNNING"
    finally:
        canary.kill()
        canary.wait()
        subprocess.run(["lxc-stop", "-k", "-P", tmp_path, "-n", "web"], check=False)
        while subprocess.run(["pgrep", "-f", f"lxc monitor. {tmp_path}"], capture_output=True).stdout:
            time.sleep(0.01)  # it takes its cgroups down
        subprocess.run("find /sys/fs/cgroup/*/labkit-canary /sys/fs/cgroup/labkit-canary -depth -type d -delete 2>/dev/null", shell=True)


def test_a_container_that_no_lab_made_is_listed_and_neither_stopped_nor_removed(root: Root):
    runtime = runtimes.find("lxc")
    directory = Path("/var/lib/lxc/labkit-canary")
    directory.mkdir(parents=True)
    try:
        (directory / "config").write_text("lxc.rootfs.path = dir:/nonexistent\n")
        assert ("labkit-canary", False) in [(container.name, container.ours) for container in runtime.list()]
        for verb in (runtime.stop, runtime.remove):
            with pytest.raises(LabError, match="was not made by a lab and stays as it is"):
                verb("labkit-canary")
        with pytest.raises(LabError, match="is there already; cause: its state is stopped, and no lab made it"):
            runtime.start(root(runtime), LOOP, "labkit-canary")
    finally:
        shutil.rmtree(directory)


def test_an_unknown_runtime_or_container_is_told_with_those_there_are():
    with pytest.raises(LabError, match="there is no runtime 'dockr'; remedy: one of chroot, containerd"):
        runtimes.find("dockr")
    with pytest.raises(LabError, match="there is no container 'nobody'"):
        runtimes.locate("nobody")
