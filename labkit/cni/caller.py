"""Attach containers to networks and take them out again; what was done is written down before it is done.

See: CNI specification 1.0.0, section 3 (execution of network configurations); its cached results
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.cni import chains, versions
from labkit.cni.attachment import Attachment
from labkit.cni.configuration import Network
from labkit.cni.holding import held
from labkit.cni.plugin import PLUGINS, SECONDS, call
from labkit.cni.result import Result
from labkit.errors import LabError


class Caller:
    """Calls the plugins of networks.

    Args:
        state: its directory: what is attached (results/), locks (locks/), and the addresses that host-local gave (leases/).
        places: the directories of plugins.
        seconds: after which a plugin is killed.
    """

    def __init__(self, state: Path, places: Sequence[Path] = PLUGINS, seconds: float = SECONDS) -> None:
        self.state = state
        self.places = tuple(places)
        self.seconds = seconds

    @property
    def leases(self) -> Path:
        """Where host-local keeps the addresses that are taken: NETWORK/ADDRESS."""
        return self.state / "leases"

    def add(self, network: Network, attachment: Attachment) -> Result:
        """Attach a container: each plugin of the chain in turn. Where one fails, what was done is undone.

        Raises:
            CniError: a plugin failed.
            UnsupportedError: a plugin is not there.
            LabError: the container has such a link of this network already.
        """
        record = self._record(network.name, attachment)
        with held(self._lock(attachment)) as lock:
            if record.exists():
                raise LabError(f"{attachment.container_id} is attached to {network.name} by {attachment.ifname} already")
            self._write(record, network, attachment, None)
            try:
                previous: dict[str, Any] | None = None
                for place in range(len(network.plugins)):
                    previous = self._call("ADD", network, place, attachment, previous, lock)
                    self._write(record, network, attachment, previous)
                return Result.parse(previous or {})
            except BaseException as error:
                try:
                    self._delete(record, network, attachment, lock)
                except Exception as second:  # the first error is the news; the record stays
                    error.add_note(f"and what was done so far could not be undone: {second}")
                raise

    def check(self, network: Network, attachment: Attachment) -> None:
        """Ask each plugin whether what it did is still as it was; versions before 0.4.0 cannot be asked.

        Raises:
            CniError: something is not as it was.
            LabError: the container is not attached.
        """
        if network.disable_check or not versions.has_check(network.cni_version):
            return
        record = self._record(network.name, attachment)
        with held(self._lock(attachment)) as lock:
            if not record.exists():
                raise LabError(f"{attachment.container_id} is not attached to {network.name} by {attachment.ifname}")
            _, kept, result = _read(record)
            for place in range(len(network.plugins)):
                self._call("CHECK", network, place, _with_netns(kept, attachment), result, lock)

    def delete(self, network: Network, attachment: Attachment) -> None:
        """Take a container out: the plugins in reverse, each told the result of ADD; one that is not attached is no error.

        Where ADD was kept, the configuration, words and capabilities of then count. A plugin that still runs is awaited. The chain of
        masquerading goes too where its plugin could not find the address any more.

        Raises:
            ExceptionGroup: of the plugins that failed; the others were called all the same, and the record stays.
        """
        with held(self._lock(attachment)) as lock:
            self._delete(self._record(network.name, attachment), network, attachment, lock)

    def attached(self, container_id: str = "") -> tuple[tuple[Network, Attachment, Result | None], ...]:
        """Return what is attached, or was about to be, by container and link.

        Args:
            container_id: only of this container; "" for all.

        Returns:
            Network, link, and the result, None where no plugin has answered yet.
        """
        folder = self.state / "results"
        found = []
        for name in os.listdir(folder) if folder.is_dir() else ():
            if name.endswith(".json"):
                try:
                    network, attachment, result = _read(folder / name)
                except FileNotFoundError:
                    continue  # taken out meanwhile
                if container_id in ("", attachment.container_id):
                    found.append((network, attachment, Result.parse(result) if result else None))
        return tuple(sorted(found, key=lambda one: (one[1].container_id, len(one[1].ifname), one[1].ifname)))

    def _delete(self, record: Path, network: Network, attachment: Attachment, lock: int) -> None:
        result: Mapping[str, Any] | None = None
        if record.exists():
            network, kept, result = _read(record)
            attachment = _with_netns(kept, attachment)
        if attachment.netns and not os.path.exists(attachment.netns):
            attachment = replace(attachment, netns="")
        previous = result if versions.has_check(network.cni_version) else None
        errors: list[Exception] = []
        for place in reversed(range(len(network.plugins))):
            try:
                self._call("DEL", network, place, attachment, previous, lock)
            except LabError as error:  # one that fails must not keep the others
                errors.append(error)
        if any(plugin.get("ipMasq") for plugin in network.plugins):
            chains.remove([chains.masquerade(network.name, attachment.container_id)], families=_families(result), keep=(lock,))
        if errors:
            raise ExceptionGroup(f"{attachment.container_id} could not be taken out of {network.name} whole", errors)
        record.unlink(missing_ok=True)
        if not self.attached(attachment.container_id):
            self._lock(attachment).unlink(missing_ok=True)

    def _call(
        self, command: str, network: Network, place: int, attachment: Attachment, previous: Mapping[str, Any] | None, lock: int
    ) -> dict[str, Any]:
        told = network.execution(place, attachment.capabilities, previous, self.leases)
        return call(command, told, attachment, places=self.places, keep=(lock,), seconds=self.seconds)

    def _record(self, network: str, attachment: Attachment) -> Path:
        return self.state / "results" / f"{network}-{attachment.container_id}-{attachment.ifname}.json"

    def _lock(self, attachment: Attachment) -> Path:
        return self.state / "locks" / attachment.container_id

    def _write(self, record: Path, network: Network, attachment: Attachment, result: Mapping[str, Any] | None) -> None:
        record.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "containerId": attachment.container_id,
            "netns": attachment.netns,
            "ifName": attachment.ifname,
            "cniArgs": [list(pair) for pair in attachment.args],
            "capabilityArgs": dict(attachment.capabilities),
            "config": network.record(),
            "result": result,
        }
        beside = record.with_name(f".{record.name}.{os.getpid()}")
        beside.write_text(json.dumps(document))
        beside.replace(record)


def _read(record: Path) -> tuple[Network, Attachment, Mapping[str, Any] | None]:
    document = json.loads(record.read_text())
    pairs = tuple((str(key), str(value)) for key, value in document["cniArgs"])
    kept = Attachment(document["containerId"], document["netns"], document["ifName"], pairs, document["capabilityArgs"])
    return Network.parse(json.dumps(document["config"])), kept, document["result"]


def _with_netns(kept: Attachment, now: Attachment) -> Attachment:
    return replace(kept, netns=now.netns or kept.netns)


def _families(result: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return which commands speak of a container's addresses; both where they are not known."""
    known = {ip.version for ip in Result.parse(result).ips} if result else {4, 6}
    return tuple(command for version, command in ((4, "iptables"), (6, "ip6tables")) if version in known)
