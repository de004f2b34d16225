"""What a pod's apps write, and what a person types: lines of each app by its name, or a terminal handed through.

See: pty(7), termios(3)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 1 << 16  # bytes of a line that is not ended


class Lines:
    """The output of one app, written on as lines that say when and by whom: `[ 3931.297] app[5]: text`, ended by CR LF.

    Attributes:
        fd: the end of the pipe that is read.
        given: the end that the app gets.
        pid: of the program that writes now, as the pod numbers it.
    """

    def __init__(self, app: str, to: int = 1) -> None:
        self.app, self.pid = app, 0
        self.fd, self.given = os.pipe()
        os.set_blocking(self.fd, False)
        self._to, self._rest = to, b""

    def take(self) -> bool:
        """Write on what is there, if anything is; False where all writers are gone."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:  # it was taken while another word was heard
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._rest and (not data or len(self._rest) > _LONGEST):
            lines, self._rest = [*lines, self._rest], b""
        write_all(self._to, b"".join(self._prefix() + line.rstrip(b"\r") + b"\r\n" for line in lines))
        return bool(data)

    def close(self) -> None:
        """Close the end that is read."""
        os.close(self.fd)

    def _prefix(self) -> bytes:
        return f"[{time.monotonic():9.3f}] {self.app}[{self.pid}]: ".encode()


class Terminal:
    """A pseudo-terminal for an app, joined to the terminal of this process.

    Attributes:
        fd: its master.
        path: the device that the app opens.
    """

    def __init__(self) -> None:
        self.fd, slave = os.openpty()
        self.path = os.ttyname(slave)
        self._slave = slave  # held until the app has it: a terminal that nobody has open is hung up
        self.resize()

    def take(self) -> bool:
        """Show what the app wrote; False where it has closed its side."""
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: hung up
            return False
        write_all(1, data)
        return bool(data)

    def typed(self) -> bool:
        """Pass on what a person types; False where there is nobody any more."""
        data = os.read(0, 1 << 12)
        if data:
            write_all(self.fd, data)
        return bool(data)

    def resize(self, *_: object) -> None:
        """Give the app's terminal the size of ours."""
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.fd, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Let our terminal pass every key on while the block runs."""
        before = termios.tcgetattr(0)
        handler = signal.signal(signal.SIGWINCH, self.resize)
        try:
            tty.setraw(0, termios.TCSADRAIN)  # what was typed before the app was there is the app's
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
            signal.signal(signal.SIGWINCH, handler)
            for fd in (self.fd, self._slave):
                os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it; where nobody reads any more, it is dropped."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:  # somebody has made our output so
                select.select([], [fd], [])
