"""Named network namespaces: make, find, delete. See: network_namespaces(7), ip-netns(8)."""

from __future__ import annotations

import errno
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from labkit import ledger, trace
from labkit.errors import LabError, SyscallError
from labkit.kernel import syscalls
from labkit.kernel.network import netlink
from labkit.kernel.network import reading as network_state
from labkit.kernel.network.reading import NETNS_RUN
from labkit.kernel.state import NetworkState

HOST_NET = "/proc/self/ns/net"


@dataclass(frozen=True)
class NetworkNamespace:
    """A network namespace with a name, kept by a file under /run/netns as ip(8) does.

    Attributes:
        name: its name.
    """

    name: str

    def __post_init__(self) -> None:
        check_netns_name(self.name)

    @classmethod
    def create(cls, name: str) -> NetworkNamespace:
        """Make a network namespace with a name; one that this lab made already is returned as it is.

        Shell:
            ip netns add namespace1
        Raises:
            LabError: the name is no name, or there is such a namespace and it is not this lab's.

        See: unshare(2), CLONE_NEWNET; ip-netns(8)
        """
        netns = cls(name)
        if os.path.lexists(netns.path):
            if not netns.ours:
                raise foreign(name)
            return netns
        make_directory()
        with ledger.making("netns", name=name) as entry:
            try:
                entry.identity.update(make_file(netns.path))
            except FileExistsError:
                entry.identity.update(inode=0)  # another was faster: the undo must not take theirs
                raise foreign(name) from None
        bind = f'mount("/proc/thread-self/ns/net", "{netns.path}", NULL, MS_BIND, NULL)'
        trace.record(f"ip netns add {shlex.quote(name)}", calls=["unshare(CLONE_NEWNET)", bind])
        return netns

    @classmethod
    def find(cls, name: str) -> NetworkNamespace:
        """Return the network namespace of that name, whoever made it.

        Raises:
            LabError: there is none; the names that there are, are given.
        """
        netns = cls(name)
        if not netns.exists:
            raise LabError(f"there is no network namespace {name}", cause=f"{NETNS_RUN} has {', '.join(names()) or 'none'}")
        return netns

    @classmethod
    def claim(cls, name: str) -> NetworkNamespace:
        """Take a name for this lab whose namespace will be made by hand: the undo then removes what has this name.

        Raises:
            LabError: there is such a namespace already, and it is not this lab's.
        """
        netns = cls(name)
        if os.path.lexists(netns.path) and not netns.ours:
            raise foreign(name)
        make_directory()
        ledger.intend("netns-claim", name=name)
        return netns

    @property
    def path(self) -> str:
        """The file that keeps it alive."""
        return f"{NETNS_RUN}/{self.name}"

    @property
    def exists(self) -> bool:
        """Whether there is a namespace of this name now."""
        return identity(self.path) is not None

    @property
    def inode(self) -> int:
        """Its number, as in `net:[4026532177]`; LabError if there is none of this name."""
        try:
            return os.stat(self.path).st_ino
        except FileNotFoundError:
            raise LabError(f"there is no network namespace {self.name}") from None

    @property
    def ours(self) -> bool:
        """Whether this lab made it, by the ledger, and it still is that one."""
        return self._ours(self._entries())

    def state(self) -> NetworkState:
        """Read its links with their peers, addresses, routes and rules; the end of a veth that is being destroyed is awaited.

        Raises:
            LabError: there is none of this name.
        """
        inode = self.find(self.name).inode
        for one in network_state.states():
            if one.inode == inode:
                return one
        raise LabError(f"there is no network namespace {self.name}", cause="it was deleted meanwhile")

    def delete(self) -> None:
        """Take its name away, which ends it when no process is left in it; without one of this name there is nothing to do.

        Its virtual links go with it, those of hardware go back to the host.

        Shell:
            ip netns delete namespace1
        Raises:
            LabError: it is not this lab's.
        """
        entries = self._entries()
        if os.path.lexists(self.path):
            if not self._ours(entries):
                raise foreign(self.name)
            remove_file(self.path)
            calls = [f'umount2("{self.path}", MNT_DETACH)', f'unlink("{self.path}")']
            trace.record(f"ip netns delete {shlex.quote(self.name)}", calls=calls)
        for entry in entries:
            if entry.kind == "netns":
                ledger.gone(entry)

    def _entries(self) -> list[ledger.Entry]:
        kinds = ("netns", "netns-claim")
        return [entry for entry in ledger.live(ledger.owner()) if entry.kind in kinds and entry.key["name"] == self.name]

    def _ours(self, entries: list[ledger.Entry]) -> bool:
        if any(entry.kind == "netns-claim" or not entry.identity for entry in entries):
            return True
        return bool(entries) and identity(self.path) in [entry.identity for entry in entries]


def made_here(found: dict[str, int]) -> bool:
    """Tell whether this lab's ledger has the namespace that is recognised by `found`."""
    return any(entry.kind == "netns" and entry.identity == found for entry in ledger.live(ledger.owner()))


