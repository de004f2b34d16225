"""What a new process is to have: checked before anything is made, sent to the launcher, and written as a person would type it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.kernel import syscalls
from labkit.kernel.namespaces import KINDS, kind_named

IdMap = Sequence[tuple[int, int, int]]
"""Lines of uid_map or gid_map: (first id inside, first id outside, how many)."""

PROPAGATIONS = {
    "private": syscalls.MS_REC | syscalls.MS_PRIVATE,
    "slave": syscalls.MS_REC | syscalls.MS_SLAVE,
    "shared": syscalls.MS_REC | syscalls.MS_SHARED,
    "unchanged": 0,
}
_PROC_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


@dataclass(frozen=True)
class Plan:
    """One process to start.

    Attributes:
        argv: program and arguments.
        name: the lab's name for it, or "".
        new: kinds of namespaces made for it.
        enter: kind to the file of the namespace that it enters.
        enter_words: kind to that file as it is typed (`/proc/$clock/ns/net`).
        cgroups: directories of the cgroups that it joins before it runs.
        root: the directory that becomes its root by pivot_root, or None.
        chroot: the directory that it takes for its root by chroot, or None.
        mount_proc: whether it gets a fresh /proc.
        binds: (source, target) of bind mounts, target as the process sees it.
        propagation: of its new mount namespace: a word of PROPAGATIONS.
        uid_map: lines of its user map.
        gid_map: lines of its group map.
        hostname: in its new UTS namespace, or None.
        boottime: seconds that its new time namespace adds to the boot clock.
        monotonic: seconds that it adds to the monotonic clock.
        cwd: its working directory, or None for "/" where its root changes.
        env: its whole environment.
        rlimits: (name such as "RLIMIT_NOFILE", soft, hard).
        tty: whether standard input is to become its controlling terminal.
    """

    argv: tuple[str, ...]
    name: str = ""
    new: tuple[str, ...] = ()
    enter: Mapping[str, str] = field(default_factory=dict)
    enter_words: Mapping[str, str] = field(default_factory=dict)
    cgroups: tuple[str, ...] = ()
    root: str | None = None
    chroot: str | None = None
    mount_proc: bool = False
    binds: tuple[tuple[str, str], ...] = ()
    propagation: str = "private"
    uid_map: IdMap = ()
    gid_map: IdMap = ()
    hostname: str | None = None
    boottime: int = 0
    monotonic: int = 0
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    rlimits: tuple[tuple[str, int, int], ...] = ()
    tty: bool = False

    def check(self) -> None:
        """Refuse what cannot be meant, before anything is made.

        Raises:
            LabError: names the parameter, the cause and the remedy.
        """
        if not self.argv:
            raise LabError("a process needs a program: argv is empty")
        for word in (*self.argv, self.hostname or ""):
            if "\0" in word:
                raise LabError(f"{word!r} holds a NUL character, which ends a string in the kernel")
        for kind in (*self.new, *self.enter):
            kind_named(kind)
        for kind in set(self.new) & set(self.enter):
            raise LabError(f"the {kind} namespace cannot be both new and entered")
        needs = {
            "mount": ("root, mount_proc and binds", self.root or self.mount_proc or self.binds),
            "uts": ("a hostname", self.hostname is not None),
            "user": ("uid_map and gid_map", self.uid_map or self.gid_map),
            "time": ("boottime and monotonic", self.boottime or self.monotonic),
        }
        for kind, (what, wanted) in needs.items():
            if wanted and kind not in self.new:
                raise LabError(f"{what} would change the namespace of others", remedy=f'add "{kind}" to new')
        if "user" in self.enter and "pid" in self.new:
            raise LabError("a new pid namespace cannot be made while a user namespace is entered", remedy="start unshare(1) in there")
        if self.propagation not in PROPAGATIONS:
            raise LabError(f"no propagation is called {self.propagation!r}", remedy=f"one of {', '.join(PROPAGATIONS)}")
        if self.root is not None and self.chroot is not None:
            raise LabError("root and chroot are two ways to the same end", remedy="choose pivot_root (root) or chroot")
        for directory in filter(None, (self.root, self.chroot)):
            if not Path(directory).is_dir():
                raise LabError(f"root {directory} is not a directory")
        for name, path in self.enter.items():
            if not Path(path).exists():
                raise LabError(f"there is no {name} namespace at {path}")

    def request(self) -> dict[str, Any]:
        """Return what the launcher is sent; the tracker and the numbers of the descriptors are added by the sender."""
        early, late = self._flags()
        return {
            "argv": list(self.argv),
            "env": dict(self.env),
            "cwd": self.cwd,
            "flags": early,
            "late": late,
            "cgroups": list(self.cgroups),
            "uid_map": _map_text(self.uid_map),
            "gid_map": _map_text(self.gid_map),
            "become_root": self._becomes_root(),
            "mounts": self.mounts(),
            "root": self.root,
            "chroot": self.chroot,
            "hostname": self.hostname,
            "time_offsets": self._time_offsets(),
            "rlimits": [list(limit) for limit in self.rlimits],
            "tty": self.tty,
        }

    def mounts(self) -> list[tuple[str | None, str, str | None, int, str | None]]:
        """Return the arguments of each mount(2) in the new mount namespace, in their order."""
        if "mount" not in self.new:
            return []
        prefix = self.root or ""
        plan: list[tuple[str | None, str, str | None, int, str | None]] = []
        if PROPAGATIONS[self.propagation]:
            plan.append((None, "/", None, PROPAGATIONS[self.propagation], None))
        if self.root is not None:  # pivot_root wants a mount point
            plan.append((self.root, self.root, None, syscalls.MS_BIND | syscalls.MS_REC, None))
        plan += [(source, prefix + target, None, syscalls.MS_BIND | syscalls.MS_REC, None) for source, target in self.binds]
        if self.mount_proc:
            plan.append(("proc", f"{prefix}/proc", "proc", _PROC_FLAGS, None))
        return plan

    def calls(self) -> tuple[str, ...]:
        """Return the system calls as a person writes them."""
        early, late = self._flags()
        flags = syscalls.flag_names(early, "CLONE_NEW")
        calls = [f"clone3({flags + '|' if early else ''}CLONE_INTO_CGROUP)"]
        calls += [f'setns("{self.enter_words[kind]}", {KINDS[kind].flag_name})' for kind in self.enter]
        calls += [f"unshare({syscalls.flag_names(late, 'CLONE_NEW')})"] if late else []
        calls += [f"mount({', '.join(syscalls.describe_mount(*mount))})" for mount in self.mounts()]
        calls += [f'chdir("{self.root}")', 'pivot_root(".", ".")', 'umount2(".", MNT_DETACH)'] if self.root else []
        calls += [f'chroot("{self.chroot}")', 'chdir("/")'] if self.chroot else []
        calls += [f'sethostname("{self.hostname}")'] if self.hostname is not None else []
        calls += ["setresgid(0, 0, 0)", "setresuid(0, 0, 0)"] if self._becomes_root() else []
        return (*calls, f'execve("{self.argv[0]}")')

    def shell(self, redirect: str = "", *, background: bool = True) -> str:
        """Return the lines to type into bash.

        Args:
            redirect: such as `> clock.log 2>&1`.
            background: end with `&` and keep the pid as `$name`.
        """
        variable = variable_of(self.name)
        keeper = f"{variable or 'process'}_map"
        line, owner, maps = shlex.join(self._inner()), self._mapped_owner(), self._map_lines(keeper)
        if unshare := self._unshare():
            line = f"{shlex.join(unshare)} {line}"
        if maps:  # execve takes the rights from who has no id yet: so the maps come first, then the process
            line = f"nsenter --user=/proc/${keeper}/ns/user {line}"
        if owner and owner != (0, 0):
            line = f"setpriv --reuid={owner[0]} --regid={owner[1]} --clear-groups {line}"
        if self.enter:
            options = " ".join(f"--{KINDS[kind].nsenter}={_word(self.enter_words[kind])}" for kind in self.enter)
            line = f"nsenter {options} {line}"
        if self.cgroups:
            joins = "".join(f"echo $BASHPID > {shlex.quote(directory)}/cgroup.procs; " for directory in self.cgroups)
            line = f"( {joins}exec {line} )"
        line = f"{line} {redirect}".rstrip()
        if not background:
            return "\n".join([*maps, line, *([f"kill ${keeper}"] if maps else [])])
        after = [_until(f"$(readlink /proc/$!/ns/user) = $(readlink /proc/${keeper}/ns/user)"), f"kill ${keeper}"] if maps else []
        if variable and ("pid" in self.new or "pid" in self.enter):  # what bash started is unshare(1), or nsenter(1), which forked
            after.append(f"until {variable}=$(pgrep -P $!); do sleep 0.1; done")
        return "\n".join([*maps, f"{line} &" + (f" {variable}=$!" if variable else ""), *after])

    def _inner(self) -> list[str]:
        """Return the command inside its namespaces; with steps before it, they come first in its script, or in one made for them."""
        prefix = self.root or ""
        steps = []
        if self.root is not None:
            steps.append(f"mount --rbind {shlex.quote(self.root)} {shlex.quote(self.root)}")
        steps += [f"mount --rbind {shlex.quote(source)} {shlex.quote(prefix + target)}" for source, target in self.binds]
        if self.mount_proc and (self.root is not None or steps):
            steps.append(f"mount -t proc proc {shlex.quote(prefix + '/proc')}")
        if self.hostname is not None:
            steps.append(f"hostname {shlex.quote(self.hostname)}")
        changed = self.root or self.chroot
        chroot = ["chroot", changed] if changed is not None else []
        if not steps:
            return [*chroot, *self.argv]
        script = self.argv[2] if self.argv[:2] == ("bash", "-c") and len(self.argv) == 3 and changed is None else ""
        return ["bash", "-c", "; ".join([*steps, script or f"exec {shlex.join([*chroot, *self.argv])}"])]

    def _unshare(self) -> list[str]:
        """Return the words of unshare(1), none where it has nothing to do."""
        owner = self._mapped_owner()
        kinds = [kind for kind in KINDS if kind in self.new and (kind != "user" or owner or not self.uid_map)]
        words = ["unshare", *(f"--{kind}" for kind in kinds)]
        words += ["--fork"] if "pid" in kinds else []
        words += ["--map-root-user"] if owner else []
        words += ["--mount-proc"] if self.mount_proc and self.root is None and not self.binds else []
        words += ["--propagation", self.propagation] if self.propagation != "private" and "mount" in kinds else []
        words += ["--boottime", str(self.boottime)] if self.boottime else []
        words += ["--monotonic", str(self.monotonic)] if self.monotonic else []
        return words if kinds else []

    def _mapped_owner(self) -> tuple[int, int] | None:
        """Return the (uid, gid) outside where only root inside is mapped: what `unshare --map-root-user` can do."""
        if len(self.uid_map) != 1 or len(self.gid_map) != 1:
            return None
        (inside, uid, count), (group, gid, groups) = self.uid_map[0], self.gid_map[0]
        return (uid, gid) if (inside, group, count, groups) == (0, 0, 1, 1) else None

    def _map_lines(self, keeper: str) -> list[str]:
        """Return the lines that make a user namespace and write its maps; none where unshare(1) does."""
        if not self.uid_map or self._mapped_owner():
            return []
        typed = [
            f"unshare --user sleep infinity & {keeper}=$!",
            _until(f"$(readlink /proc/${keeper}/ns/user) != $(readlink /proc/$$/ns/user)"),
        ]
        for file, lines in (("gid_map", self.gid_map), ("uid_map", self.uid_map)):
            text = _map_text(lines).replace("\n", "\\n")
            typed.append(f"printf '{text}' > /proc/${keeper}/{file}")
        return typed

    def _becomes_root(self) -> bool:
        return all(any(first <= 0 < first + count for first, _, count in lines) for lines in (self.uid_map, self.gid_map))

    def _flags(self) -> tuple[int, int]:
        """Return the flags for clone3, and those that the child must unshare itself.

        A cgroup namespace takes its root from where its maker is, so the child makes it once it is in its cgroups; clock
        offsets are fixed when the first process enters; and what an entered user namespace is to own is made there.
        """
        late = set(self.new) & ({"cgroup", "time"} if self.boottime or self.monotonic else {"cgroup"})
        late = set(self.new) if "user" in self.enter else late
        return sum(KINDS[kind].flag for kind in set(self.new) - late), sum(KINDS[kind].flag for kind in late)

    def _time_offsets(self) -> str:
        return f"monotonic {self.monotonic} 0\nboottime {self.boottime} 0\n" if self.boottime or self.monotonic else ""


def variable_of(name: str) -> str:
    """Return the shell variable that holds the pid of the process of this name; "" for a process without a name."""
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{word}" if word[:1].isdigit() else word


def enter_file(kind: str, where: object) -> tuple[str, str]:
    """Return the file of a namespace to enter, and how it is typed.

    Args:
        kind: of the namespace.
        where: a file, a pid, or anything with a `path` or a `pid`.
    """
    pid = where if isinstance(where, int) else getattr(where, "pid", None)
    if isinstance(pid, int):
        variable = variable_of(str(getattr(where, "name", "")))
        base = f"/proc/{{}}/ns/{kind_named(kind).file}"
        return base.format(pid), base.format(f"${variable}" if variable else pid)
    path = os.fspath(getattr(where, "path", where))  # type: ignore[call-overload]
    return str(path), str(path)


def _until(condition: str) -> str:
    return f"until [ {condition} ]; do sleep 0.1; done"


def _word(path: str) -> str:
    return path if re.fullmatch(r"[\w$/.:-]+", path) else shlex.quote(path)


def _map_text(lines: IdMap) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in lines)
