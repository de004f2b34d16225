"""The daemons behind the runtimes: who listens on the sockets that their tools speak to. See: unix(7)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from labkit import ledger
from labkit.host.services.places import places
from labkit.kernel.network.unix_sockets import holders, unix_sockets
from labkit.kernel.xray import Machine
from labkit.kernel.xray.records import Member


def sockets() -> dict[str, tuple[Path, ...]]:
    """Return the sockets of the daemons of those runtimes that have one: where this instance has them."""
    here = places()
    return {
        "containerd": (here.containerd,),
        "cri": (here.containerd,),
        "crio": (Path("/run/crio/crio.sock"), ledger.state() / "crio/crio.sock"),
        "docker": (here.docker, here.containerd),
        "lxd": (here.lxd / "unix.socket",),
        "incus": (here.incus / "unix.socket",),
    }


def listening(paths: Iterable[str | os.PathLike[str]], machine: Machine) -> tuple[Member, ...]:
    """Return the processes that listen on these sockets; a path on which nobody listens has none.

    Shell:
        ss --listening --unix --processes
    """
    wanted = {os.path.realpath(path) for path in paths}
    if not wanted:
        return ()
    holding = holders(machine.pids, machine.proc)
    ends = [each for each in unix_sockets() if each.listens and os.path.realpath(each.address) in wanted]
    pids = sorted({pid for each in ends for pid in holding.get(each.inode, ())})
    return tuple(machine.members[pid] for pid in pids if pid in machine.members)


def serving() -> tuple[tuple[Member, ...], tuple[Member, ...]]:
    """Return every daemon of the runtimes that runs, and the shims that were started with the address of one."""
    machine = Machine()
    paths = {os.fspath(path) for each in sockets().values() for path in each}
    shims = (each for each in machine.members.values() if each.argv and "-shim" in each.argv[0] and paths.intersection(each.argv))
    return listening(paths, machine), tuple(shims)
