"""Attach containers to networks and take them out again; what was done is written down before it is done.

See: CNI specification 1.0.0, section 3 (execution of network configurations); its cached results
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labkit.cni import chains, versions
from labkit.cni.attachment import Attachment
from labkit.cni.configuration import Network
from labkit.cni.holding import held
from labkit.cni.leases import release
from labkit.cni.plugin import PLUGINS, SECONDS, CniError, call
from labkit.cni.records import Record, Records
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
        with held(self._lock(attachment)) as lock:
            if self._records.find(network.name, attachment):
                raise LabError(f"{attachment.container_id} is attached to {network.name} by {attachment.ifname} already")
            record = Record(network, attachment)
            self._records.write(record)
            try:
                for place in range(len(network.plugins)):
                    answer = self._call("ADD", record, place, lock)
                    Result.parse(answer)
                    record = Record(network, attachment, place + 1, answer)
                    self._records.write(record)
                return Result.parse(record.answer or {})
            except BaseException as error:
                try:
                    self._delete(record, lock)
                except Exception as second:  # the first error is the news; the record stays
                    error.add_note(f"and what was done so far could not be undone: {second}")
                raise

    def check(self, network: Network, attachment: Attachment) -> None:
        """Ask each plugin whether what it did is still as it was; versions before 0.4.0 cannot be asked.

        The MAC address of a link of the host's is not looked at: udev may have changed it. See: systemd.link(5), MACAddressPolicy

        Raises:
            CniError: something is not as it was.
            LabError: the container is not attached.
        """
        if network.disable_check or not versions.has_check(network.cni_version):
            return
        with held(self._lock(attachment)) as lock:
            record = self._records.find(network.name, attachment)
            if record is None:
                raise LabError(f"{attachment.container_id} is not attached to {network.name} by {attachment.ifname}")
            asked = replace(_within(record, attachment.netns), answer=_without_macs(record.answer or {}))
            for place in range(len(record.network.plugins)):
                self._call("CHECK", asked, place, lock)

    def delete(self, network: Network, attachment: Attachment) -> None:
        """Take a container out: the plugins in reverse, each told the result of ADD; one that is not attached is no error.

        Where ADD was kept, the configuration, words and capabilities of then count. A plugin that still runs is awaited. The chain of
        masquerading goes too where its plugin could not find the address any more.

        Raises:
            ExceptionGroup: of the plugins that failed; the others were called all the same, and the record stays. A plugin that
                had not answered to ADD may refuse DEL, too: then what is known to be left of it is removed without it.
        """
        with held(self._lock(attachment)) as lock:
            kept = self._records.find(network.name, attachment)
            self._delete(_within(kept, attachment.netns) if kept else Record(network, attachment, len(network.plugins)), lock)

    def abandon(self, network: Network, attachment: Attachment) -> None:
        """Forget a link whose plugins refuse DEL: its addresses are given back, and what is left in its namespace goes with that."""
        with held(self._lock(attachment)):
            kept = self._records.find(network.name, attachment)
            release(kept.network if kept else network, attachment.container_id, self.leases)
            self._records.remove(network.name, attachment)
            self._forget(attachment)

    def attached(self, container_id: str = "") -> tuple[tuple[Network, Attachment, Result | None], ...]:
        """Return what is attached, or was about to be, by container and link.

        Args:
            container_id: only of this container; "" for all.

        Returns:
            Network, link, and the result, None where no plugin has answered yet.
        """
        return tuple((record.network, record.attachment, record.result) for record in self._records.all(container_id))

    def forget(self, container_id: str) -> None:
        """Remove the files that a caller which was killed has left of a container that is attached to nothing."""
        link = Attachment(container_id, "")
        with held(self._lock(link)):
            self._forget(link)

    def _forget(self, link: Attachment) -> None:
        if not self._records.all(link.container_id):
            self._records.remove_unfinished(link.container_id)
            self._lock(link).unlink(missing_ok=True)

    def _delete(self, record: Record, lock: int) -> None:
        network, link = record.network, record.attachment
        if link.netns and not os.path.exists(link.netns):
            link = replace(link, netns="")
        errors: list[Exception] = []
        for place in reversed(range(min(record.done + 1, len(network.plugins)))):  # the others were never called
            try:
                self._call("DEL", replace(record, attachment=link), place, lock)
            except LabError as error:  # one that fails must not keep the others
                if place < record.done or not isinstance(error, CniError):
                    errors.append(error)
                else:  # what it refuses now it has most likely refused then: it would refuse for ever
                    release(network, link.container_id, self.leases)
        if any(plugin.get("ipMasq") for plugin in network.plugins):
            chains.remove([chains.masquerade(network.name, link.container_id)], families=_families(record.result), keep=(lock,))
        if errors:
            raise ExceptionGroup(f"{link.container_id} could not be taken out of {network.name} whole", errors)
        self._records.remove(network.name, link)
        self._forget(link)

    def _call(self, command: str, record: Record, place: int, lock: int) -> dict[str, Any]:
        network, link = record.network, record.attachment
        previous = record.answer if command == "ADD" or versions.has_check(network.cni_version) else None
        told = network.execution(place, link.capabilities, previous, self.leases)
        return call(command, told, link, places=self.places, keep=(lock,), seconds=self.seconds)

    @property
    def _records(self) -> Records:
        return Records(self.state / "results")

    def _lock(self, attachment: Attachment) -> Path:
        return self.state / "locks" / attachment.container_id


def _within(record: Record, netns: str) -> Record:
    """Return a record with the namespace that the caller says, if it says one."""
    return replace(record, attachment=replace(record.attachment, netns=netns or record.attachment.netns))


def _without_macs(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result in which links of the host's have no MAC address."""
    links = [link if link.get("sandbox") else {**link, "mac": ""} for link in answer.get("interfaces") or []]
    return {**answer, **({"interfaces": links} if links else {})}


def _families(result: Result | None) -> tuple[str, ...]:
    """Return which commands speak of a container's addresses; both where they are not known."""
    known = {ip.version for ip in result.ips} if result else {4, 6}
    return tuple(command for version, command in ((4, "iptables"), (6, "ip6tables")) if version in known)
