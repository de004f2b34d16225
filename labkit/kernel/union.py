"""Union mounts in user space: unionfs-fuse where it is installed, else fuse-overlayfs or mergerfs.

A FUSE daemon serves each mount. It runs in a cgroup of the lab, so it ends with the lab whatever happens to the
notebook. See: unionfs(8), fuse-overlayfs(1), mergerfs(1), fuse(4)
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import CommandError, LabError, UnsupportedError
from labkit.kernel import branches, mounts, processes, trees, union_programs
from labkit.kernel.cgroups.hierarchy import hierarchies
from labkit.kernel.mounts import ownership as mount_ledger
from labkit.kernel.processes import ending
from labkit.kernel.processes.process import Process
from labkit.kernel.state import MountState, UnionState

PROGRAMS = union_programs.PROGRAMS
_PATIENCE = 10.0  # seconds until the daemon must have mounted, or ended after its mount is gone
_FORBIDDEN = {
    ":": "a colon", "=": "an equals sign", ",": "a comma", "\\": "a backslash", "*": "a star", "?": "a question mark", "[": "a bracket",
}  # fmt: skip


class Union:
    """One union mount, mounted or not.

    Args:
        branches: (directory, "RW" or "RO"), the topmost first. A change of a file in a read-only branch is made in a
            copy in the writable branch above it; mergerfs makes it in place, and only keeps new names out of such a branch.
        merged: the directory where the branches are seen as one.
        program: one of PROGRAMS; None takes the first that is installed and can serve these branches.
    """

    def __init__(self, branches: Sequence[tuple[str | Path, str]], merged: str | Path, program: str | None = None) -> None:
        self.branches = tuple((Path(os.path.abspath(directory)), mode) for directory, mode in branches)
        self.merged = Path(os.path.abspath(merged))
        self._program = program

    @classmethod
    def find(cls, merged: str | Path) -> Union:
        """Return the union that is mounted on a directory, whoever mounted it: its branches are in its daemon's command line.

        Raises:
            LabError: none is mounted there, or its daemon cannot be found.
        """
        where = os.path.realpath(merged)
        mount = mounts.at(where)
        program = mount.fstype.removeprefix("fuse.") if mount else ""
        if program not in PROGRAMS:
            raise LabError(f"no union is mounted on {merged}")
        pid = union_programs.daemon(program, where)
        if pid is None:
            raise LabError(f"the daemon of the union on {merged} does not run", remedy=f"umount {merged}")
        return cls(union_programs.served(program, pid), where, program)

    @property
    def program(self) -> str:
        """What serves it: as asked for, else the first of PROGRAMS that is installed and can.

        Raises:
            LabError: it is unknown, or cannot serve these branches.
            UnsupportedError: it is not installed.
        """
        return union_programs.choose(self._program, self.branches)

    @property
    def mounted(self) -> bool:
        """Whether a union is mounted on `merged` now."""
        return self._mount() is not None

    def command(self) -> list[str]:
        """Return the command that mounts it, as typed: its daemon goes to the background."""
        return union_programs.command(self.program, self.branches, self.merged)

    def mount(self) -> Union:
        """Mount it; where it is mounted already, nothing is done. A mount whose daemon is dead is replaced.

        Shell:
            unionfs -o cow dir1=RW:dir2=RO union

        Returns:
            Itself.

        Raises:
            LabError: a directory is not there or cannot be written on the command line; `merged` has another mount.
            UnsupportedError: none of PROGRAMS, or no /dev/fuse.
            CommandError: the daemon ended without mounting.
        """
        self._check()
        (program, *words), where = self.command(), os.path.realpath(self.merged)
        work, line = union_programs.work_directory(program, self.branches), shlex.join([program, *words])
        line = f"mkdir -p {shlex.quote(str(work))} && {line}" if work else line
        dead = mounts.at(where)
        if dead is not None and mounts.is_ours(dead) and _is_dead(where):
            mounts.unmount(where)
        if mounts.must_be_free(where, line, self._is_served_alike) is not None:
            return self
        if work:
            with trace.silent():
                trees.make_tree(work)
        with ledger.making("mount", target=where) as entry:
            # In the foreground the process that we start is the daemon itself, so we know when it ends and why.
            daemon = processes.start([program, "-f", *words], name="union", cwd="/", shell_line=line)
            try:
                _await_mount(daemon, program, where)
                mount_ledger.identify(entry, where, line)
            except BaseException:
                with trace.silent():
                    daemon.kill()
                raise
        return self

    def unmount(self) -> None:
        """Detach it and wait until its daemon has ended; where it is not mounted, nothing is done.

        Shell:
            umount union

        Raises:
            LabError: what is mounted there is not the lab's.
            SyscallError: EBUSY, with the processes that use it.
        """
        where = os.path.realpath(self.merged)
        mount = mounts.at(where)
        if mount is None:
            return
        pid = union_programs.daemon(mount.fstype.removeprefix("fuse."), where)
        daemon = ending.known(pid) if pid is not None else None
        tracker = _tracker(daemon.pid) if daemon is not None else None
        mounts.unmount(where)
        if daemon is not None:
            _await_end(daemon)
        if tracker is not None:
            ending.remove(tracker)

    def state(self) -> UnionState:
        """Return the branches and every name in them, read from the branches themselves."""
        mount = self._mount()
        fstype = mount.fstype if mount else f"fuse.{self.program}"
        read = {"fuse.unionfs": branches.unionfs, "fuse.fuse-overlayfs": branches.fuse_overlay}.get(fstype, branches.plain)
        return UnionState(
            fstype=fstype,
            merged=str(self.merged),
            branches=tuple(("branch", str(directory)) for directory, _ in self.branches),
            mounted=mount is not None,
            files=branches.walk([directory for directory, _ in self.branches], read),
        )

    def __repr__(self) -> str:
        return f"<union on {self.merged}, {'mounted' if self.mounted else 'not mounted'}>"

    def _mount(self) -> MountState | None:
        there = mounts.at(os.path.realpath(self.merged))
        return there if there is not None and there.fstype.removeprefix("fuse.") in PROGRAMS else None

    def _is_served_alike(self, mount: MountState) -> bool:
        """Return whether a mount that was typed by hand has our branches."""
        program = mount.fstype.removeprefix("fuse.")
        pid = union_programs.daemon(program, mount.mountpoint)
        return pid is not None and [one for one, _ in union_programs.served(program, pid)] == [one for one, _ in self.branches]

    def _check(self) -> None:
        """Refuse, before anything is changed, what cannot be mounted."""
        if not self.branches:
            raise LabError("union: no branch is given", remedy='at least one ("dir1", "RW")')
        for directory, mode in self.branches:
            if mode not in ("RW", "RO"):
                raise LabError(f"union: branch {directory} has mode {mode!r}", remedy='"RW" or "RO"')
            bad = next((words for letter, words in _FORBIDDEN.items() if letter in str(directory)), None)
            if bad:
                why = f"union: {str(directory)!r} has {bad} in its name, which a list of branches cannot carry"
                raise LabError(why, remedy="rename it")
        for directory in (*(one for one, _ in self.branches), self.merged):
            if not os.path.isdir(directory) and not _is_dead(str(directory)):
                what = "no directory" if os.path.lexists(directory) else "not there"
                raise LabError(f"union: {directory} is {what}", remedy=f"mkdir -p {shlex.quote(str(directory))}")
        if not os.path.exists("/dev/fuse"):
            raise UnsupportedError("/dev/fuse", "no such device", remedy="modprobe fuse")


def _is_dead(merged: str) -> bool:
    """Return whether a FUSE mount is there that nobody serves any more."""
    try:
        os.statvfs(merged)  # always asks the daemon, where stat(2) may be answered from what it said before
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _await_mount(daemon: Process, program: str, where: str) -> None:
    """Wait until the daemon has mounted; the kernel wakes a poll of mountinfo when mounts change.

    Raises:
        CommandError: it ended first.
        LabError: it did neither in time.
    """
    deadline = time.monotonic() + _PATIENCE
    with open("/proc/self/mountinfo") as info:
        watch = select.poll()
        watch.register(info, select.POLLPRI)
        watch.register(daemon.fileno(), select.POLLIN)
        while mounts.at(where) is None or _is_dead(where):
            if not daemon.alive:
                raise CommandError([program], daemon.wait(), daemon.output())
            if time.monotonic() > deadline:
                raise LabError(f"{program} has mounted nothing on {where} in {_PATIENCE:g} s", cause=daemon.output().strip() or None)
            watch.poll(100)


def _await_end(daemon: ending.Known) -> None:
    """Wait until a daemon has ended by itself, as it does once its mount is gone; then end it."""
    try:
        pidfd = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        if ending.known(daemon.pid) == daemon and not ended.poll(_PATIENCE * 1000):
            ending.kill([daemon])
    finally:
        os.close(pidfd)


def _tracker(pid: int) -> ending.Tracker | None:
    """Return the cgroup of the lab that a daemon was started in."""
    unified = hierarchies().unified
    path = next((line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")), "")
    if unified is None or "/processes/" not in path:
        return None
    directory = f"{unified}{path}"
    return ending.Tracker(directory, os.stat(directory).st_ino)
