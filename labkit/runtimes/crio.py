"""CRI-O: the CRI without containerd. A binary that is there is run with a configuration of the labs, apart from any other.

It is asked by the same client as containerd. Its daemon ends with the lab, and with it all that it keeps.
See: crio(8), crio.conf(5)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import LabError
from labkit.host.cri import crio_program
from labkit.host.services import places
from labkit.kernel import mounts, processes, rooted, syscalls, trees
from labkit.kernel.processes import ending
from labkit.kernel.processes.process import Process
from labkit.runtimes import crio_conf, ours
from labkit.runtimes.container import Container
from labkit.runtimes.cri.runtime import Cri, image, undo, why_not_ready

_DAEMON = "crio daemon"
_PATIENCE = 60.0
_TICK = 0.1


class Crio(Cri):
    """The engine that was made for Kubernetes, and for nothing else."""

    name = "crio"

    def socket(self) -> Path:
        """Return where the labs' CRI-O listens."""
        return directory() / "crio.sock"

    def available(self) -> str | None:
        """Return None where there is a binary of CRI-O."""
        return None if crio_program() else "no command crio in PATH, and LABKIT_CRIO names none"

    def version(self) -> str:
        """Return the version of the binary.

        Shell:
            crio --version
        """
        done = processes.run([self._program(), "--version"], check=True, env=rooted.ENVIRONMENT, shell_line="crio --version")
        return done.stdout.split("\n")[0].removeprefix("crio version ")

    def list(self) -> tuple[Container, ...]:
        """Return the containers of the labs' CRI-O; none where it does not run."""
        return super().list() if self.socket().is_socket() and why_not_ready(self.socket()) is None else ()

    def start(self, rootfs: Path, argv: Sequence[str], name: str) -> Container:
        """Run a program in a pod, as with containerd; the daemon is started where it does not run."""
        real = rooted.must_be_directory(rootfs, argv)
        self.serve()
        return super().start(real, argv, name)

    def serve(self) -> None:
        """Start the daemon with its own configuration, state and socket, and return once it is ready.

        Shell:
            crio --config crio.conf

        Raises:
            LabError: there is no binary; it ended instead, or is not ready in time, with the last line of its log.
        """
        program = self._program()
        if self.socket().is_socket() and why_not_ready(self.socket()) is None:
            return
        with trace.silent():
            trees.make_tree(directory())
        config = configure()
        for old in [entry for entry in ledger.live() if entry.kind == _DAEMON]:
            ledger.undo_one(old)
        with ledger.making(_DAEMON, directory=str(directory())) as entry:
            argv = [program, "--config", str(config), "--config-dir", str(directory() / "crio.conf.d")]
            settings: dict[str, Any] = {"env": rooted.ENVIRONMENT, "cwd": "/", "stdout": str(directory() / "crio.log")}
            process = processes.start(argv, name="crio", shell_line=f"crio --config {config} &", **settings)
            entry.identity.update(init=ending.known(process.pid))
            self._wait(process)

    def import_image(self, entry: ledger.Entry, file: Path) -> None:
        """Copy an archive into the storage of the daemon."""
        where = f"[overlay@{directory()}/root+{directory()}/run]"
        argv = ["skopeo", "copy", "--quiet", f"oci-archive:{file}", f"containers-storage:{where}{image(entry)}"]
        processes.run(argv, check=True, env=rooted.ENVIRONMENT, cwd="/")

    def _program(self) -> str:
        program = crio_program()
        if program is None:
            raise LabError("there is no CRI-O", cause=self.available(), remedy="set LABKIT_CRIO to a binary, or use the runtime cri")
        return program

    def _wait(self, process: Process) -> None:
        deadline = time.monotonic() + _PATIENCE
        while (why := why_not_ready(self.socket())) is not None:
            last = "".join(process.output().strip().splitlines()[-1:]) or None
            if not process.alive:
                raise LabError(f"{process.name} ended with status {process.status}", cause=last)
            if time.monotonic() > deadline:
                raise LabError(f"crio is not ready after {_PATIENCE:g} s: {why}", cause=last)
            time.sleep(_TICK)


def endpoint() -> Cri:
    """Return who serves the CRI to the labs: CRI-O where there is one, else containerd."""
    crio = Crio()
    return Cri() if crio.available() else crio


def directory() -> Path:
    """Return where the labs' CRI-O keeps everything."""
    return ledger.state() / "crio"


def configure(default: str = "runc") -> Path:
    """Write crio.conf for the labs' CRI-O, judged by the rules, and return where it is.

    Args:
        default: the low-level runtime for pods that ask for none: "runc" or "crun".

    Raises:
        LabError: a key cannot stand: a program is not there.
    """
    config = directory() / "crio.conf"
    config.write_text(configuration(directory(), default))
    return config


def configuration(where: Path, default: str = "runc") -> str:
    """Return a crio.conf with this machine's programs, judged by the rules; the file of mounts that it names is written.

    Args:
        where: the directory below which that CRI-O keeps everything.
        default: the low-level runtime for pods that ask for none.

    Raises:
        LabError: a key cannot stand: a program is not there.
    """
    (where / "mounts.conf").write_text("# /SOURCE:/TARGET, a line for each mount that every container gets\n")
    programs = {name: shutil.which(name) for name in ("runc", "crun", "conmon", "pinns")}
    text = crio_conf.configuration(where, programs, places().configuration / "cni", default)
    crio_conf.validate(text)
    return text


@ledger.undoes(_DAEMON)
def _undo_daemon(entry: ledger.Entry) -> None:
    """End the daemon with its monitors and containers, and detach what it mounted below its directory."""
    process = ours.process_of(entry, "init")
    if process:
        ending.end([], root=process)
    for mount in reversed(mounts.at_or_below(entry.key["directory"])):
        syscalls.umount2(mount.mountpoint, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH)


@ledger.undoes("crio container")
def _undo(entry: ledger.Entry) -> None:
    """End a container; where the daemon has ended, what it kept goes with its directory."""
    undo(entry, must_answer=False)
