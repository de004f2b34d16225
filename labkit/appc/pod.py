"""Pods on disk: a directory each, whose place says how far it came, and whose lock says whether somebody works on it.

embryo/UUID, prepare/UUID, prepared/UUID, run/UUID, exited-garbage/UUID, garbage/UUID: a pod moves to the right only, by
rename(2), and under an exclusive flock(2) on the directory itself. The kernel takes a lock back from a process that was
killed; so a pod in run/ that nobody holds has exited, however its supervisor ended. See: flock(2), rename(2)
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.appc.pod_manifest import PodManifest

PLACES = ("embryo", "prepare", "prepared", "run", "exited-garbage", "garbage")
"""The directories below pods/, in the order in which a pod may pass them."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TICK = 0.01


class State(StrEnum):
    """What `rkt list` says of a pod: its place and its lock together."""

    EMBRYO = "embryo"
    PREPARING = "preparing"
    ABORTED = "aborted prepare"
    PREPARED = "prepared"
    RUNNING = "running"
    EXITED = "exited"
    DELETING = "deleting"
    EXITED_GARBAGE = "exited garbage"
    GARBAGE = "garbage"


_STATES = {  # place: (nobody holds the lock, somebody holds it)
    "embryo": (State.EMBRYO, State.EMBRYO),
    "prepare": (State.ABORTED, State.PREPARING),
    "prepared": (State.PREPARED, State.PREPARED),
    "run": (State.EXITED, State.RUNNING),
    "exited-garbage": (State.EXITED_GARBAGE, State.DELETING),
    "garbage": (State.GARBAGE, State.DELETING),
}


@dataclass(frozen=True)
class Settings:
    """What a pod is run with, beside its manifest: kept in its file `runtime-config`.

    Attributes:
        hostname: "" for `rkt-UUID`.
        dns: name servers for /etc/resolv.conf; without any it is not written.
        dns_domain: for its line `domain`.
        dns_search: for its line `search`.
        dns_opt: for its line `options`.
        hosts_entry: lines of /etc/hosts, as `10.2.1.42=db`; `host` stands for the host's own file.
    """

    hostname: str = ""
    dns: tuple[str, ...] = ()
    dns_domain: str = ""
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    hosts_entry: tuple[str, ...] = ()


class PodError(LabError):
    """Say why a pod cannot be found, or not be taken to another place."""


