"""`rkt` as a person types it in a lab: a small program in the lab's PATH that knows where the lab keeps its pods and images.

It needs nothing of its environment, so that it works behind sudo(8) and `systemd-run --slice=machine`, too.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from labkit.appc.command import REAL

_DOOR = """#!/bin/sh
# rkt, with its pods, images and configuration in this lab
export {variables}
exec {command} "$@"
"""


def write(directory: Path, data: Path, local: Path, variables: Mapping[str, str] | None = None) -> Path:
    """Write the program `rkt` into a directory, and return it.

    Args:
        directory: one of PATH; it is there.
        data: rkt's directory, as `--dir` names it.
        local: of the local configuration, with net.d and trustedkeys.
        variables: what it needs beside: how hosts are reached, or which real rkt is run.
    """
    home = Path(__file__).resolve().parents[2]
    given = {"RKT_DIR": str(data), "RKT_LOCAL_CONFIG": str(local), "PYTHONPATH": str(home), **(variables or {})}
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in given.items())
    program = directory / "rkt"
    program.write_text(_DOOR.format(variables=words, command=shlex.join([sys.executable, "-P", "-m", "labkit.appc"])))
    program.chmod(0o755)
    return program


def real(path: str) -> dict[str, str]:
    """Return the variables with which the door leads to a real rkt."""
    return {REAL: path}
