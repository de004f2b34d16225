"""Root file systems for the labs, without the network: a Debian that the set-up has packed, and a small one of busybox.

The Debian is of another release than the host's, with systemd in it, made by vagrant/provision/60-rootfs.sh.
See: debootstrap(8), mmdebstrap(1), tar(1)
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from labkit import ledger, trace
from labkit.errors import CommandError, LabError, UnsupportedError
from labkit.host.account import IdMap
from labkit.host.rootfs import tarball
from labkit.kernel import processes, rooted, trees

IMAGES = ("debian", "busybox")
"""What can be unpacked."""

_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var")
_FILES = {
    "etc/os-release": 'ID=busybox\nPRETTY_NAME="busybox, a root file system of the labs"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
}


def unpack(target: Path, image: str = "debian", id_map: IdMap = ()) -> Path:
    """Make a root file system in a directory of the lab, or return it where it is there already, whole.

    Shell:
        mkdir TARGET; tar -xJf /var/lib/labkit/rootfs/debian.tar.xz -C TARGET

    Args:
        target: a directory that is not there yet.
        image: "debian" or "busybox".
        id_map: whose files they shall be: root's, or those of the ids outside that a runtime maps.

    Raises:
        LabError: no such image; the directory is there and is not the lab's.
        UnsupportedError: the set-up has not made it.
    """
    if image not in IMAGES:
        raise LabError(f"there is no root file system {image!r}", remedy=f"one of {', '.join(IMAGES)}")
    what = {"path": str(target), "image": image, "owner": str(id_map[0][1] if id_map else 0)}
    whole = ledger.find("rootfs", **what)
    if whole is not None and whole.identity and target.is_dir():
        return target
    source = tarball(image) if image == "debian" else _busybox()
    if target.is_dir():
        trees.remove_tree(target)  # one that was left half made
    trees.make_tree(target)
    with ledger.making("rootfs", **what) as entry:
        if image == "debian":
            _extract(source, target, id_map)
        else:
            _assemble(source, target, id_map)
        entry.identity.update(inode=target.stat().st_ino)
    return target


def _extract(source: Path, target: Path, id_map: IdMap) -> None:
    """Run tar(1), in a user namespace where the files shall belong to its ids."""
    line = f"tar -xJf {source} -C {target} --numeric-owner"
    options: dict[str, Any] = {}
    if id_map:
        os.chown(target, id_map[0][1], id_map[0][1])
        options = {"new": ("user",), "uid_map": id_map}
        line = f"unshare --user {_words('users', id_map)} {_words('groups', id_map)} --setuid 0 --setgid 0 {line} --exclude='./dev/*'"
    argv = ["tar", "--extract", "--xz", "--numeric-owner", *(["--exclude=./dev/*"] if id_map else [])]  # no nodes are made there
    with open(source, "rb") as file:
        done = processes.run(argv, stdin=file.fileno(), cwd=target, env=rooted.ENVIRONMENT, shell_line=line, **options)
    if done.status != 0:
        raise CommandError(argv, done.status, done.stdout)


def _words(whose: str, id_map: IdMap) -> str:
    return " ".join(f"--map-{whose}={outside},{inside},{count}" for inside, outside, count in id_map)


def _busybox() -> Path:
    found = shutil.which("busybox")
    if not found:
        raise UnsupportedError("busybox", "no command busybox in PATH", remedy="apt-get install busybox-static")
    return Path(found)


def _assemble(source: Path, target: Path, id_map: IdMap) -> None:
    """Make the directories, the one program and its names."""
    for name in _DIRECTORIES:
        (target / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        (target / name).write_text(text)
    shutil.copy(source, target / "bin/busybox")
    with trace.silent():
        done = processes.run(["/bin/busybox", "--install", "-s"], chroot=target, env=rooted.ENVIRONMENT)
    if done.status != 0:
        raise CommandError(["busybox", "--install"], done.status, done.stdout)
    trace.record(f"mkdir -p {target}/{{{','.join(_DIRECTORIES)}}}")
    for name, text in _FILES.items():
        escaped = text.replace("\n", "\\n")
        trace.record(f"printf {shlex.quote(escaped)} > {target}/{name}")
    trace.record(f"cp {source} {target}/bin; chroot {target} /bin/busybox --install -s")
    if id_map:
        for path in (target, *target.rglob("*")):
            os.lchown(path, id_map[0][1], id_map[0][1])
        trace.record(f"chown -hR {id_map[0][1]}:{id_map[0][1]} {target}")


@ledger.undoes("rootfs", survives_reboot=True)
def _undo(entry: ledger.Entry) -> None:
    """Leave it to the tree, which is in the ledger by itself: this entry only says that it is whole."""
