"""The root of an app, built inside: the overlay, what the kernel shows, devices, volumes, and the way into it. Standard library only.

What comes from outside, volumes, is cloned before pivot_root(2) and kept by descriptors: mounts that are nowhere yet. The old root
is then taken off, and only after that something is mounted below the new one: every link of the image leads inside, never out. (While
the old root is stacked on the new one, `..` in a link leads to it.)
See: pivot_root(2), open_tree(2), move_mount(2), mount_setattr(2), overlayfs in the kernel's documentation
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import Any

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x02000000, 0x04000000, 0x08000000, 0x40000000

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_SLAVE, _MNT_DETACH = 0x1000, 0x4000, 1 << 19, 2
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR, _AT_FDCWD = 428, 429, 442, -100
_AT_SYMLINK_NOFOLLOW, _AT_RECURSIVE, _OPEN_TREE_CLONE, _MOUNT_ATTR_RDONLY = 0x100, 0x8000, 1, 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_SYMLINKS = 0x04, 0x10
_QUIET = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
_HIDDEN = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kmsg")
_libc = ctypes.CDLL(None, use_errno=True)


def prepare(plan: dict[str, Any]) -> None:
    """Do what is done once for the whole pod: its name, its kernel parameters, its shared memory.

    Args:
        plan: `hostname`, `sysctl` (file to value), `shm` (the directory for it).
    """
    mount(None, "/", None, _MS_REC | _MS_SLAVE)
    for file, value in plan["sysctl"].items():
        write(file, value)
    if plan["hostname"]:
        name = plan["hostname"].encode()
        call("sethostname", name, len(name))
    mount("shm", plan["shm"], "tmpfs", _QUIET, "mode=1777")


def build(app: dict[str, Any]) -> None:
    """Build the root of an app in a mount namespace of its own, and go into it.

    Args:
        app: `root` (where it is mounted), `overlay` (its options; "" where the root holds a copy), `files` (name to text), `volumes`,
            `shm`, `console` ("" or a terminal), `cgroup_mounts`, `read_only`.
    """
    if app["overlay"]:
        mount("overlay", app["root"], "overlay", 0, app["overlay"])
    else:
        mount(app["root"], app["root"], None, _MS_BIND)
    outside = [cloned(source) for source in (app["shm"], *([app["console"]] if app["console"] else []))]
    sources = [cloned(volume["source"], recursive=volume["recursive"]) for volume in app["volumes"]]
    old = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.chdir(app["root"])
    call("pivot_root", b".", b".")
    os.fchdir(old)
    call("umount2", b".", _MNT_DETACH)
    os.chdir("/")
    for name, text in app["files"].items():  # before /proc is there: a link of the image leads to no file of the kernel
        _write_new(name, text)
    _kernel(app["cgroup_mounts"])
    _devices(outside, terminal=bool(app["console"]))
    _guard()
    for volume, source in zip(app["volumes"], sources, strict=True):
        attach(source, volume["target"])
        if volume["read_only"]:
            make_read_only(volume["target"], recursive=volume["recursive"])
    if app["read_only"]:
        make_read_only("/")
    for fd in (*outside, *sources, old):
        os.close(fd)


def cloned(source: str, *, recursive: bool = False) -> int:
    """Return a descriptor of a bind mount that is nowhere yet; a link is not followed."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_SYMLINK_NOFOLLOW | (_AT_RECURSIVE if recursive else 0)
    return call("syscall", _SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags, shown=source)


def attach(source: int, target: str) -> None:
    """Put a mount that is nowhere yet at a place in the root, which is made where it is not there."""
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.makedirs(target, 0o755, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    place = os.fsencode(target)
    call("syscall", _SYS_MOVE_MOUNT, source, b"", _AT_FDCWD, place, _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_SYMLINKS, shown=target)


def _kernel(cgroup_mounts: list[list[str]]) -> None:
    """Mount /proc and /sys, and in it the app's own cgroup as the root of each hierarchy."""
    for target, fstype in (("/proc", "proc"), ("/sys", "sysfs")):
        _own_directory(target)
        mount(fstype, target, fstype, _QUIET)
    if cgroup_mounts and cgroup_mounts[0][0] != "/sys/fs/cgroup":  # v1: a directory for each hierarchy
        mount("tmpfs", "/sys/fs/cgroup", "tmpfs", _QUIET, "mode=755")
    for target, fstype, options in cgroup_mounts:
        os.makedirs(target, exist_ok=True)
        mount(fstype, target, fstype, _QUIET, options or None)
    make_read_only("/sys", recursive=True)


def _devices(outside: list[int], *, terminal: bool) -> None:
    _own_directory("/dev")
    mount("tmpfs", "/dev", "tmpfs", _MS_NOSUID, "mode=755,size=64k")
    umask = os.umask(0)
    for name, major, minor in (*_DEVICES, *([] if terminal else [("console", 1, 3)])):
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.umask(umask)
    os.mkdir("/dev/pts", 0o755)
    mount("devpts", "/dev/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    for name, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(target, f"/dev/{name}")
    for fd, name in zip(outside, ("shm", "console"), strict=False):
        attach(fd, f"/dev/{name}")


def _guard() -> None:
    """Take away from /proc what a pod has no business with; what this kernel does not have needs no guard."""
    for path in filter(os.path.exists, _READ_ONLY):
        mount(path, path, None, _MS_BIND | _MS_REC)
        make_read_only(path)
    for path in filter(os.path.exists, _HIDDEN):
        mount("/dev/null", path, None, _MS_BIND)


def make_read_only(path: str, *, recursive: bool = False) -> None:
    """Make a mount read-only, this one alone or all below it."""
    attributes = struct.pack("4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    call("syscall", _SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes)), shown=path)


def _own_directory(path: str) -> None:
    """Make a directory of the root, and refuse a link in its place."""
    if not os.path.lexists(path):
        os.mkdir(path, 0o755)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise OSError(20, f"{path} of the image is no directory")


def _write_new(name: str, text: str) -> None:
    os.makedirs(os.path.dirname(name), 0o755, exist_ok=True)
    if os.path.lexists(name):
        os.unlink(name)
    with open(name, "x") as file:
        file.write(text)


def write(path: str, text: str) -> None:
    """Write a value into a file of the kernel."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """Attach a file system, or change a mount.

    See: mount(2)
    """
    words = [None if word is None else os.fsencode(word) for word in (source, target, fstype, data)]
    call("mount", *words[:3], ctypes.c_ulong(flags), words[3], shown=target)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones.

    See: unshare(2)
    """
    call("unshare", flags)


def enter(file: str, nstype: int) -> None:
    """Enter the namespace of a file.

    See: setns(2)
    """
    fd = os.open(file, os.O_RDONLY)
    try:
        call("setns", fd, nstype, shown=file)
    finally:
        os.close(fd)


def prctl(option: int, *arguments: Any) -> None:
    """Set an attribute of this process.

    See: prctl(2)
    """
    words = [one if isinstance(one, bytes) else ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    call("prctl", option, *words)


def buffer(data: bytes) -> Any:
    """Return memory that the kernel may read and write."""
    return ctypes.create_string_buffer(data, len(data))


def filter_program(instructions: Any, count: int) -> bytes:
    """Return the struct sock_fprog of a filter: how many instructions, and where they are."""
    return struct.pack("HxxxxxxP", count, ctypes.addressof(instructions))


def call(name: str, *arguments: Any, shown: str = "") -> int:
    """Call a function of the C library and raise what it refuses, with the place it was about."""
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name} {shown}: {os.strerror(number)}" if shown else f"{name}: {os.strerror(number)}")
    return result
