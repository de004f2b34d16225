"""Run the tools of the field as themselves: short commands, argument lists only, errors with what they said."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import CommandError, LabError, UnsupportedError

PACKAGES = {
    "buildah": "buildah",
    "bwrap": "bubblewrap",
    "cgexec": "cgroup-tools",
    "crun": "crun",
    "ctr": "containerd",
    "debootstrap": "debootstrap",
    "dnsmasq": "dnsmasq-base",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "fuse-overlayfs": "fuse-overlayfs",
    "fusermount": "fuse3",
    "fusermount3": "fuse3",
    "gpg": "gpg",
    "gpgconf": "gpgconf",
    "gpgv": "gpgv",
    "ifconfig": "net-tools",
    "incus": "incus-base",
    "ip": "iproute2",
    "iptables-restore": "iptables",
    "iptables-save": "iptables",
    "lscgroup": "cgroup-tools",
    "lxc": "lxd",
    "lxc-start": "lxc",
    "lsns": "util-linux",
    "mergerfs": "mergerfs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "ping": "iputils-ping",
    "podman": "podman",
    "runc": "runc",
    "skopeo": "skopeo",
    "systemd-nspawn": "systemd-container",
    "tcpdump": "tcpdump",
    "unionfs": "unionfs-fuse",
    "unshare": "util-linux",
}
"""Debian's package of each tool that the labs call."""


@dataclass(frozen=True)
class Completed:
    """How a command ended.

    Attributes:
        argv: the command as it was run.
        status: the exit status; negative for the signal that ended it.
        stdout: what it wrote to standard output.
        stderr: what it wrote to standard error; "" where both went into `stdout`.
        seconds: how long it ran.
    """

    argv: tuple[str, ...]
    status: int
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    input: str | None = None,  # noqa: A002 - the word of subprocess
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = True,
    keep: Sequence[int] = (),
) -> Completed:
    """Run a short command to its end and return what it wrote.

    Args:
        argv: program and arguments; never a line for a shell.
        input: text for its standard input; None gives it none: it reads the end of file at once.
        cwd: its working directory.
        env: its whole environment; None passes ours on.
        timeout: seconds after which it is killed; None waits for ever.
        check: raise when its exit status is not 0.
        keep: descriptors of ours that it gets too: a lock stays held until it has ended, even where we are killed.

    Raises:
        CommandError: it ended with another status than 0, or was killed after `timeout`.
        UnsupportedError: the tool is not installed.
        LabError: ENOENT or ENOTDIR of `cwd`; EACCES, ENOEXEC of the program.
    """
    words = tuple(os.fspath(word) for word in argv)
    if cwd is not None and not Path(cwd).is_dir():
        raise LabError(f"{words[0]}: working directory {os.fspath(cwd)} is not there")
    begin = time.monotonic()
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            timeout=timeout,
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=keep,
            input=input or "",  # an empty input is the end of file at once, as from /dev/null
        )
    except FileNotFoundError as error:
        if shutil.which(words[0]) is None:
            raise missing(words[0]) from error
        raise LabError(f"{words[0]}: ENOENT", cause="the interpreter or the loader that it names is not there") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(words, -9, _text(error.stderr), cause=f"it still ran after {timeout:g} s and was killed") from error
    except OSError as error:
        raise LabError(f"{words[0]}: {error.strerror}") from error
    if check and done.returncode != 0:
        raise CommandError(words, done.returncode, done.stderr)
    return Completed(words, done.returncode, done.stdout, done.stderr, time.monotonic() - begin)


def missing(tool: str) -> UnsupportedError:
    """Return the error for a tool that is not installed, naming its Debian package where it is known."""
    package = PACKAGES.get(Path(tool).name)
    return UnsupportedError(f"the command {tool}", "no such command in PATH", remedy=f"apt-get install {package}" if package else None)


def _text(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def child(argv: Sequence[str], *, keep: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a companion of this process that runs until it ends itself, with nothing of ours but the descriptors `keep`.

    Its working directory is `/`, so that it keeps no file system busy, and its session is its own, so that Ctrl-C is not for it.
    """
    null = subprocess.DEVNULL
    return subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, cwd="/", env={}, pass_fds=keep, start_new_session=True)
