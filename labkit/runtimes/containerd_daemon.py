"""A containerd of a lab's own, beside the machine's: as it is where nobody has given it a network for pods.

It runs in a network and a mount namespace of its own. So bridge, packet filter and mounts that it makes end with its processes, and an
empty /run keeps its shims and the state of the low-level runtimes apart from the machine's. See: containerd(8), containerd-config.toml(5)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from labkit import trace
from labkit.host.services.mirrors import SANDBOX_IMAGE
from labkit.kernel import commands, processes, rooted, trees
from labkit.kernel.cgroups.delegation import homes
from labkit.kernel.processes.process import Process
from labkit.runtimes.cri import CallError, Client

_CONFIGURATION = """version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{1}"
restrict_oom_score_adj = true
cni = {{bin_dir = "/usr/lib/cni", conf_dir = "{0}/cni"}}
"""
_STEPS = (
    "ip link set lo up",
    'cp -L /etc/resolv.conf "$0"',
    "mount -t tmpfs none /run",
    '[ -e /etc/resolv.conf ] || install -D "$0"/resolv.conf "$(readlink -m /etc/resolv.conf)"',  # it may be a link into /run
    # crun takes no machine with controllers in both versions of cgroups: of this daemon's runtimes v2 is hidden there
    "if [ -d /sys/fs/cgroup/unified ]; then mount -t tmpfs none /sys/fs/cgroup/unified; fi",
    'exec containerd --config "$0"/containerd.toml --root "$0"/root --state /run/containerd --address "$0"/containerd.sock',
)
_SCRIPT = "; ".join(_STEPS)


def socket(directory: Path) -> Path:
    """Return where the daemon of a directory listens."""
    return directory / "containerd.sock"


def serve(directory: Path) -> Process:
    """Start a daemon that keeps all that it has in a directory of the lab, and return once it serves the CRI.

    Shell:
        unshare --mount --net sh -c '...; exec containerd ...' & own=$!

    Args:
        directory: its last part is the name of the process. The daemon's network is what lies in `cni` below it: nothing, at first.

    Raises:
        UnsupportedError: there is no containerd.
        LabError: it ended instead, or does not answer in time, with the last line of its log.
    """
    if not shutil.which("containerd"):
        raise commands.missing("containerd")
    homes()
    with trace.silent():
        trees.make_tree(directory)
        socket(directory).unlink(missing_ok=True)  # of one that was killed
        (directory / "cni").mkdir(exist_ok=True)
        (directory / "containerd.toml").write_text(_CONFIGURATION.format(directory, SANDBOX_IMAGE))
    argv = ["sh", "-c", _SCRIPT, str(directory)]
    log, typed = directory / "containerd.log", lines(str(directory))
    own: dict[str, Any] = {"new": ("mount", "net"), "env": rooted.ENVIRONMENT, "cwd": "/"}
    process = processes.start(argv, name=directory.name, stdout=log, shell_line=typed, **own)
    process.wait_ready(lambda: _answers(directory), process.name, "does not serve the CRI")
    return process


def lines(directory: str) -> str:
    """Return what a person types in place of `serve`.

    Args:
        directory: its path, also with a variable in it, such as "$LAB/own".
    """
    name = directory.rpartition("/")[2]
    return (
        f"mkdir -p {directory}/cni\ncat > {directory}/containerd.toml << END\n{_CONFIGURATION.format(directory, SANDBOX_IMAGE)}END\n"
        f"unshare --mount --net sh -c '{_SCRIPT}' {directory} > {directory}/containerd.log 2>&1 & {name}=$!\n"
        f"until ctr --address {directory}/containerd.sock version > /dev/null 2>&1; do sleep 0.1; done"
    )


def _answers(directory: Path) -> bool:
    if not socket(directory).is_socket():
        return False
    try:
        with Client(socket(directory)) as client:
            client.version()
    except CallError:
        return False
    return True
