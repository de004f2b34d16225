"""Trees of Debian packages, of one release, the same on every machine."""

from __future__ import annotations

import functools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import CommandError, LabError
from labkit.kernel import commands

SUITE = "trixie"
RELEASE = "Debian 13"
EPOCH = 1754697600
"""The day of Debian 13, 2025-08-09: no file of an image made here is younger."""

_ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""mmdebstrap mounts /proc, /sys and devices in its tree: where nobody else sees them, and they go with it when this process is killed."""


@dataclass(frozen=True)
class Bench:
    """Where a stand-in is made.

    Attributes:
        work: a directory for what is not wanted afterwards.
        architecture: Debian's and OCI's name: amd64, arm64.
        base: the tar of each layer below, unpacked; empty without a base.
    """

    work: Path
    architecture: str
    base: tuple[Path, ...] = ()

    def debian(self, variant: str, packages: tuple[str, ...], *options: str) -> Path:
        """Make a tree of Debian packages and return it.

        Shell:
            mmdebstrap --variant=VARIANT --include=PACKAGES trixie TREE MIRROR

        Raises:
            LabError: the mirror cannot be reached, or the disk is full.
        """
        tree = self.work / "debian"
        chosen = (f"--variant={variant}", f"--include={','.join(packages)}", f"--architectures={self.architecture}")
        argv = [*_ALONE, "mmdebstrap", *chosen, '--aptopt=Acquire::Retries "3"', *options]
        env = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(self.work)}
        if shutil.which("mmdebstrap") is None:
            raise commands.missing("mmdebstrap")
        try:
            commands.run([*argv, SUITE, str(tree), mirror()], env=env)
        except CommandError as error:
            raise _failed(error, self.work) from error
        return tree


@functools.cache
def mirror() -> str:
    """Return the Debian mirror that this machine's own apt uses, or Debian's."""
    wanted = ["--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian", "Component: main"]
    lines = commands.run(["apt-get", "indextargets", *wanted], check=False).stdout.splitlines()
    return next(iter(lines), "http://deb.debian.org/debian")


@functools.cache
def architecture() -> str:
    """Return this machine's architecture, as Debian and OCI name it.

    Shell:
        dpkg --print-architecture
    """
    return commands.run(["dpkg", "--print-architecture"]).stdout.strip()


def _failed(error: CommandError, work: Path) -> LabError:
    if "No space left on device" in error.stderr:
        return full(work, str(work))
    lines = error.stderr.splitlines()
    told = (line for sign in ("W: Failed to fetch ", "E: Failed to fetch ", "E: ") for line in lines if line.startswith(sign))
    cause = next(told, lines[-1] if lines else None)
    remedy = "a stand-in is built from Debian's packages: connect the network once, or copy a seeded registry"
    return LabError(f"mmdebstrap {SUITE} from {mirror()} failed", cause=cause, remedy=remedy)


def full(work: Path, file: str) -> LabError:
    """Return the error for a disk that is full, with what is free on it."""
    free = shutil.disk_usage(work).free // 2**20
    return LabError(
        f"{file}: no space left on device",
        cause=f"{free} MB are free there, a stand-in needs up to 500 MB while it is made",
        remedy="free disk space, or let LABKIT_STATE name a larger disk",
    )
