"""The verbs of a lab that only look: read the kernel now, and draw it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from labkit import show
from labkit.course import pictures
from labkit.course.following import Followed, following
from labkit.course.mechanisms import Place
from labkit.course.presenting import shell
from labkit.course.stores import Stores
from labkit.course.targets import HasPid, Target, cgroup_of, target
from labkit.course.watching import runs
from labkit.errors import LabError
from labkit.kernel import cgroups, namespaces, network, roots, xray
from labkit.kernel.cgroups import Cgroup
from labkit.kernel.overlay import Overlay
from labkit.kernel.snapshot import noise
from labkit.kernel.state import ProcessState
from labkit.kernel.union import Union
from labkit.kernel.xray import Machine
from labkit.runtimes import comparison
from labkit.show import View

if TYPE_CHECKING:
    from labkit.course.checkpoints import Checkpoints
    from labkit.course.live import LiveView
    from labkit.course.progress import Progress
    from labkit.show.frames import Scope


class Views(Stores):
    """What a lab can show."""

    checkpoints: Checkpoints
    record: Progress
    live_views: dict[str, LiveView]

    def cgroups(self) -> View:
        """Draw the lab's cgroups, with their values and the processes in them."""
        states = [one for one in cgroups.states(below=f"lab-{self.id}") if not noise.CGROUPS.search(one.path)]
        trees = {one.hierarchy for one in states if not noise.CGROUP_HOME.search(one.path)}
        shown = pictures.without_followers([one for one in states if one.hierarchy in trees], self._named())
        return show.cgroup_tree(shown, self._named(), title=f"cgroups of lab {self.id}")

    def processes(self, *names: str, kinds: Sequence[str] | None = None) -> View:
        """Tabulate processes by namespace: the same letter in a column is the same namespace.

        Args:
            names: of the lab's processes; all of them by default.
            kinds: of namespace; all eight by default.
        """
        chosen = [self.process(name).state() for name in names] if names else self._named()
        host = [one for one in namespaces.processes() if one.pid == os.getpid()]
        reference = replace(host[0], name="this notebook") if host else None
        everyone = [*([reference] if reference else []), *chosen]
        if kinds is None:
            return show.process_table(everyone, reference=reference)
        return show.process_table(everyone, kinds=tuple(kinds), reference=reference)

    def shared(self, one: HasPid, other: HasPid) -> tuple[str, ...]:
        """Return the kinds of namespace that two processes share."""
        return tuple(kind for kind, same in namespaces.shared(one.pid, other.pid).items() if same)

    def own(self, thing: Target) -> tuple[str, ...]:
        """Return the kinds of namespace that a container does not share with this notebook."""
        _, pid = target(thing, self.started, Machine())
        return tuple(kind for kind, same in namespaces.shared(pid, os.getpid()).items() if not same)

    def cgroup_versions(self, *keys: str) -> View:
        """Tabulate the interface files of cgroup v2 beside those of v1.

        Args:
            keys: names of v2; those that the labs use by default.
        """
        chosen = keys or ("cgroup.procs", "cgroup.freeze", "memory.max", "memory.events", "pids.max", "cpu.max", "cpu.weight")
        rows = [(row.v2, " ".join(row.v1) or "nothing", row.note) for row in cgroups.TABLE if row.v2 in chosen]
        return show.table(("cgroup v2", "cgroup v1", "what differs"), rows)

    def namespaces(self, *kinds: str) -> View:
        """Tabulate the namespaces of the machine: kind, processes, owner.

        Args:
            kinds: only these; all eight by default.
        """
        every = namespaces.inventory()
        return show.namespace_table([one for one in every if not kinds or one.kind in kinds], self._named())

    def network(self, *names: str) -> View:
        """Draw network namespaces as boxes: links, addresses, and the cables between them.

        Args:
            names: which, with all that is in them; "host" is the machine's. By default what the lab made: its named network
                namespaces, and its links in the host's.
        """
        states = network.states()
        if names:
            return show.network_picture([state for state in states if state.name in names])
        return show.network_picture(pictures.own_networks(states))

    def union_view(self, union: Overlay | Union) -> View:
        """Draw a union mount as the stack of its branches: where each name really lies."""
        return show.union_stack(pictures.short_union(union.state(), self))

    def layer(self, union: Overlay | Union, path: str) -> str:
        """Return the branch in which a file of a union really lies, as the lab's directory calls it.

        Args:
            union: the mount.
            path: the file, relative to the merged directory.

        Raises:
            LabError: no branch has this name.
        """
        state = union.state()
        for one in state.files:
            if one.path == path:
                return self.short(state.branches[one.layers[0]][1]).removeprefix("$LAB/")
        raise LabError(f"no branch of {self.short(state.merged)} has {path}")

    def xray(self, *things: Target, only: Sequence[str] = ()) -> View:
        """Look through one container, or set several side by side: everything that confines it, from the kernel alone.

        Shell: labkit xray THING

        Args:
            things: a process of the lab or its name, a pid, the name or id of a container of any runtime.
            only: parts alone, of each: namespaces cgroups root mounts network users security processes traces.

        Raises:
            LabError: nothing is called so, or it ended while it was read.
        """
        machine = Machine()
        wanted = [target(thing, self.started, machine) for thing in things]
        return show.xray_views(xray.xrays(wanted, machine=machine), only)

    def _read(self, thing: Target) -> tuple[Machine, str, int]:
        """Read the machine now, and return it with the name and the pid of a thing on it."""
        machine = Machine()
        return machine, *target(thing, self.started, machine)

    def parts(self, thing: Target) -> View:
        """Show who keeps a container: what watches over it and who commands that, by parents and by connected sockets.

        Shell: labkit parts THING

        Args:
            thing: as for `xray`.

        Raises:
            LabError: nothing is called so, or it has ended.
        """
        machine, name, pid = self._read(thing)
        return show.parts_view(name, xray.parts(pid, machine))

    def compare(self, *names: str) -> View:
        """Run one program by every runtime, one after the other, and set side by side what each leaves in the kernel.

        Shell: labkit compare

        Args:
            names: of runtimes; all of them by default.

        Raises:
            LabError: there is no runtime of a name.
        """
        return show.comparison_view(comparison.compare(names))

    def execs(self) -> AbstractContextManager[Followed]:
        """Follow who starts whom while a block runs: `with lab.execs() as trace:`, then `trace` is the sequence.

        What the daemons of the runtimes start meanwhile, for whomever, is in it, too.

        Shell: forkstat -e fork,exec,comm,exit

        Raises:
            UnsupportedError: the kernel tells nothing here: it does in the first PID and user namespaces alone.
        """
        return following()

    def parent(self, thing: Target) -> str:
        """Return what the parent of a container's first process is called.

        Shell: ps -o comm= -p $(ps -o ppid= -p PID)

        Args:
            thing: as for `xray`.

        Raises:
            LabError: nothing is called so, or it has ended.
        """
        machine, name, pid = self._read(thing)
        above = next(iter(machine.ancestors(pid)), None)
        if above is None:
            raise LabError(f"{name} has no parent in sight")
        return above.comm

    def user(self, thing: Target) -> str:
        """Return who a container's first process is outside: the name of the user, or the number of an id that has none.

        Shell: ps -o user= -p PID

        Args:
            thing: as for `xray`.

        Raises:
            LabError: nothing is called so, or it has ended.
        """
        machine, name, pid = self._read(thing)
        member = machine.members.get(pid)
        if member is None:
            raise LabError(f"{name} has ended")
        with suppress(KeyError):
            return pwd.getpwuid(member.uid).pw_name
        return str(member.uid)

    def pid(self, thing: Target) -> int:
        """Return the first process of a container, as the machine numbers it.

        Shell: docker container inspect --format '{{.State.Pid}}' NAME

        Args:
            thing: as for `xray`.

        Raises:
            LabError: nothing is called so, or it does not run.
        """
        return self._read(thing)[2]

    def runs(self, thing: Target, instead_of: int = 0, timeout: float = 20.0) -> bool:
        """Tell whether a container's first process is there.

        Args:
            thing: as for `xray`.
            instead_of: an earlier first process: wait for another one.
            timeout: seconds to wait at most; without an earlier one nothing is waited for.
        """
        return runs(lambda: self.pid(thing), instead_of, timeout)

    def cgroup_of(self, thing: Target) -> Cgroup:
        """Return the lab's cgroup that a container's first process is in: its keys are those of v2, whatever this machine has.

        Shell: cat /proc/PID/cgroup

        Args:
            thing: as for `xray`.

        Raises:
            LabError: nothing is called so, it has ended, or it is in no cgroup of the lab's.
        """
        return cgroup_of(self.pid(thing))

    def processes_in(self, root: Place) -> tuple[int, ...]:
        """Return the processes whose root directory this is, by chroot(2) or by pivot_root(2); the eldest first.

        Shell: find -L /proc/[0-9]*/root -maxdepth 0 -samefile $LAB/ROOT
        """
        return tuple(sorted(roots.processes_in(self.path(root))))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> View:
        """Tabulate values that a cell has read."""
        return show.table(tuple(header), [tuple(str(value) for value in row) for row in rows])

    def live(self, *views: str) -> View | None:
        """Show the kernel's state while it changes, also by what is typed in a terminal beside the notebook.

        Shell: labkit top

        Args:
            views: any of "cgroups", "processes", "networks", "layers", "containers"; all of them by default.

        Returns:
            Outside of a notebook the picture as it is now.

        Raises:
            LabError: there is no view of a name, the lab is closed, or no collector can be started.
        """
        from labkit.course import live
        from labkit.kernel.live import Feed

        self.must_be_open()
        chosen = live.checked(views)
        with Feed() as feed:
            frame = next(feed.frames())
        running = shell()
        settled = live.settled(frame, self._live_scope(settled=True), chosen)
        if running is None:
            return settled
        place = "-".join(("labkit-live", *self.id.split("."), *views))
        if place in self.live_views:  # the cell is run again
            self.live_views.pop(place).close()
        view = live.LiveView(place, f"Live view of lab {self.id}", chosen, lambda: self._live_scope(settled=False))
        self.live_views[place] = view
        view.show(settled, running)
        return None

    def _live_scope(self, *, settled: bool) -> Scope:
        """Return what of a frame is the lab's."""
        from labkit.show.frames import Scope

        names = {process.pid: name for name, process in self.started.items() if process.alive}
        own = pictures.own_networks(network.states(rules=False, patience=0)) if settled else []
        links = {one.inode: frozenset(link.ifname for link in one.links) if one.name == "host" else None for one in own}
        return Scope(f"lab-{self.id}", names, settled, links, folder=str(self.directory))

    def progress(self) -> View:
        """Tabulate the checkpoints of the lab, and how far each is."""
        rows = []
        for checkpoint in self.checkpoints.all:
            standing = self.record.standing(checkpoint.id)
            state = "passed" if standing.passed else "tried" if standing.attempts else "open"
            aid = "solution shown" if standing.solution_shown else f"{standing.hints} hints" if standing.hints else ""
            rows.append((checkpoint.id, checkpoint.task, state, aid))
        return show.table(("checkpoint", "task", "state", "with"), rows)

    def _named(self) -> list[ProcessState]:
        return [process.state() for process in self.started.values() if process.alive]
