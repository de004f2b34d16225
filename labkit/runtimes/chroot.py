"""chroot(2) alone as a runtime: another root directory, and nothing else that is one's own. It keeps no books; the ledger does.

Root inside can leave it: `BREAK_OUT` is how. See: chroot(2), pivot_root(2), chroot(1)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.host.account import IdMap
from labkit.kernel import processes, rooted
from labkit.kernel.cgroups import subtree
from labkit.kernel.cgroups.delegation import TRACKERS
from labkit.kernel.commands import Completed, run
from labkit.kernel.processes import ending
from labkit.runtimes import ours
from labkit.runtimes.container import Container, pick, running

_KIND = "chroot container"

BREAK_OUT = 'mkdir "x"; chroot "x" or die "chroot: $!\\n"; chdir ".." for 1 .. 64; chroot "."; exec @ARGV or die "exec: $!\\n"'
"""A program for perl(1), which is in every Debian: leave a chroot as root, then run what follows on the command line.

The working directory stays outside of the new root, so `..` is no longer held back there. Its argument is a program.
"""


class Chroot:
    """The runtime that is one system call."""

    name = "chroot"

    def available(self) -> str | None:
        """Return None: root can always call it."""
        return None

    def version(self) -> str:
        """Return the version of chroot(1)."""
        return run(["chroot", "--version"]).stdout.splitlines()[0].split()[-1]

    def id_map(self) -> IdMap:
        """Return an empty map: ids are the host's."""
        return ()

    def list(self) -> tuple[Container, ...]:
        """Return those that a lab made: of others the kernel keeps no list."""
        return tuple(ours.record(_KIND, entry) for entry in ours.entries(_KIND).values())

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program with another root directory.

        Shell:
            chroot ROOTFS PROGRAM &
        """
        real = rooted.must_be_directory(rootfs, argv)
        with ours.making(_KIND, name, self.list(), rootfs=str(real)) as entry:
            process = processes.start(argv, name=name, chroot=real, env=rooted.ENVIRONMENT)
            place = f"{subtree()}/{TRACKERS}/{os.path.basename(process.tracker.path)}"
            entry.identity.update(init=ending.known(process.pid), cgroup=place)
        return ours.record(_KIND, entry)

    def exec(self, name: str, argv: Sequence[str]) -> Completed:
        """Run a second program with the same root directory; there is nothing else that it could share.

        Shell:
            chroot ROOTFS PROGRAM
        """
        container = pick(self.list(), name, self.name)
        running(container)
        if container.rootfs is None:
            raise LabError(f"the root directory of {container} is not known")
        return processes.run(argv, chroot=container.rootfs, env=rooted.ENVIRONMENT, on_error=lambda _: None)

    def stop(self, name: str, timeout: float = 10.0) -> None:
        """Send SIGTERM, and SIGKILL to what is left after `timeout`, descendants included.

        Shell:
            kill PID
        """
        entry = ours.entry(_KIND, name, self.list())
        init = ours.process_of(entry, "init")
        if init:
            ours.terminate(init, timeout)
        ours.end(entry)

    def remove(self, name: str) -> None:
        """Forget a stopped one."""
        entry = ours.entry(_KIND, name, self.list())
        ours.must_be_stopped(ours.record(_KIND, entry))
        ledger.undo_one(entry)


@ledger.undoes(_KIND)
def _undo(entry: ledger.Entry) -> None:
    ours.end(entry)
