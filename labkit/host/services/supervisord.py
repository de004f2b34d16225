"""Where systemd does not run: one supervisord of ours starts the services, and starts again what was killed. See: supervisord(1).

It is spoken to through its XML-RPC on a unix socket. A service ends when supervisord dies (PR_SET_PDEATHSIG), so that nobody's child is
left to hold a port; dnsmasq alone lives on, since it changes its user. What a service starts carries the instance's mark in its
environment, so that it is known as ours.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import shutil
import socket
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.host.services import files, holders, programs
from labkit.host.services.backend import Process, Running
from labkit.host.services.places import Places
from labkit.host.services.table import SERVICES, Service
from labkit.kernel import commands

START_SECONDS = 20.0
STOP_SECONDS = 40
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "LANG")
"""What the services get of the environment of who started them: the ways to the outside."""

_AND_WAIT = True
_STATES: dict[str, Running] = {
    "RUNNING": "running",
    "STARTING": "starting",
    "BACKOFF": "starting",
    "EXITED": "starting",  # it is about to be started again
    "STOPPING": "starting",
    "FATAL": "failed",
}


class Supervisord:
    """The supervisord of one instance."""

    name = "supervisord"

    def __init__(self, places: Places) -> None:
        self.places = places

    @property
    def file(self) -> Path:
        """Return its configuration."""
        return self.places.configuration / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """Return where it is spoken to."""
        return self.places.run / "supervisor.sock"

    def observe(self, service: Service) -> Process:
        """Return the state of a program."""
        try:
            told = self._call("getProcessInfo", service.name)
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return Process("stopped")
        running = _STATES.get(told["statename"], "stopped")
        return Process(running, told["pid"], float(told["start"]) if told["pid"] else 0.0, told["spawnerr"])

    def start(self, service: Service, *, again: bool = False) -> bool:
        """Start a program, supervisord itself before it; one that hangs is killed, and so started again. Tell whether it was started.

        Raises:
            LabError: supervisord does not come up, or the program is not there.
        """
        if shutil.which(service.program, path=programs.PATH) is None:
            raise LabError(f"{service.name} needs the command {service.program}, there is none in {programs.PATH}", remedy="make lab")
        changed = programs.prepare(service.name, self.places)
        self._bring_up()
        process = self.observe(service)
        if again and process.pid:
            holders.end([process.pid], politely=2)
            return True
        if changed and process.pid:
            self._call("stopProcess", service.name, _AND_WAIT)
        if self.observe(service).running not in ("stopped", "failed"):
            return False
        self._call("startProcess", service.name, not _AND_WAIT)
        return True

    def stop(self, service: Service) -> None:
        """Stop a program, and wait for its end; supervisord kills it after STOP_SECONDS."""
        with contextlib.suppress(OSError, xmlrpc.client.Fault, http.client.HTTPException):
            self._call("stopProcess", service.name, _AND_WAIT)

    def log(self, service: Service) -> str:
        """Return the file."""
        return str(self.places.logs / f"{service.name}.log")

    def last_line(self, service: Service) -> str:
        """Return the last line of the log that says something."""
        try:
            with open(self.log(service), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1].strip() if lines else "it wrote nothing"

    def close(self) -> None:
        """End supervisord, and wait until it is gone."""
        pid = self._pid()
        with contextlib.suppress(OSError, xmlrpc.client.Error, http.client.HTTPException):
            self._call("shutdown")
        deadline = time.monotonic() + STOP_SECONDS
        while pid and os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.02)
        self.socket.unlink(missing_ok=True)

    def _bring_up(self) -> None:
        changed = files.write(self.file, self._configuration(), mode=0o600)
        if self._pid():
            if changed:
                self._reload()
            return
        self.socket.unlink(missing_ok=True)
        commands.run(["supervisord", "--configuration", self.file], env=_environment(), cwd="/", timeout=START_SECONDS)
        deadline = time.monotonic() + START_SECONDS
        while not self._pid():
            if time.monotonic() > deadline:
                raise LabError(f"supervisord does not answer on {self.socket}", remedy=f"read {self.places.logs / 'supervisord.log'}")
            time.sleep(0.02)

    def _reload(self) -> None:
        ((added, changed, removed),) = self._call("reloadConfig")
        for name in (*changed, *removed):
            self._call("stopProcess", name, _AND_WAIT) if self._runs(name) else None
            self._call("removeProcessGroup", name)
        for name in (*changed, *added):
            self._call("addProcessGroup", name)

    def _runs(self, name: str) -> bool:
        return bool(self._call("getProcessInfo", name)["pid"])

    def _pid(self) -> int:
        try:
            return int(self._call("getPID"))
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return 0

    def _call(self, method: str, *arguments: object) -> Any:
        with _proxy(self.socket) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _configuration(self) -> str:
        head: dict[str, dict[str, object]] = {
            "unix_http_server": {"file": self.socket, "chmod": "0700"},
            "rpcinterface:supervisor": {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
            "supervisord": {
                "user": "root",
                "directory": "/",
                "pidfile": self.places.run / "supervisord.pid",
                "logfile": self.places.logs / "supervisord.log",
                "logfile_maxbytes": "1MB",
                "logfile_backups": 1,
                "childlogdir": self.places.logs,
            },
        }
        return files.MARK + "\n" + "".join(_section(title, lines) for title, lines in {**head, **self._programs()}.items())

    def _programs(self) -> dict[str, dict[str, object]]:
        found = {}
        for service in SERVICES:
            with contextlib.suppress(LabError):  # its package is not installed: its own start says so
                found[f"program:{service.name}"] = self._program(service)
        return found

    def _program(self, service: Service) -> dict[str, object]:
        program = programs.program(service.name, self.places)
        marked = (("LABKIT_SERVICE", service.name), ("LABKIT_SERVICES_OF", str(self.places.state)), ("PATH", programs.PATH))
        ended = ("setpriv", "--pdeathsig", "TERM", "--")
        return {
            "command": shlex.join([*ended, *program.argv]).replace("%", "%%"),
            "user": program.user,
            "environment": ",".join(f'{name}="{value}"'.replace("%", "%%") for name, value in (*marked, *program.environment)),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": 2,  # supervisord looks once a second: an end is seen up to a second late
            "startretries": 3,
            "stopsignal": program.stopsignal,
            "stopwaitsecs": STOP_SECONDS,
            "redirect_stderr": "true",
            "stdout_logfile": self.log(service),
            "stdout_logfile_maxbytes": "4MB",
            "stdout_logfile_backups": 1,
        }


def _section(title: str, lines: dict[str, object]) -> str:
    return f"[{title}]\n" + "".join(f"{name}={value}\n" for name, value in lines.items())


def _environment() -> dict[str, str]:
    return {"PATH": programs.PATH, "HOME": "/root", **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=STOP_SECONDS + 10)
        self.path = path

    def connect(self) -> None:
        """Connect to the unix socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - there is one only
        """Return a connection to the unix socket."""
        return _Connection(self.path)


@contextlib.contextmanager
def _proxy(path: Path) -> Iterator[Any]:
    with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(str(path))) as proxy:
        yield proxy
