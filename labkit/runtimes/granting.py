"""runc where root itself lacks a capability: docker 20 asks for every one where a container is privileged, and the kernel refuses.

A program of that name goes before runc, and strikes what the machine's root has not from what it was told to grant: later versions of
docker ask for no more than that. See: capabilities(7), https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-process
"""

from __future__ import annotations

import shutil
from pathlib import Path

from labkit.kernel import credentials

NAME = "runc-of-this-machine"
"""How daemon.json calls it."""

_SCRIPT = """\
#!/bin/sh
# root of this machine lacks {words}: runc cannot grant what is not there
for word; do
    case $last in
        --bundle | -b) told=$word/config.json ;;
        --process | -p) told=$word ;;
    esac
    last=$word
done
[ -z "$told" ] || sed -i -E 's/"({pattern})",?//g; s/,]/]/g' "$told"
exec {runc} "$@"
"""


def settings(directory: Path) -> dict[str, object]:
    """Return what a daemon.json says so that privileged containers start on this machine: nothing where root has every capability.

    Args:
        directory: where the program is written.
    """
    runc, missing = shutil.which("runc"), lacking()
    if runc is None or not missing:
        return {}
    program = directory / "runc"
    program.write_text(_SCRIPT.format(words=", ".join(missing), pattern="|".join(missing), runc=runc))
    program.chmod(0o755)
    return {"runtimes": {NAME: {"path": str(program)}}, "default-runtime": NAME}


def lacking(last: Path = Path("/proc/sys/kernel/cap_last_cap")) -> tuple[str, ...]:
    """Return the capabilities of this kernel that this process cannot have.

    Args:
        last: the file with the number of the kernel's last capability.
    """
    known = credentials.names_of((1 << int(last.read_text()) + 1) - 1)
    have = credentials.capabilities().get("bounding", ())
    return tuple(name for name in known if name not in have)
