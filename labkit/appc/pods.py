"""The pods of a directory of rkt's: made, listed, found by the beginning of their UUID."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from labkit.appc.pod import PLACES, Pod, PodError


class Pods:
    """All pods of a directory of rkt's.

    Args:
        data: rkt's directory; /var/lib/rkt where none is given to `rkt`.
    """

    def __init__(self, data: Path) -> None:
        self.data = data

    def create(self) -> Pod:
        """Make an embryo, held by this process."""
        while True:
            pod = Pod(self.data, str(uuid.uuid4()))
            directory = self.data / "pods/embryo" / pod.uuid
            directory.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            directory.mkdir(mode=0o750)
            try:
                pod.lock()
            except PodError:
                continue  # a collector of garbage was faster than our lock
            pod.write("pod-created", "")
            return pod

    def all(self) -> tuple[Pod, ...]:
        """Return every pod, sorted by UUID."""
        return tuple(Pod(self.data, name) for name in sorted({name for place in PLACES for name in self._names(place)}))

    def find(self, prefix: str) -> Pod:
        """Return the one pod whose UUID begins with these characters.

        Raises:
            PodError: there is none, or there are several.
        """
        wanted = prefix.strip().lower()
        found = [pod for pod in self.all() if wanted and pod.uuid.startswith(wanted)]
        if len(found) > 1:
            raise PodError(f'ambiguous uuid "{prefix}": {len(found)} matches')
        if not found:
            raise PodError(f'no matches found for "{prefix}"')
        return found[0]

    def _names(self, place: str) -> list[str]:
        try:
            return [name for name in os.listdir(self.data / "pods" / place) if _is_uuid(name)]
        except FileNotFoundError:
            return []


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
