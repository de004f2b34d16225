"""Look: get frames from the collector, which is started where none runs."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from labkit import ledger
from labkit.errors import LabError
from labkit.kernel.live.frame import Frame, apply

_TRIES = 5
_PACKAGES = Path(__file__).parents[3]


class Feed:
    """One who looks; a context manager that ends it.

    Args:
        timeout: seconds without a frame after which the collector is taken for dead.

    Raises:
        LabError: no collector can be started.
    """

    def __init__(self, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self.frame = Frame()
        self.ended = False
        self._rest = b""
        self._socket = self._connected()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> socket.socket:
        """Connect, and take the first frame: a collector that was about to end gives none."""
        for _ in range(_TRIES):
            connection = _connection()
            connection.settimeout(self._timeout)
            self._rest = b""
            with suppress(OSError):
                data = connection.recv(1 << 16)
                if data:
                    self._rest = data
                    return connection
            connection.close()
        raise LabError("the collector of the live view gives no frame", remedy=f"read {_log()}")

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with the next frame."""
        return self._socket.fileno()

    def frames(self) -> Iterator[Frame]:
        """Yield each frame as it comes, the newest where several have come; ends with `close` or with the collector."""
        while not self.ended:
            if self._applied():
                yield self.frame
            else:
                self._take(0)

    def ready(self) -> list[Frame]:
        """Return the frames that have come, and wait for none."""
        self._take(socket.MSG_DONTWAIT)
        return [self.frame] if self._applied() else []

    def _take(self, flags: int) -> None:
        try:
            data = self._socket.recv(1 << 18, flags)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._rest += data
        self.ended = self.ended or not data

    def _applied(self) -> bool:
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self.frame = apply(self.frame, line)
        return bool(lines)

    def close(self) -> None:
        """Look no more; may be called by another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def path() -> Path:
    """Return the socket of the collector."""
    return ledger.state() / "live.sock"


def _log() -> Path:
    return ledger.state() / "live.log"


def _connection() -> socket.socket:
    with suppress(OSError):
        return _connect()
    ledger.state().mkdir(parents=True, exist_ok=True)
    with open(f"{path()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError):
            return _connect()  # another one has started it meanwhile
        _start()
        return _connect()


def _connect() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path()))
    except OSError:
        connection.close()
        raise
    return connection


def _start() -> None:
    """Start the collector, and wait until it listens."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_PACKAGES), os.environ.get("PYTHONPATH"))))}
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(_log()), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    argv = [sys.executable, "-m", "labkit.kernel.live", str(path())]
    pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)
    _, status = os.waitpid(pid, 0)
    if status:
        said = _log().read_text(errors="replace").strip().splitlines()
        raise LabError(f"the collector of the live view does not start: {said[-1] if said else 'it says nothing'}", remedy=f"read {_log()}")
