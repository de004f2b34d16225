"""The networks of a pod: default, default-restricted, none, host, and those of net.d, through the CNI plugins.

All that is needed to take a pod out of its networks lies in rkt's directory, not in the pod's: it is there before the pod is
attached, and stays until it is out again, wherever the pod's directory has moved to, and however its supervisor ended.
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labkit import ledger
from labkit.appc import pod_netns, ports
from labkit.appc.net_info import NetInfo, NetworkError, forwardable, load, shown
from labkit.cni import PLUGINS, Attachment, Caller, Network, Result, chains, configuration
from labkit.cni.holding import held
from labkit.errors import LabError

__all__ = ["NetInfo", "NetworkError", "Networks", "down", "forwardable", "load", "shown", "up"]

DEFAULT = "default"
RESTRICTED = "default-restricted"
HOST, NONE, ALL = "host", "none", "all"

_BUILT_IN = {
    DEFAULT: {
        "cniVersion": "0.4.0",
        "name": DEFAULT,
        "type": "ptp",
        "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "172.16.28.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
    },
    RESTRICTED: {
        "cniVersion": "0.4.0",
        "name": RESTRICTED,
        "type": "ptp",
        "ipMasq": False,
        "ipam": {"type": "host-local", "subnet": "172.31.0.0/16"},
    },
}


@dataclass(frozen=True)
class Networks:
    """What a pod is to be attached to, and where the files are.

    Attributes:
        state: the directory of rkt's for networks: what is attached, addresses that are taken, locks.
        wanted: names, each with the words for its plugins, as `--net` gives them.
        local_config: the directory with net.d, such as /etc/rkt.
        plugins: the directories of plugins.
    """

    state: Path
    wanted: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ((DEFAULT, ()),)
    local_config: Path = Path("/etc/rkt")
    plugins: tuple[Path, ...] = PLUGINS

    @classmethod
    def parse(
        cls, texts: Sequence[str], state: Path, local_config: Path = Path("/etc/rkt"), plugins: tuple[Path, ...] = PLUGINS
    ) -> Networks:
        """Read what was given to `--net`: names with commas between them, each maybe with words: `containers:IP=172.19.0.9`.

        Args:
            texts: one a `--net`; none, and an empty one, are `default`.
            state: as the attribute.
            local_config: as the attribute.
            plugins: as the attribute.

        Raises:
            NetworkError: a word is none, a name stands twice, or host or none has company.
        """
        wanted = [_wanted(one.strip()) for text in texts for one in (text or DEFAULT).split(",")] or [(DEFAULT, ())]
        names = [name for name, _ in wanted]
        for name in names:
            if names.count(name) > 1:
                raise NetworkError(f"network {name} is given twice")
            if name in (HOST, NONE) and len(names) > 1:
                raise NetworkError(f"network {name} cannot be combined with others")
        return cls(state, tuple(wanted), local_config, plugins)

    @property
    def host(self) -> bool:
        """Whether the pod shares the host's network namespace."""
        return self.wanted[0][0] == HOST

    @property
    def none(self) -> bool:
        """Whether the pod has nothing but its loopback."""
        return self.wanted[0][0] == NONE

    def chosen(self) -> tuple[Network, ...]:
        """Return the networks in the order of the pod's links: those of net.d by file name, then default or default-restricted.

        Raises:
            NetworkError: one is neither in net.d nor built in.
            ConfigurationError: a file of net.d is wrong.
        """
        if self.host or self.none:
            return ()
        names = [name for name, _ in self.wanted]
        everything = ALL in names
        custom = configuration.networks(self.local_config / "net.d", (".conf", ".conflist"))
        found = [network for network in custom if everything or network.name in names]
        if not {DEFAULT, RESTRICTED} & {network.name for network in found}:
            found.append(_built_in(DEFAULT if everything or DEFAULT in names else RESTRICTED))
        missing = [name for name in names if name != ALL and name not in [network.name for network in found]]
        if missing:
            raise NetworkError(f"networks not found: {', '.join(missing)}")
        return tuple(found)

    def caller(self) -> Caller:
        """Return the caller of the plugins."""
        return Caller(self.state, self.plugins)


def up(
    pod_uuid: str,
    netns: Path | None,
    wanted: Networks,
    directory: Path,
    forwarded: Sequence[ports.ForwardedPort] = (),
    say: Callable[[str], object] = lambda _: None,
) -> tuple[NetInfo, ...]:
    """Attach a pod to its networks and let ports lead into it; where something fails, all is undone.

    Args:
        pod_uuid: the pod.
        netns: the file of its network namespace; None for one that is made and named here: `pod_netns.path(pod_uuid)`.
        wanted: the networks.
        directory: the pod's, where net-info.json, netns and copies of the configurations come to lie.
        forwarded: ports of the host that lead into the pod.
        say: gets what rkt would say on standard error.

    Returns:
        The pod's networks in the order of its links; none with `host` and `none`.

    Raises:
        NetworkError: a network is not there.
        CniError: a plugin failed.
    """
    chosen = wanted.chosen()
    if wanted.host:
        _write(directory / "net-info.json", "[]\n")
        return ()
    if wanted.none:
        say("networking namespace with loopback only")
    if ledger.owner():
        ledger.intend("rkt networks", uuid=pod_uuid, state=str(wanted.state))
    try:
        with held(_tables_lock(wanted.state), shared=True):
            _note_tables(wanted.state)
            place = netns or pod_netns.create(pod_uuid)
            _write(directory / "netns", f"{place}\n")
            pod_netns.loopback(place)
            infos = tuple(_attach(pod_uuid, place, number, network, wanted, directory) for number, network in enumerate(chosen))
            if forwarded:
                ports.forward(pod_uuid, forwarded, forwardable(infos).ip, _ports_lock(wanted.state, pod_uuid))
        _write(directory / "net-info.json", json.dumps([info.record() for info in infos]) + "\n")
    except BaseException as error:
        try:
            down(pod_uuid, wanted.state, wanted.plugins)
        except Exception as second:  # the first error is the news; what is left, `rkt gc` takes
            error.add_note(f"and what was done so far could not be undone: {second}")
        raise
    return infos


