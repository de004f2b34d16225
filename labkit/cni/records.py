"""What is attached, kept in files: written before a plugin is called, and again with each answer.

See: CNI specification 1.0.0, section 3
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.cni.attachment import Attachment
from labkit.cni.configuration import Network
from labkit.cni.result import Result


@dataclass(frozen=True)
class Record:
    """A link that is there, or was about to be.

    Attributes:
        network: as it was when the container was attached.
        attachment: the link.
        done: how many plugins of the chain have answered to ADD.
        answer: of the last of them, or None.
    """

    network: Network
    attachment: Attachment
    done: int = 0
    answer: Mapping[str, Any] | None = None

    @property
    def result(self) -> Result | None:
        """The answer, read; None where no plugin has given one."""
        return Result.parse(self.answer) if self.answer is not None else None


class Records:
    """The records of one caller.

    Args:
        directory: a file a link lies in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, network: str, attachment: Attachment) -> Path:
        """Return the file of a link's record."""
        return self.directory / f"{network}-{attachment.container_id}-{attachment.ifname}.json"

    def write(self, record: Record) -> None:
        """Keep a record, whole or not at all."""
        path = self.path(record.network.name, record.attachment)
        path.parent.mkdir(parents=True, exist_ok=True)
        link = record.attachment
        document = {
            "containerId": link.container_id,
            "netns": link.netns,
            "ifName": link.ifname,
            "cniArgs": [list(pair) for pair in link.args],
            "capabilityArgs": dict(link.capabilities),
            "config": record.network.record(),
            "done": record.done,
            "result": record.answer,
        }
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(json.dumps(document))
        beside.replace(path)

    def find(self, network: str, attachment: Attachment) -> Record | None:
        """Return the record of a link, or None."""
        try:
            return _read(self.path(network, attachment))
        except FileNotFoundError:
            return None

    def all(self, container_id: str = "") -> tuple[Record, ...]:
        """Return the records of one container, or of all, by container and link."""
        names = [name for name in os.listdir(self.directory) if name.endswith(".json")] if self.directory.is_dir() else []
        found = []
        for name in names:
            try:
                record = _read(self.directory / name)
            except FileNotFoundError:
                continue  # taken out meanwhile
            if container_id in ("", record.attachment.container_id):
                found.append(record)
        return tuple(sorted(found, key=_order))

    def remove(self, network: str, attachment: Attachment) -> None:
        """Forget a link."""
        self.path(network, attachment).unlink(missing_ok=True)

    def remove_unfinished(self, container_id: str) -> None:
        """Remove what writers that were killed have left; nobody may be writing for this container."""
        for beside in self.directory.glob(f".*-{container_id}-*.json.*"):
            beside.unlink(missing_ok=True)


def _order(record: Record) -> tuple[str, int, str]:
    link = record.attachment
    return link.container_id, len(link.ifname), link.ifname


def _read(path: Path) -> Record:
    document = json.loads(path.read_text())
    pairs = tuple((str(key), str(value)) for key, value in document["cniArgs"])
    link = Attachment(document["containerId"], document["netns"], document["ifName"], pairs, document["capabilityArgs"])
    return Record(Network.parse(json.dumps(document["config"])), link, document["done"], document["result"])
