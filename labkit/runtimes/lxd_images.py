"""An image for LXD or Incus of a root directory: a tarball of metadata.yaml and rootfs, imported under a name of the lab's.

LXC, which they start containers with, splits lxc.init.cmd at each space and knows no quotes. So an image whose program has
words that cannot stand there has two files more, /.labkit/init and a busybox for it, which becomes that program by exec.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import CommandError, UnsupportedError
from labkit.kernel import commands, rooted, trees
from labkit.runtimes.lxd_daemon import Daemon

_PLAIN = re.compile(r"[^\s'\"#]+")
_INIT = ".labkit/init"


def alias(entry: ledger.Entry) -> str:
    """Return the name of the image of a container."""
    return f"labkit-{entry.id}"


def make(daemon: Daemon, entry: ledger.Entry, rootfs: Path, argv: Sequence[str]) -> None:
    """Pack a root directory and import it.

    Shell:
        tar -cf IMAGE.tar metadata.yaml rootfs; lxc image import IMAGE.tar --alias NAME
    """
    with trace.silent():
        work = trees.make_tree(ledger.state() / "lxd-images" / entry.id)
    try:
        (work / "metadata.yaml").write_text(_metadata(entry))
        tar = ["tar", "--create", "--file", str(work / "image.tar"), "--numeric-owner", "--transform", "s,^\\./,rootfs/,S"]
        tar += ["--transform", "s,^\\.$,rootfs,S", "--one-file-system", "-C", str(work), "metadata.yaml", "-C", str(rootfs), "."]
        if not all(map(_PLAIN.fullmatch, argv)):
            tar += ["-C", str(_with_init(work, rootfs, argv)), f"./{_INIT}", "./.labkit/busybox"]
        packed = commands.run(tar, check=False)
        if packed.status > 1:  # 1: a file changed while it was read
            raise CommandError(tar, packed.status, packed.stderr)
        trace.record(f"tar -cf image.tar metadata.yaml --transform s,^./,rootfs/, -C {rootfs} .")
        daemon.type([daemon.names.client, "image", "import", str(work / "image.tar"), "--alias", alias(entry), "--quiet"])
    finally:
        with trace.silent():
            trees.remove_tree(work)


def init_line(argv: Sequence[str]) -> str:
    """Return what LXC runs first in the container."""
    return f"lxc.init.cmd = {' '.join(argv) if all(map(_PLAIN.fullmatch, argv)) else f'/{_INIT}'}"


def forget(daemon: Daemon, entry: ledger.Entry) -> None:
    """Remove the image of a container, where it is there: it has no name yet where its import was cut short."""
    for image in daemon.ask("/1.0/images?recursion=1"):
        if image["properties"].get("description") == _mark(entry):
            daemon.tell([daemon.names.client, "image", "delete", image["fingerprint"]])


def _mark(entry: ledger.Entry) -> str:
    return f"labkit {entry.id}"


def _metadata(entry: ledger.Entry) -> str:
    """Return metadata.yaml, JSON being a part of YAML; the id makes the image one of its own, even of the same directory."""
    properties = {"description": _mark(entry), "os": "labkit"}
    return json.dumps({"architecture": os.uname().machine, "creation_date": int(time.time()), "properties": properties})


def _with_init(work: Path, rootfs: Path, argv: Sequence[str]) -> Path:
    """Make the program that becomes the one asked for, and return the directory in which it lies."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise UnsupportedError("busybox", "no command busybox in PATH", remedy="apt-get install busybox-static")
    init = work / "init" / _INIT
    init.parent.mkdir(parents=True)
    shutil.copy(busybox, init.with_name("busybox"))
    init.write_text(f"#!/.labkit/busybox sh\nexec {shlex.join([_path(rootfs, argv[0]), *argv[1:]])}\n")
    init.chmod(0o755)
    return work / "init"


def _path(rootfs: Path, name: str) -> str:
    """Return a program's path, by which busybox runs the file, and no applet of its own of that name."""
    if "/" in name:
        return name
    found = rooted.program(rootfs, name)
    return next(path for folder in rooted.PATH.split(":") if rooted.resolve(rootfs, path := f"{folder}/{name}") == found)
