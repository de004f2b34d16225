"""JupyterLab of this checkout: started on 127.0.0.1 with a token, found again, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit import ledger
from labkit.errors import LabError
from labkit.host import workspace

PORT = 8888
START_SECONDS = 300.0  # in an emulated machine; one that fails ends at once
STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Server:
    """A JupyterLab that answers.

    Attributes:
        pid: its process.
        port: where it listens on 127.0.0.1.
        token: the secret that its URL carries; made by Jupyter, another one at each start.
        root: the directory that it serves.
    """

    pid: int
    port: int
    token: str
    root: Path

    @property
    def url(self) -> str:
        """Return what to open in a browser."""
        return f"http://127.0.0.1:{self.port}/lab?token={self.token}"

    def answers(self) -> bool:
        """Tell whether it serves requests now."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/status", headers={"Authorization": f"token {self.token}"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy knows no 127.0.0.1 of ours
        try:
            with direct.open(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def find(root: Path) -> Server | None:
    """Return the running JupyterLab that serves `root`, or None."""
    return next((server for server in running() if server.root == root.resolve()), None)


def running() -> list[Server]:
    """Return each JupyterLab of this state directory that answers."""
    return [server for server in _servers() if server.answers()]


def serve(root: Path, announce: Callable[[str], None], *, port: int = PORT, live: Sequence[str] = ()) -> None:
    """Start JupyterLab on `root`, announce its URL once it answers, and stay until it ends or Ctrl-C is pressed.

    Shell: jupyter lab --ip=127.0.0.1 --no-browser --allow-root --ServerApp.root_dir=ROOT

    Args:
        root: the directory to serve.
        announce: gets each line meant for the person who waits.
        port: the first port to try; where it is taken the next free one is used, and announced.
        live: the command of the live view, which gets a terminal of its own.

    Raises:
        LabError: it did not come up; the log and its last line are named.
    """
    there = find(root)
    if there:
        announce(f"JupyterLab runs already: {there.url}")
        return
    with _ended_by_signals():
        pid = _spawn(root.resolve(), port)
        try:
            server = _wait_until_it_answers(pid)
            workspace.prepare(server, live)
            if server.port != port:
                announce(f"port {port} is taken, JupyterLab listens on {server.port}")
            announce(f"JupyterLab runs, Ctrl-C stops it: {server.url}")
            _tell_systemd()
            status = os.waitpid(pid, 0)[1]
        except KeyboardInterrupt:
            announce("JupyterLab stops")
            _stop(pid)
            return
    if status:
        raise LabError(f"JupyterLab ended by itself: {_last_line()}", remedy=f"read {log()}")


def log() -> Path:
    """Return the file in which JupyterLab writes what happens to it."""
    return ledger.state() / "jupyter.log"


def _runtime() -> Path:
    return ledger.state() / "jupyter"


def _servers() -> Iterator[Server]:
    for file in sorted(_runtime().glob("jpserver-*.json")):
        try:
            told = json.loads(file.read_text())
            if not os.path.exists(f"/proc/{told['pid']}"):
                file.unlink()  # its server was killed
                continue
            yield Server(told["pid"], told["port"], told["token"], Path(told["root_dir"]).resolve())
        except (OSError, ValueError, KeyError):
            continue  # just being written, or just removed


def _arguments(root: Path, port: int) -> list[str]:
    shell = ["/bin/bash"]  # not a login shell: that one resets PATH, and `labkit` would not be found
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return [
        *(sys.executable, "-m", "jupyterlab", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}"),
        f"--ServerApp.open_browser={bool(display)}",
        f"--ServerApp.terminado_settings=shell_command={json.dumps(shell)}",
        "--LabApp.extension_manager=readonly",  # the other one asks PyPI
    ]


def _environment() -> dict[str, str]:
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    own = {
        "JUPYTER_RUNTIME_DIR": str(_runtime()),
        "JUPYTER_CONFIG_DIR": str(_runtime() / "config"),  # not the user's: a password set there would take the token away
        "JUPYTER_DATA_DIR": os.path.join(sys.prefix, "jupyter"),  # where set-up noted that the notebooks are trusted
        "PATH": path,
    }
    return {**os.environ, **own}


def _spawn(root: Path, port: int) -> int:
    _runtime().mkdir(parents=True, exist_ok=True)
    arguments = _arguments(root, port)
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log()), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),  # it may name the token
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # A session of its own: Ctrl-C in the terminal reaches us alone, and Jupyter asks no "Shut down (y/n)?".
    return os.posix_spawn(arguments[0], arguments, _environment(), file_actions=actions, setsid=True)


def _wait_until_it_answers(pid: int) -> Server:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            raise LabError(f"JupyterLab ended at once: {_last_line()}", remedy=f"read {log()}")
        for server in _servers():
            if server.pid == pid and server.answers():
                return server
        time.sleep(0.05)
    _stop(pid)
    raise LabError(f"JupyterLab does not answer after {START_SECONDS:.0f} s: {_last_line()}", remedy=f"read {log()}")


def _tell_systemd() -> None:
    """Say that we are ready, where a unit of Type=notify started us. See: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(b"READY=1", address.replace("@", "\0", 1))


def _last_line() -> str:
    lines = log().read_text(errors="replace").strip().splitlines() if log().exists() else []
    return lines[-1].strip() if lines else "it wrote nothing"


def _stop(pid: int) -> None:
    """End the server and its kernels; after STOP_SECONDS without its consent."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the server as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
