"""One function a check: looks at the machine now, says what it found, and the cause only where it was measured."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.host.findings import Finding, amber, green, red

MEBIBYTE = 1 << 20

CAPABILITIES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service net_broadcast "
    "net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice "
    "sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm "
    "block_suspend audit_read perfmon bpf checkpoint_restore"
).split()
"""The names of capabilities(7), each at the place of its bit."""

NEEDED = ("chown", "dac_override", "kill", "mknod", "net_admin", "net_raw", "setgid", "setuid", "sys_admin", "sys_chroot", "sys_ptrace")
"""The capabilities without which no lab runs."""

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@dataclass(frozen=True)
class Machine:
    """Where to look.

    Attributes:
        proc: the root of procfs.
        dev: the directory of devices.
        run: the directory of run-time data.
        modules: where kernel modules lie.
        sys: the root of sysfs.
        etc: the directory of configuration.
        path: where commands are looked for.
        state: where the labs keep what they write.
    """

    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    run: Path = Path("/run")
    modules: Path = Path("/lib/modules")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    path: str = field(default_factory=lambda: os.environ.get("PATH", os.defpath))
    state: Path = field(default_factory=ledger.state)

    def status(self, name: str) -> str:
        """Return a field of /proc/self/status."""
        match = re.search(rf"^{name}:\s*(.*)$", (self.proc / "self/status").read_text(), re.MULTILINE)
        return match.group(1) if match else ""

    def release(self) -> str:
        """Return the release of the kernel."""
        return (self.proc / "sys/kernel/osrelease").read_text().strip()


def root(machine: Machine) -> Finding:
    """Tell whether we are root, in this user namespace at least."""
    user = machine.status("Uid").split()[1]
    if user == "0":
        return green("effective user id 0")
    return red(f"effective user id {user}", "the labs change the kernel's state", "sudo labkit doctor")


def kernel(machine: Machine) -> Finding:
    """Tell whether the kernel has what the labs use: 5.14 brought cgroup.kill, 5.11 overlay in user namespaces."""
    release = machine.release()
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    said = f"Linux {release} on {platform.machine()}"
    if numbers >= (5, 14):
        return green(said)
    return amber(said, "cgroup.kill came with 5.14: processes are killed one by one", "use a kernel of Debian 12 or later")


def capabilities(machine: Machine) -> Finding:
    """Read CapEff: which capabilities are in force."""
    lacking = capabilities_lacking(machine)
    names = ", ".join(f"CAP_{name.upper()}" for name in lacking)
    if not lacking:
        return green(f"all {len(CAPABILITIES)} in force")
    needed = [name for name in lacking if name in NEEDED]
    measured = f"{len(CAPABILITIES) - len(lacking)} of {len(CAPABILITIES)} in force"
    if needed:
        which = ", ".join(f"CAP_{name.upper()}" for name in needed)
        return red(measured, f"{which} missing in CapEff", "run as root; in a container start it with --privileged")
    return green(f"{measured}; no lab needs {names}")


def capabilities_lacking(machine: Machine) -> list[str]:
    """Return the capabilities that are not in force here, by their names without CAP_."""
    mask = int(machine.status("CapEff"), 16)
    return [name for bit, name in enumerate(CAPABILITIES) if not mask >> bit & 1]


def cgroups(machine: Machine) -> Finding:
    """Tell which hierarchies are mounted."""
    from labkit.kernel.cgroups.hierarchy import hierarchies

    found = hierarchies(machine.proc)
    if found.unified is None and not found.v1:
        return red("no cgroup file system is mounted", "/proc/self/mountinfo names none", "mount -t cgroup2 none /sys/fs/cgroup")
    parts = [f"v2 at {found.unified}"] if found.unified else []
    parts += [f"v1: {' '.join(sorted(found.v1))}"] if found.v1 else []
    where = next(iter([found.unified, *found.v1.values()] if found.unified else found.v1.values()))
    if where is not None and os.statvfs(where).f_flag & os.ST_RDONLY:
        return red(f"{found.mode}; {'; '.join(parts)}", f"{where} is mounted read-only", "in a container start it with --privileged")
    return green(f"{found.mode}; {'; '.join(parts)}")


def controller(machine: Machine, name: str) -> Finding:
    """Tell which version of cgroups offers this controller."""
    from labkit.kernel.cgroups.hierarchy import hierarchies

    version = hierarchies(machine.proc).version_of(name)
    if version:
        return green(f"in cgroup v{version}")
    offered = [line.split() for line in (machine.proc / "cgroups").read_text().splitlines()]
    row = next((words for words in offered if words[0] == name), None)
    if row is None:
        return red("in no hierarchy", f"/proc/cgroups has no line {name}: it is not in this kernel", "boot another kernel")
    if row[3] == "0":
        return red("in no hierarchy", f"/proc/cgroups says that {name} is disabled", f"boot without cgroup_disable={name}")
    return red("in no hierarchy", "no mounted hierarchy offers it", "in a container start it with --cgroupns=host --privileged")


def namespaces(machine: Machine) -> Finding:
    """Tell which kinds of namespace this kernel has."""
    there = os.listdir(machine.proc / "self/ns")
    lacking = [kind for kind in KINDS if kind not in there]
    if not lacking:
        return green(f"all {len(KINDS)} kinds")
    return red(f"{len(KINDS) - len(lacking)} kinds", f"/proc/self/ns has no {', '.join(lacking)}", "boot a kernel of Debian 12 or later")


def user_namespaces(machine: Machine) -> Finding:
    """Make a user namespace, and read the limit where that fails."""
    limit = (machine.proc / "sys/user/max_user_namespaces").read_text().strip()
    if limit == "0":
        return red("none may be made", "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=10000")
    failed = _failure(machine, "unshare", "--user", "true")
    return red("none can be made", failed) if failed else green(f"one was made; at most {limit}")


def overlay(machine: Machine) -> Finding:
    """Tell whether the kernel has overlayfs, built in, loaded, or as a module."""
    if re.search(r"\boverlay$", (machine.proc / "filesystems").read_text(), re.MULTILINE):
        return green("in /proc/filesystems")
    modules = machine.modules / machine.release() / "modules.dep"
    if modules.exists() and "/overlay.ko" in modules.read_text():
        return green("a module that the first mount loads")
    return red("not in this kernel", "neither in /proc/filesystems nor a module", "boot a kernel of Debian 12 or later")


def btrfs(machine: Machine) -> Finding:
    """Tell whether the kernel has btrfs, built in, loaded, or as a module, and whether one can be made."""
    found = re.search(r"\bbtrfs$", (machine.proc / "filesystems").read_text(), re.MULTILINE)
    modules = machine.modules / machine.release() / "modules.dep"
    if not found and not (modules.exists() and "/btrfs.ko" in modules.read_text()):
        return red("not in this kernel", "neither in /proc/filesystems nor a module", "boot a kernel of Debian 12 or later")
    if not shutil.which("mkfs.btrfs", path=machine.path):
        return red("in this kernel", "no command mkfs.btrfs in PATH", "apt-get install btrfs-progs")
    return green("in /proc/filesystems" if found else "a module that the first mount loads")


def fuse(machine: Machine) -> Finding:
    """Open /dev/fuse as a FUSE daemon does."""
    device = machine.dev / "fuse"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = "modprobe fuse; in a container start it with --device /dev/fuse"
        return red(f"{device} cannot be opened", error.strerror or str(error), remedy)
    return green(f"{device} opens")


def union(machine: Machine) -> Finding:
    """Tell which union file system in user space is installed."""
    if shutil.which("unionfs", path=machine.path):
        return green("unionfs")
    gone = "no command unionfs in PATH, and Debian 13 has it no longer"
    if shutil.which("fuse-overlayfs", path=machine.path):
        return green(f"fuse-overlayfs, which does the same: {gone}")
    if shutil.which("mergerfs", path=machine.path):
        return amber("mergerfs", f"{gone}; mergerfs has no copy-up and no whiteouts", "apt-get install fuse-overlayfs")
    return red("none", "no unionfs, fuse-overlayfs or mergerfs in PATH", "apt-get install unionfs-fuse, on Debian 13: fuse-overlayfs")


def tool(machine: Machine, name: str) -> Finding:
    """Look for a command in PATH."""
    from labkit.kernel.commands import PACKAGES

    where = shutil.which(name, path=machine.path)
    if where:
        return green(where)
    package = PACKAGES.get(name)
    return red("not there", f"no command {name} in PATH", f"apt-get install {package}" if package else None)


def ping(machine: Machine) -> Finding:
    """Send one echo request to ourselves."""
    missing = tool(machine, "ping")
    if missing.colour != "green":
        return missing
    failed = _failure(machine, "ping", "-c", "1", "-W", "2", "127.0.0.1")
    return red("127.0.0.1 does not answer", failed, "ip link set lo up") if failed else green("127.0.0.1 answers")


def security_modules(machine: Machine) -> Finding:
    """Tell which Linux security modules are in force, and under which profile we run."""
    try:
        profile = (machine.proc / "self/attr/current").read_text().strip("\0\n")
    except OSError:
        return green("none that confines processes")
    if profile in ("", "unconfined") or profile.endswith(":unconfined_t:s0"):
        return green(f"profile {profile or 'none'}")
    remedy = "in a container: --security-opt apparmor=unconfined"
    return amber(f"profile {profile}", "this process is confined: a mount may be refused", remedy)


def connector(machine: Machine) -> Finding:  # noqa: ARG001 - a socket of the running kernel
    """Tell whether the kernel says who starts whom."""
    from labkit.kernel.processes import connector as process_connector

    try:
        with process_connector.opened():
            return green("the kernel tells of fork, exec and exit")
    except LabError as error:
        return amber(error.message, error.cause or "the kernel's answer to PROC_CN_MCAST_LISTEN", error.remedy or "sudo labkit doctor")


def disk(machine: Machine) -> Finding:
    """Measure the space where the labs keep their state."""
    place = machine.state
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize // MEBIBYTE
    measured = f"{free} MiB free at {place}"
    if free < 100:
        return red(measured, "the labs need 100 MiB", "free some space, or set LABKIT_STATE to a directory with more")
    return amber(measured, "less than 500 MiB") if free < 500 else green(measured)


def _failure(machine: Machine, *argv: str) -> str:
    """Run a short command; return why it failed, or nothing."""
    from labkit.kernel.commands import run

    try:
        run(argv, env={"PATH": machine.path}, timeout=10)
    except LabError as error:
        return str(error)
    return ""
