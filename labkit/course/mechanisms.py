"""The verbs of a lab that change the kernel: thin, each one call of labkit.kernel with the lab's places filled in."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit import trace
from labkit.course import magics
from labkit.course.cells import SHELL_CELL
from labkit.course.presenting import say
from labkit.course.sessions import Session
from labkit.course.terminal import Terminal
from labkit.course.watching import Watchable, Watched, cpu_share, wait_for, watch
from labkit.course.workplace import Workplace
from labkit.errors import CheckFailed, CommandError, LabError
from labkit.kernel import network, processes
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.network import NetworkNamespace, Ping
from labkit.kernel.overlay import Overlay
from labkit.kernel.processes.process import Process
from labkit.kernel.union import Union

Place = Path | str | int


class Mechanisms(Workplace):
    """What a lab can do to the kernel. An object is found again by its name, so a cell can be run twice."""

    def cgroup(self, name: str, controllers: Sequence[str] = ("freezer",), version: int | None = None) -> Cgroup:
        """Make a cgroup in the lab's part of the hierarchy, or return the one of this name.

        Shell: mkdir /sys/fs/cgroup/freezer/lab-2.1/NAME

        Args:
            name: one directory name.
            controllers: which controllers it needs.
            version: 1 or 2 to insist on a hierarchy; None takes what this machine has.
        """
        self.must_be_open()
        return Cgroup.create(name, controllers=tuple(controllers), version=version)

    def spawn(
        self,
        script: str | Sequence[str],
        name: str,
        *,
        new: Iterable[str] = (),
        enter: Mapping[str, object] | None = None,
        cgroup: Cgroup | Sequence[Cgroup] = (),
        **options: Any,
    ) -> Process:
        """Start a process in the background, its output in `$LAB/NAME.log`; a shell line names it `$NAME`.

        The process of this name is returned when it runs already and was started with the same arguments;
        otherwise it is ended and started anew.

        Args:
            script: a bash script, or program and arguments.
            name: how lab and shell lines call it.
            new: kinds of namespace that it gets for itself: mount uts ipc net pid user cgroup time.
            enter: kind to the namespace that it joins: a NetworkNamespace, a process, a pid or a path.
            cgroup: where it starts.
            options: more of `kernel.processes.start`: root and chroot (relative ones lie in the lab's directory), mount_proc,
                uid_map, gid_map, hostname, cwd, env, ...
        """
        self.must_be_open()
        groups = (cgroup,) if isinstance(cgroup, Cgroup) else tuple(cgroup)
        places = {kind: _place(thing) for kind, thing in (enter or {}).items()}
        wanted = repr((script, tuple(new), sorted(places.items()), [group.name for group in groups], sorted(options.items())))
        running = self.started.get(name)
        if running is not None and running.alive and self._wanted.get(name) == wanted:
            return running
        if running is not None:
            running.kill()
        argv = ["bash", "-c", script] if isinstance(script, str) else list(script)
        options |= {way: self.path(options[way]) for way in ("root", "chroot") if way in options}
        here = None if options.keys() & {"root", "chroot"} else self.directory
        options = {"cwd": here, "env": self.environment(), "stdout": self.directory / f"{name}.log", **options}
        process = processes.start(argv, name=name, new=tuple(new), enter=places, cgroups=groups, **options)
        self.started[name] = process
        self._wanted[name] = wanted
        return process

    def process(self, name: str) -> Process:
        """Return the process that was started under this name.

        Raises:
            LabError: there is none; names those there are.
        """
        if name not in self.started:
            raise LabError(f"no process was started as {name!r}", remedy=f"there are: {', '.join(self.started) or 'none'}")
        return self.started[name]

    def run(self, script: str, *, fails: str | None = None, user: str | None = None) -> None:
        """Run shell lines in the lab's directory and show what they print, as a `%%lab` cell does.

        What they leave in the background goes on until the lab is reset. An interruption ends them with their children.

        Args:
            script: bash, ended at the first line that fails; a line that begins with `%%lab` begins another such cell.
            fails: words that its output must have when it fails, as it must ("" for any); None: it must not fail.
            user: who runs it, in a session of its own (sessions.py); None is root.

        Raises:
            CommandError: it failed, and was not meant to.
            CheckFailed: it did not fail, or with other words.
        """
        self.must_be_open()
        for cell in magics.split(script, magics.Cell("", fails, user)):
            self._run_cell(cell.body, cell.fails, cell.user)

    def _run_cell(self, script: str, fails: str | None, user: str | None) -> None:
        argv = ["bash", "-e", "-u", "-c", script]
        environment, typed = self.environment(), script.strip()
        if user is not None:
            session = Session.open(self, user)
            argv, environment = session.command(argv), session.environment
            typed = f"{shlex.join(session.command(['bash', '-e', '-u']))} << 'END'\n{typed}\nEND"
        trace.record(typed, calls=(SHELL_CELL,))
        with trace.silent():
            done = processes.run(argv, on_output=say, cwd=self.directory, env=environment)
        _judge(script, done.status, done.stdout + done.stderr, fails)

    def watch(self, *things: Watchable, seconds: float = 3.0) -> Watched:
        """Look on for a while: what processes and terminals print meanwhile, and in which state cgroups are then.

        Args:
            things: processes, terminals and cgroups.
            seconds: how long.
        """
        self.must_be_open()
        return watch(things, seconds)

    def wait_for(self, group: Cgroup, key: str, field: str, at_least: int = 1, timeout: float = 10.0) -> int:
        """Wait until a counter of a cgroup has come so far, and return it.

        Args:
            group: the cgroup.
            key: interface file, such as "pids.events".
            field: which counter in it, such as "max".
            at_least: how far.
            timeout: seconds.

        Raises:
            CheckFailed: it did not come so far in time.
        """
        self.must_be_open()
        return wait_for(group, key, field, at_least, timeout)

    def cpu(self, process: Process, seconds: float = 1.0) -> float:
        """Measure how much of one CPU a process uses: 1.0 is all of it, in steps of a tenth.

        Args:
            process: whose time is counted, its children not.
            seconds: how long to measure.
        """
        self.must_be_open()
        return cpu_share(process, seconds)

    def netns(self, name: str) -> NetworkNamespace:
        """Make a named network namespace, or return the lab's one of this name.

        Shell: ip netns add NAME
        """
        self.must_be_open()
        return NetworkNamespace.create(name)

    def veth(
        self, ifname: str, peer: str, netns: NetworkNamespace | str | None = None, peer_netns: NetworkNamespace | str | None = None
    ) -> None:
        """Make two network interfaces that are the ends of one cable.

        Shell: ip link add IFNAME type veth peer name PEER
        """
        self.must_be_open()
        network.veth(ifname, peer, netns=netns, peer_netns=peer_netns)

    def bridge(self, ifname: str, netns: NetworkNamespace | str | None = None) -> None:
        """Make a bridge: a switch in the kernel.

        Shell: ip link add IFNAME type bridge
        """
        self.must_be_open()
        network.bridge(ifname, netns=netns)

    def move(self, ifname: str, to: NetworkNamespace | str, netns: NetworkNamespace | str | None = None) -> None:
        """Move a network interface into another network namespace; one that is there already stays.

        Shell: ip link set IFNAME netns TO
        """
        self.must_be_open()
        network.move(ifname, to, netns=netns)

    def address(self, ifname: str, address: str, netns: NetworkNamespace | str | None = None) -> None:
        """Give an interface an address, such as "192.168.1.1/24"; one that it has already stays.

        Shell: ip addr add ADDRESS dev IFNAME
        """
        self.must_be_open()
        network.address(ifname, address, netns=netns)

    def up(self, ifname: str, netns: NetworkNamespace | str | None = None) -> None:
        """Set an interface up.

        Shell: ip link set dev IFNAME up
        """
        self.must_be_open()
        network.up(ifname, netns=netns)

    def ping(self, address: str, netns: NetworkNamespace | str | None = None, count: int = 1) -> Ping:
        """Send ICMP echo requests and count the answers.

        Shell: ip netns exec NETNS ping -c COUNT ADDRESS
        """
        self.must_be_open()
        return network.ping(address, netns=netns, count=count)

    def overlay(self, lowerdir: Sequence[Place], upperdir: Place, workdir: Place, merged: Place) -> Overlay:
        """Mount an overlay, or return the one that is mounted so; relative directories lie in the lab's directory.

        Shell: mount -t overlay overlay -o lowerdir=...,upperdir=...,workdir=... MERGED

        Args:
            lowerdir: the read-only layers, the topmost first.
            upperdir: the layer that takes what is written.
            workdir: an empty directory beside `upperdir`, for the kernel.
            merged: where it is seen as one.
        """
        self.must_be_open()
        return Overlay([self.path(one) for one in lowerdir], self.path(upperdir), self.path(workdir), self.path(merged)).mount()

    def union(self, branches: Sequence[tuple[Place, str]], merged: Place) -> Union:
        """Mount a union in user space, or return the one that is mounted so; the lab's one with other branches is replaced.

        Shell: unionfs -o cow BRANCH=RW:BRANCH=RO MERGED

        Args:
            branches: (directory, "RW" or "RO"), the topmost first; relative ones lie in the lab's directory.
            merged: where it is seen as one.
        """
        self.must_be_open()
        wanted = Union([(self.path(directory), mode) for directory, mode in branches], self.path(merged))
        if wanted.mounted:
            there = Union.find(self.path(merged))
            if there.command() != wanted.command():
                there.unmount()
        return wanted.mount()

    def path(self, name: Place) -> Path:
        """Return a path in the lab's directory; an absolute one stays as it is."""
        return self.directory / str(name)

    def terminal(self, command: str = "bash", name: str = "terminal", user: str | None = None, **options: Any) -> Terminal:
        """Open an interactive session on a real pseudo-terminal, or return to the one of this name that was detached.

        Args:
            command: what to run in it.
            name: how lab and shell lines call it.
            user: who runs it, in the session that this user has in the lab; None is root.
            options: `prompt`, a regular expression, for what is not a shell; more of `kernel.processes.start`.
        """
        self.must_be_open()
        known = self.terminals.get(name)
        if known is None or not known.alive:
            if user is not None:
                session = Session.open(self, user)
                command = shlex.join(session.command(shlex.split(command)))
                options = {"env": session.environment, **options}
            self.terminals[name] = known = Terminal.open(self, command, name, **options)
            self.started[name] = known.process
        return known


def _place(thing: object) -> Path | int:
    """Return the namespace file, or the pid, that something stands for."""
    if isinstance(thing, NetworkNamespace):
        return Path(thing.path)
    if isinstance(thing, Process):
        return thing.pid
    return thing if isinstance(thing, int) else Path(str(thing))


def _judge(script: str, status: int, output: str, fails: str | None) -> None:
    if fails is None:
        if status != 0:
            raise CommandError(["bash", "-e", "-c", f"{len(script.strip().splitlines())} lines"], status, output)
        return
    if status == 0:
        raise CheckFailed("a line that fails" + (f" with {fails!r}" if fails else ""), "exit status 0")
    if fails not in output:
        raise CheckFailed(f"words {fails!r} in the output", f"exit status {status} and {output.strip()[-200:]!r}")
    say(f"as expected: exit status {status}\n")