class Pod:
    """One pod's directory, wherever it lies now.

    Attributes:
        uuid: of the pod, 36 characters.
        data: rkt's directory, in which pods/ and cas/ lie.
        lock_fd: the descriptor by which this process holds the pod's lock; -1 where it does not.
            A process that inherits it keeps the pod running.
    """

    def __init__(self, data: Path, pod_uuid: str) -> None:
        self.data = data
        self.uuid = pod_uuid
        self.lock_fd = -1

    def __repr__(self) -> str:
        return f"<pod {self.uuid}>"

    @property
    def place(self) -> str:
        """The directory below pods/ in which it lies now.

        Raises:
            PodError: it is gone.
        """
        for _ in range(2):  # it moves to the right only: a pod that moved while we looked is found the second time
            for place in PLACES:
                if (self.data / "pods" / place / self.uuid).is_dir():
                    return place
        raise PodError(f'no matches found for "{self.uuid}"')

    @property
    def directory(self) -> Path:
        """Where it lies now."""
        return self.data / "pods" / self.place / self.uuid

    @property
    def state(self) -> State:
        """What its place and its lock say now."""
        while True:
            place = self.place
            if self.lock_fd >= 0:
                return _STATES[place][1]
            try:
                held = _is_held(self.data / "pods" / place / self.uuid)
            except FileNotFoundError:
                continue  # it moved on
            return _STATES[place][held]

    @property
    def manifest(self) -> PodManifest:
        """The pod manifest, fully reified."""
        from labkit.appc.pod_manifest import PodManifest

        return PodManifest.parse((self.directory / "pod").read_bytes())

    @property
    def settings(self) -> Settings:
        """What it is run with, beside its manifest."""
        found: dict[str, Any] = json.loads(self.read("runtime-config") or "{}")
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
        return Settings(**values)

    @settings.setter
    def settings(self, settings: Settings) -> None:
        """Keep what it is run with."""
        self.write("runtime-config", json.dumps(asdict(settings), indent=1))

    @property
    def overlay(self) -> bool:
        """Whether each app gets an overlay over its image's tree; else it gets a copy."""
        return self.read("overlay-prepared") is not None

    def rootfs_of(self, app: str) -> Path:
        """Return where the root file system of an app is mounted while the pod runs."""
        return self.stage1 / "opt/stage2" / app / "rootfs"

    @property
    def stage1(self) -> Path:
        """The root of the pod's own, with the roots of the apps below it."""
        return self.directory / "stage1/rootfs"

    def image_of(self, app: str) -> Path:
        """Return the root of an app's image as the store has rendered it: the lower directory of its overlay, or what is copied."""
        return self.data / "cas/tree" / (self.directory / "appsinfo" / app / "treeStoreID").read_text().strip() / "rootfs"

    @property
    def pid(self) -> int | None:
        """The pod's process 1 as the host numbers it; None before it was started."""
        text = self.read("pid")
        return int(text) if text and text.strip().isdigit() else None

    @property
    def exit_codes(self) -> dict[str, int]:
        """The exit status of each app that has ended, by its name, as stage 1 has written them to status/APP."""
        folder = self.directory / "status"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        codes = {name: (self.read(f"status/{name}") or "").strip() for name in names}
        return {name: int(code) for name, code in codes.items() if code.lstrip("-").isdigit()}

    @property
    def has_begun(self) -> bool:
        """Whether it runs, and each of its apps has become its program or has ended."""
        return self.state is State.RUNNING and all(app.name in self.exit_codes or self._is_executed(app.name) for app in self.manifest.apps)

    def _is_executed(self, app: str) -> bool:
        keeper = (self.read(f"appsinfo/{app}/pid") or "").strip()
        try:
            if not os.path.samefile(f"/proc/{keeper}/ns/pid", f"/proc/{self.pid}/ns/pid"):
                return False
            oldest = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()[:1]
            return bool(oldest) and Path(f"/proc/{oldest[0]}/comm").read_text() != Path(f"/proc/{keeper}/comm").read_text()
        except OSError:
            return False  # it is not there yet, or not any more

    def read(self, name: str) -> str | None:
        """Return the text of one of its files, or None where it is not there."""
        try:
            return (self.directory / name).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, text: str) -> Path:
        """Write one of its files, whole or not at all."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_text(text)
        return beside.replace(path)

    def since(self, name: str) -> float | None:
        """Return when one of its files was written, in seconds since 1970; None where it is not there."""
        try:
            return (self.directory / name).lstat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def lock(self, seconds: float = 0.5) -> None:
        """Hold the pod for this process, exclusively.

        Args:
            seconds: for which it tries: who only looks at the pod holds its lock for an instant.

        Raises:
            PodError: another process holds it, or it is gone.
        """
        deadline = time.monotonic() + seconds
        while self.lock_fd < 0:
            directory = self.directory
            try:
                fd = os.open(directory, _OPEN)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                continue
            except BlockingIOError as error:
                os.close(fd)
                if time.monotonic() > deadline:
                    raise PodError(f'pod "{self.uuid}" is held by another process') from error
                time.sleep(_TICK)
                continue
            if _is_same(fd, directory):
                self.lock_fd = fd
            else:
                os.close(fd)  # it moved before we had it

    def unlock(self) -> None:
        """Let go of the pod; whoever inherited the lock keeps it."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
            self.lock_fd = -1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the pod for the length of a block.

        Raises:
            PodError: another process holds it, or it is gone.
        """
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def move(self, place: str) -> None:
        """Take the pod, which this process holds, to a later place.

        Raises:
            PodError: it lies there already, or further.
        """
        before = self.place
        if PLACES.index(place) <= PLACES.index(before):
            raise PodError(f'pod "{self.uuid}" cannot go from {before} to {place}')
        target = self.data / "pods" / place / self.uuid
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.data / "pods" / before / self.uuid).rename(target)


def _is_held(directory: Path) -> bool:
    """Tell whether a process holds the directory's lock: then we cannot share it."""
    fd = os.open(directory, _OPEN)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _is_same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