def down(pod_uuid: str, state: Path, plugins: tuple[Path, ...] = PLUGINS) -> None:
    """Take a pod out of its networks, whole: ports, links, addresses, rules, its network namespace; what is not there is no error.

    It may be called at any time after the pod's processes have ended, again and again, in the pod's own process or in another.

    Args:
        pod_uuid: the pod.
        state: the directory of rkt's for networks.
        plugins: the directories of plugins.

    Raises:
        ExceptionGroup: of what could not be removed; everything else was, and what could not is tried again the next time.
    """
    errors: list[Exception] = []

    def attempt(step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # one that resists must not keep the others
            errors.append(error)

    caller = Caller(state, plugins)
    with held(_tables_lock(state), shared=True):
        attempt(lambda: ports.unforward(pod_uuid, _ports_lock(state, pod_uuid)))
        for network, attachment, _ in reversed(caller.attached(pod_uuid)):
            attempt(lambda network=network, attachment=attachment: caller.delete(network, attachment))  # type: ignore[misc]
        if not errors:
            attempt(lambda: caller.forget(pod_uuid))
            attempt(lambda: pod_netns.delete(pod_uuid))
    attempt(lambda: _delete_tables(state))
    if errors:
        raise ExceptionGroup(f"pod {pod_uuid} could not be taken out of its networks whole", errors)
    for entry in ledger.live():
        if entry.kind == "rkt networks" and entry.key == {"uuid": pod_uuid, "state": str(state)}:
            ledger.gone(entry)


@ledger.undoes("rkt networks")
def _undo_networks(entry: ledger.Entry) -> None:
    if Path(entry.key["state"]).is_dir():
        down(entry.key["uuid"], Path(entry.key["state"]))


def _wanted(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    name, _, words = text.partition(":")
    if not name:
        raise NetworkError(f'"{text}" is no network', remedy="NAME or NAME:KEY=VALUE;KEY=VALUE")
    pairs = []
    for word in words.split(";") if words else ():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise NetworkError(f'network {name}: "{word}" is no word for a plugin', remedy="KEY=VALUE")
        pairs.append((key, value))
    return name, tuple(pairs)


def _built_in(name: str) -> Network:
    return Network.parse(json.dumps(_BUILT_IN[name]))


def _attach(pod_uuid: str, netns: Path, number: int, network: Network, wanted: Networks, directory: Path) -> NetInfo:
    file = network.path.name if network.path else f"99-{network.name}.conf"
    text = network.path.read_text() if network.path else json.dumps(_BUILT_IN[network.name])
    _write(directory / "net" / file, text)
    words = dict(wanted.wanted).get(network.name, ())
    link = Attachment(pod_uuid, str(netns), f"eth{number}", words)
    result = wanted.caller().add(network, link)
    return _info(network, link, result, f"net/{file}")


def _info(network: Network, link: Attachment, result: Result, file: str) -> NetInfo:
    ip = result.address(link.netns)
    address = ipaddress.ip_interface(ip.address) if ip else None
    return NetInfo(
        network.name,
        file,
        link.ifname,
        str(address.ip) if address else "",
        str(address.netmask) if address else "",
        ";".join(f"{key}={value}" for key, value in link.args),
        any(plugin.get("ipMasq") is True for plugin in network.plugins),
    )


def _tables_lock(state: Path) -> Path:
    return state / "locks" / "tables"


def _ports_lock(state: Path, pod_uuid: str) -> Path:
    return state / "locks" / f"ports-{pod_uuid}"


def _note_tables(state: Path) -> None:
    """Keep which tables of the packet filter were there before the first pod: the others go with the last one."""
    note = state / "tables.json"
    if note.exists():
        return
    own = state / f".tables.json.{os.getpid()}.{threading.get_ident()}"
    own.write_text(json.dumps(chains.tables()))
    with suppress(FileExistsError):  # of several that begin at once the first has looked before any table was made
        os.link(own, note)
    own.unlink()


def _delete_tables(state: Path) -> None:
    """Delete the empty tables that pods have brought, unless a pod is just being attached."""
    note = state / "tables.json"
    if Caller(state).attached():
        return
    with suppress(LabError), held(_tables_lock(state), seconds=0):  # where it is held, who holds it does this
        for unfinished in state.glob(f".{note.name}.*"):
            unfinished.unlink(missing_ok=True)
        before = json.loads(note.read_text()) if note.exists() else None
        if before is not None and all([chains.delete_empty(table) for table in chains.tables() if table not in before]):  # noqa: C419 - each
            note.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)
