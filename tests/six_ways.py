"""The same root file system run by chroot, unshare, LXC (privileged and not), systemd-nspawn and runc, started by hand."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

BRIDGE = "xraybr0"
GATEWAY = "10.77.3.1"
SLEEP = ["/bin/sleep", "600"]
ADDRESSES = {"lxc": "10.77.3.11", "lxc-unpriv": "10.77.3.12"}
IDMAP = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"


def run(*argv: str | Path, check: bool = True) -> str:
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=check, timeout=30).stdout


def make_rootfs(directory: Path) -> Path:
    """Make a root file system of one static program."""
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp", "run", "root", "usr", "var/tmp"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for name in ("sh", "sleep", "cat"):
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/os-release").write_text("ID=xray\n")
    (directory / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (directory / "dev/console").touch()
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):  # a mapped root could not make them
        (directory / "dev" / name).symlink_to(f"/proc/self/fd{target}")
    return directory


def child_of(pid: int, comm: str = "sleep", seconds: float = 10.0) -> int:
    """Wait until a descendant of a process runs this program, and return its pid."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        queue = [pid]
        while queue:
            current = queue.pop()
            try:
                if Path(f"/proc/{current}/comm").read_text().strip() == comm:
                    return current
                for task in Path(f"/proc/{current}/task").iterdir():
                    queue += map(int, (task / "children").read_text().split())
            except OSError:
                continue
        time.sleep(0.01)
    raise AssertionError(f"no {comm} below pid {pid}")


@contextmanager
def started(*argv: str | Path) -> Iterator[int]:
    """Start a program in the background, wait until sleep runs in it, return the pid of that; end it with all that it started."""
    process = subprocess.Popen([str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    inner = 0
    try:
        inner = child_of(process.pid)
        yield inner
    finally:
        for pid in (inner, process.pid):
            if pid and Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
        process.wait(10)


@contextmanager
def bridge() -> Iterator[None]:
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        run("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        yield
    finally:
        run("ip", "link", "delete", BRIDGE)


SHARED_CGROUPS = ("lxc.pivot", "payload", "supervisor")
"""Cgroups that every container of LXC, or of systemd-nspawn without a unit, uses, and that nobody removes."""


def shared_cgroups() -> set[Path]:
    return {path for name in SHARED_CGROUPS for path in Path("/sys/fs/cgroup").glob(f"**/{name}")}


def remove_new(before: set[Path]) -> None:
    """Remove those of the shared ones that came meanwhile, unless another has come to use them."""
    for directory in sorted(shared_cgroups() - before, reverse=True):
        with suppress(OSError):
            directory.rmdir()


def remove_cgroups(pattern: str, seconds: float = 5.0) -> None:
    """Remove empty cgroups of every hierarchy, as soon as the last process has left them."""
    deadline = time.monotonic() + seconds
    for directory in sorted(Path("/sys/fs/cgroup").glob(f"**/{pattern}"), reverse=True):
        while directory.is_dir():
            try:
                directory.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


@contextmanager
def lxc(name: str, place: Path, rootfs: Path, more: str = "") -> Iterator[int]:
    """Start an LXC container with a veth on the bridge."""
    (place / name).mkdir(parents=True)
    (place / name / "config").write_text(
        f"lxc.uts.name = {name}\nlxc.rootfs.path = dir:{rootfs}\nlxc.net.0.type = veth\nlxc.net.0.link = {BRIDGE}\nlxc.net.0.flags = up\n"
        f"lxc.net.0.ipv4.address = {ADDRESSES[name]}/24\nlxc.net.0.ipv4.gateway = {GATEWAY}\nlxc.mount.auto = proc:mixed\n"
        f"lxc.autodev = 0\nlxc.console.path = none\nlxc.apparmor.profile = unconfined\nlxc.init.cmd = {' '.join(SLEEP)}\n{more}"
    )
    try:
        run("lxc-start", "-P", place, "-n", name)
        yield int(run("lxc-info", "-P", place, "-n", name, "-p", "-H"))
    finally:
        run("lxc-stop", "-P", place, "-n", name, "-k", check=False)
        remove_cgroups(f"lxc.[mp]*.{name}")  # what LXC leaves of it


@contextmanager
def runc(name: str, place: Path, rootfs: Path) -> Iterator[int]:
    """Run an OCI bundle with a limit, a seccomp filter, few capabilities and no_new_privs."""
    bundle = place / "bundle"
    bundle.mkdir()
    run("runc", "spec", "--bundle", bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["root"] = {"path": str(rootfs), "readonly": True}
    config["process"] |= {"terminal": False, "args": SLEEP, "oomScoreAdj": 200}
    config["process"].pop("rlimits", None)
    config["linux"]["cgroupsPath"] = f"/{name}"
    config["linux"]["resources"] |= {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"}]}
    (bundle / "config.json").write_text(json.dumps(config))
    try:
        with started("runc", "--root", place / "runc", "run", "--bundle", bundle, name) as pid:
            yield pid
    finally:
        run("runc", "--root", place / "runc", "delete", "--force", name, check=False)


def settle(seconds: float = 5.0) -> None:
    """Wait until the kernel has found no address twice: until then it lists each as tentative."""
    deadline = time.monotonic() + seconds
    while run("ip", "-6", "-o", "address", "show", "tentative") and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def everything(place: Path) -> Iterator[dict[str, int]]:
    """Run the same root file system in six ways at once; return the pid of each."""
    rootfs = make_rootfs(place / "rootfs")
    with ExitStack() as stack:
        stack.callback(remove_new, shared_cgroups())
        enter = stack.enter_context
        enter(bridge())
        new = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        nspawn = ["systemd-nspawn", "--register=no", "--keep-unit", "--quiet", f"--directory={rootfs}", "--machine=xray-nspawn"]
        wrapped = ["unshare", "--pid", "--fork", "--mount", "--kill-child", "--mount-proc"]
        pids = {
            "chroot": enter(started("chroot", rootfs, *SLEEP)),
            "unshare": enter(started("unshare", *new, f"--root={rootfs}", "--mount-proc", *SLEEP)),
            "lxc": enter(lxc("lxc", place / "lxc", rootfs)),
            "lxc-unpriv": enter(lxc("lxc-unpriv", place / "lxc", rootfs, IDMAP)),
            "nspawn": enter(started(*wrapped, *nspawn, f"--network-bridge={BRIDGE}", *SLEEP)),
            "runc": enter(runc("xray-runc", place, rootfs)),
        }
        settle()
        yield pids