def names(run: Path = Path(NETNS_RUN)) -> tuple[str, ...]:
    """Return the names of the named network namespaces, sorted.

    Shell:
        ip netns list
    """
    device = os.stat(HOST_NET).st_dev
    found = sorted(os.listdir(run)) if run.is_dir() else []
    return tuple(name for name in found if network_state.namespace_inode(f"{run}/{name}", device))


def check_netns_name(name: str) -> None:
    """Refuse what cannot be the name of a network namespace.

    Raises:
        LabError: empty, too long, a path, or a word that ip(8) would take for an option.
    """
    cause = None
    if not name:
        cause = "it is empty"
    elif "/" in name or name in (".", ".."):
        cause = f"it becomes a file in {NETNS_RUN}: no / and neither . nor .."
    elif name == network_state.HOST:
        cause = "so the lab calls the namespace of the machine itself"
    elif name.startswith("-") or any(character.isspace() or not character.isprintable() for character in name):
        cause = "ip(8) takes it for an option, or cannot read it: no - in front, no white space"
    elif len(os.fsencode(name)) > 255:
        cause = "it is longer than the 255 bytes of a file name"
    if cause:
        raise LabError(f"{name!r} cannot name a network namespace", cause=cause, remedy="a word such as namespace1")


def make_directory() -> None:
    """Make /run/netns a shared mount as the first `ip netns add` does, so that every mount namespace sees the names."""
    try:
        syscalls.mount(None, NETNS_RUN, None, syscalls.MS_SHARED | syscalls.MS_REC)
        return
    except SyscallError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # no mount yet, or no directory
            raise
    with ledger.making("netns-directory", path=NETNS_RUN) as entry:
        made = not os.path.isdir(NETNS_RUN)
        os.makedirs(NETNS_RUN, mode=0o755, exist_ok=True)
        syscalls.mount(NETNS_RUN, NETNS_RUN, None, syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.mount(None, NETNS_RUN, None, syscalls.MS_SHARED | syscalls.MS_REC)
        entry.identity.update(mount=_mount_id(NETNS_RUN), made=made)


def make_file(path: str) -> dict[str, int]:
    """Make a network namespace that a file keeps alive, and return what it is recognised by, as `identity` does.

    Raises:
        FileExistsError: there is such a file.

    See: unshare(2), CLONE_NEWNET
    """
    return netlink.in_thread(lambda: _make(path))


def remove_file(path: str) -> None:
    """Take a namespace's file away, which ends it when no process is left in it; without the file there is nothing to do.

    See: umount2(2), MNT_DETACH
    """
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH)
    except SyscallError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # a file without its mount: its maker died half way
            raise
    Path(path).unlink(missing_ok=True)


def _make(path: str) -> dict[str, int]:
    """Unshare this thread, which ends afterwards, and give its new namespace a file."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        syscalls.mount("/proc/thread-self/ns/net", path, None, syscalls.MS_BIND)
    except BaseException:
        os.unlink(path)
        raise
    return identity_here()


def identity_here(route: netlink.NetlinkSocket | None = None) -> dict[str, int]:
    """Return what tells the namespace of this thread from all others; `route` is a socket in it, if one is open."""
    if route is None:
        with netlink.NetlinkSocket() as route:
            return identity_here(route)
    return {"inode": os.stat("/proc/thread-self/ns/net").st_ino, "cookie": route.cookie()}


def identity(path: str) -> dict[str, int] | None:
    """Return what tells the namespace of this file from all others; None if there is none."""
    if not network_state.namespace_inode(path, os.stat(HOST_NET).st_dev):
        return None
    try:
        return netlink.within(path, identity_here)
    except LabError:
        return None


@ledger.undoes("netns")
def _undo_netns(entry: ledger.Entry) -> None:
    path = NetworkNamespace(entry.key["name"]).path
    if os.path.lexists(path):
        now = identity(path)
        if not entry.identity or now is None or now == entry.identity:
            remove_file(path)


@ledger.undoes("netns-claim")
def _undo_claim(entry: ledger.Entry) -> None:
    path = NetworkNamespace(entry.key["name"]).path
    if os.path.lexists(path):
        remove_file(path)


@ledger.undoes("netns-directory")
def _undo_directory(entry: ledger.Entry) -> None:
    path = entry.key["path"]
    if not os.path.isdir(path) or os.listdir(path):
        return  # others keep names in it by now
    now = _mount_id(path)
    if now and entry.identity.get("mount", now) == now:
        syscalls.umount2(path, syscalls.MNT_DETACH)
    if entry.identity.get("made") and not os.listdir(path):
        os.rmdir(path)


def _mount_id(path: str) -> int:
    found = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return max((int(words[0]) for words in found if words[4] == path), default=0)


def foreign(name: str) -> LabError:
    """Return the refusal of a namespace that this lab did not make."""
    return LabError(
        f"network namespace {name} is there and is not this lab's",
        cause="the ledger of this lab does not name it",
        remedy=f"ip netns delete {name}, if nobody needs it; or take another name",
    )
