"""The hosts of the course's ACIs, on this machine: an https proxy that answers in the place of `coreos.com`, `github.com` and `quay.io`.

rkt reaches them as it reaches every host behind a proxy: it reads HTTPS_PROXY, asks this program to connect it (CONNECT), speaks TLS with
whoever is at the other end, and checks the certificate against SSL_CERT_FILE. The other end is this program: it has a directory for
each of these hosts, sends the files in them, and refuses every other host.
See: RFC 9110 section 9.3.6; appc spec discovery.md
"""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from labkit import trace
from labkit.appc.discovery import IMAGE
from labkit.appc.publishing import PAGE
from labkit.images.serving import announce
from labkit.kernel import commands, processes
from labkit.kernel.processes.process import Process

NAME = "sites"
"""Of the process in its lab, and of its files."""

_DAYS = "3650"


def hosts(roots: Sequence[Path]) -> tuple[str, ...]:
    """Return the hosts that have a directory."""
    return tuple(sorted({each.name for root in roots if root.is_dir() for each in root.iterdir() if each.is_dir()}))


def certify(names: Sequence[str], certificate: Path, key: Path) -> None:
    """Make a certificate for some hosts that stands for itself, and its key.

    Shell:
        openssl req -x509 -newkey ec ... -addext subjectAltName=DNS:HOST,... -out CERTIFICATE -keyout KEY

    Raises:
        CommandError: openssl failed.
    """
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", _DAYS)
    said = ("-subj", "/CN=labkit sites", "-addext", f"subjectAltName={','.join(f'DNS:{name}' for name in names)}")
    commands.run(["openssl", "req", "-x509", *kind, *said, "-keyout", key, "-out", certificate], timeout=60)
    key.chmod(0o600)


class Server(ThreadingHTTPServer):
    """The proxy, on a free port of 127.0.0.1.

    Args:
        roots: directories with a directory for each host; the first that has a file sends it.
        certificate: for these hosts.
        key: of the certificate.
    """

    daemon_threads = True

    def __init__(self, roots: Sequence[Path], certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.roots = tuple(roots)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)

    @property
    def address(self) -> str:
        """Where it listens, host and port."""
        return f"127.0.0.1:{self.server_port}"

    def file(self, host: str, path: str) -> Path | None:
        """Return the file that a host sends for a path; None where it has none. No path leads out of the directory."""
        parts = [unquote(part) for part in path.split("/") if part]
        if any(part in (".", "..") or "/" in part or "\0" in part for part in (host, *parts)):
            return None
        return next((place for place in (root.joinpath(host, *parts) for root in self.roots) if place.is_file()), None)


class _Handler(BaseHTTPRequestHandler):
    """A client's connection: first to the proxy, and after CONNECT, through TLS, to the host."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "labkit-sites"
    sys_version = ""
    timeout = 60
    host = ""
    """To whom the client believes to speak; "" while it speaks to the proxy."""

    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        if self.host or port != "443" or host not in hosts(self.server.roots):
            self._refuse(502, f"this proxy connects to {', '.join(hosts(self.server.roots))} alone, port 443")
            self.close_connection = True
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        try:
            secured = self.server.context.wrap_socket(self.connection, server_side=True)
        except (OSError, ssl.SSLError):
            self.close_connection = True  # it does not believe that we are the host
            return
        self.host, self.connection = host, secured
        self.rfile, self.wfile = secured.makefile("rb"), secured.makefile("wb")
        self.close_connection = False

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        host = self.host or asked.hostname or ""  # without TLS a proxy is given the whole URL
        discovers = parse_qs(asked.query).get(IMAGE) == ["1"]
        file = self.server.file(host, f"{asked.path}/{PAGE}" if discovers else asked.path)
        if file is None:
            self._refuse(404, f"{host} has no {self.path}")
        else:
            self._send(file, "text/html" if discovers else "application/octet-stream")

    def _send(self, file: Path, kind: str) -> None:
        with file.open("rb") as content:
            status = os.fstat(content.fileno())
            etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
            if self.headers.get("If-None-Match") == etag:
                self._head(304, {"ETag": etag})
                return
            self._head(200, {"Content-Type": kind, "Content-Length": str(status.st_size), "ETag": etag})
            shutil.copyfileobj(content, self.wfile, 2**18)

    def _refuse(self, status: int, why: str) -> None:
        body = f"{why}\n".encode()
        self._head(status, {"Content-Type": "text/plain", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        sys.stderr.write(f"{self.command} {self.host} {self.path} {status}\n")

    def finish(self) -> None:
        """Close what became of the connection."""
        with suppress(OSError):
            super().finish()
        if self.host:
            with suppress(OSError):
                self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the word of http.server
        """Write nothing of what is no question."""


def environment(directory: Path) -> dict[str, str]:
    """Return the variables with which rkt reaches the hosts of a lab; none where they were not started.

    Args:
        directory: of the lab.
    """
    with suppress(FileNotFoundError):
        address = (directory / NAME).read_text().strip()
        proxy, certificate = f"http://{address}", str(directory / f"{NAME}.crt")
        return {"HTTPS_PROXY": proxy, "https_proxy": proxy, "SSL_CERT_FILE": certificate, "CURL_CA_BUNDLE": certificate}
    return {}


def serve(directory: Path, *roots: Path) -> Process:
    """Start the hosts of a lab and return once they answer.

    It writes the proxy's address into `directory/sites`, the certificate into `sites.crt`, what was asked for into `sites.log`, and for
    a terminal of the student's `sites.env`.

    Shell:
        python -m labkit.appc.sites $LAB/sites $LAB/sites.crt $LAB/sites.key ROOT... &

    Args:
        directory: of the lab.
        roots: directories with a directory for each host.

    Raises:
        LabError: it ended instead, or does not listen in time, with the last line of its log.
        CommandError: openssl failed.
    """
    place, log = directory / NAME, directory / f"{NAME}.log"
    certificate, key = directory / f"{NAME}.crt", directory / f"{NAME}.key"
    place.unlink(missing_ok=True)  # of one that was killed
    with trace.silent():
        certify(hosts(roots), certificate, key)
    words = [str(each) for each in (place, certificate, key, *roots)]
    typed = f"python -m {__name__} {' '.join(words)} > {log} 2>&1 & {NAME}=$!; until [ -e {place} ]; do sleep 0.1; done"
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    own: dict[str, Any] = {"env": {**os.environ, "PATH": path}, "cwd": "/", "shell_line": typed}
    process = processes.start(["python", "-m", __name__, *words], name=NAME, stdout=log, **own)
    process.wait_ready(place.exists, "the hosts of the lab's ACIs", "do not listen", timeout=20)
    with trace.silent():
        lines = (f"export {name}={value}" for name, value in environment(directory).items())
        (directory / f"{NAME}.env").write_text("\n".join([*lines, ""]))
    return process


def main(place: str, certificate: str, key: str, *roots: str) -> None:
    """Serve until killed.

    Args:
        place: the file that gets the address once it listens.
        certificate: for the hosts.
        key: of the certificate.
        roots: directories with a directory for each host.
    """
    with Server([Path(root) for root in roots], Path(certificate), Path(key)) as server:
        announce(server.address, Path(place))
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
