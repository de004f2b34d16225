"""The verbs of a lab for networks by CNI: a container is a named network namespace, and its plugins are called as an engine calls them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit import show, trace
from labkit.cni import Attachment, Caller, Network, Result, claims
from labkit.course.mechanisms import Mechanisms, Place
from labkit.errors import LabError
from labkit.kernel.network import NetworkNamespace, throughput
from labkit.kernel.network.places import place
from labkit.show import View

_OCTETS = 1 << 19
_COMMANDS = ("ADD", "CHECK", "DEL")


class CniNetworks(Mechanisms):
    """What a lab can do with the plugins of the Container Network Interface."""

    def cni(
        self,
        command: str,
        configuration: Place,
        container: str,
        ifname: str = "eth0",
        *,
        args: Mapping[str, str] | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> View:
        """Call each plugin of a network in turn for a container, and show the result.

        What is attached already is taken out before ADD; what is not attached is no error for DEL.

        Shell: labkit cni LAB ADD net.conf blue

        Args:
            command: ADD, CHECK or DEL.
            configuration: the file of the network, relative to the lab's directory.
            container: the lab's network namespace of this name.
            ifname: what the link is called in there.
            args: words for the plugins (CNI_ARGS): {"IP": "10.1.2.3"}.
            capabilities: for plugins that declare them: {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}.

        Raises:
            CniError: a plugin failed: what those before it did is undone.
            ConfigurationError: the file breaks the specification.
            LabError: the namespace is not this lab's.
        """
        self.must_be_open()
        if command not in _COMMANDS:
            raise LabError(f"{command} is no operation on a container", remedy=f"one of {', '.join(_COMMANDS)}")
        wanted = Network.load(self.path(configuration))
        link = Attachment(container, _namespace(container).path, ifname, tuple((args or {}).items()), dict(capabilities or {}))
        _record(self.id, command, str(configuration), wanted, link)
        return _OPERATIONS[command](claims.caller(self.directory / "cni"), wanted, link)

    def rate(self, address: str, netns: NetworkNamespace | str, octets: int = _OCTETS) -> float:
        """Measure how fast octets go from this machine to an address of a namespace, in Mbit/s.

        Args:
            address: where somebody listens for the time of the measurement.
            netns: whose address it is.
            octets: how many are sent.

        Raises:
            LabError: nothing arrives.
        """
        self.must_be_open()
        return throughput.measure(address, netns, octets) * 8 / 1e6


def _namespace(container: str) -> NetworkNamespace:
    """Return the namespace that stands for a container.

    Raises:
        LabError: there is none of this name, or it is not this lab's.
    """
    place(container).check()
    return NetworkNamespace.find(container)


def _add(caller: Caller, wanted: Network, link: Attachment) -> View:
    return result_view(claims.attach(caller, wanted, link))


def _check(caller: Caller, wanted: Network, link: Attachment) -> View:
    caller.check(wanted, link)
    return show.table(("plugin", "CHECK"), [(plugin["type"], "as it was made") for plugin in wanted.plugins])


def _delete(caller: Caller, wanted: Network, link: Attachment) -> View:
    said = "undone" if claims.detach(caller, wanted, link) else "nothing to undo"
    return show.table(("plugin", "DEL"), [(plugin["type"], said) for plugin in reversed(wanted.plugins)])


_OPERATIONS = {"ADD": _add, "CHECK": _check, "DEL": _delete}


def result_view(result: Result) -> View:
    """Tabulate what a chain of plugins has answered: links with their addresses, then routes."""
    rows = []
    for number, link in enumerate(result.interfaces):
        own = [ip for ip in result.ips if ip.interface == number]
        where = Path(link.sandbox).name if link.sandbox else "the host"
        rows.append((link.name, where, " ".join(ip.address for ip in own), " ".join(ip.gateway for ip in own)))
    rows += [("", "", ip.address, ip.gateway) for ip in result.ips if ip.interface is None]
    return show.table(("link", "in", "address", "gateway"), rows)


def _record(lab: str, command: str, file: str, wanted: Network, link: Attachment) -> None:
    words = ["labkit", "cni", lab, command, file, link.container_id, *([] if link.ifname == "eth0" else ["--ifname", link.ifname])]
    for key, value in link.args:
        words += ["--args", f"{key}={value}"]
    if link.capabilities:
        words += ["--capabilities", json.dumps(dict(link.capabilities))]
    kinds = [str(plugin["type"]) for plugin in wanted.plugins]
    order = reversed(kinds) if command == "DEL" else kinds
    trace.record(shlex.join(words), calls=[f'execve("{kind}"), CNI_COMMAND={command}' for kind in order])
