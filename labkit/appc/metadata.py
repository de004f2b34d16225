"""The metadata service of a pod: what its apps may ask about themselves, and signatures by which one pod knows another.

It listens on the loopback of the pod's own network namespace, so that only the pod reaches it; with the host's network the token in
its address keeps others out.

See:
    appc spec ace.md, "App Container Metadata Service"
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from labkit.appc.pod import Pod

TEXT, JSON = "text/plain; charset=us-ascii", "application/json"

_LONGEST = 1 << 20  # bytes of a form


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """Answer a request with another status than 200."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Metadata:
    """What one pod's service answers.

    Args:
        pod: its documents.
        key: by which this executor signs for all of its pods.

    Attributes:
        token: what the path of each request begins with.
    """

    def __init__(self, pod: Pod, key: bytes) -> None:
        self.uuid, self.token, self._key = pod.uuid, secrets.token_hex(32), key
        manifest = pod.manifest
        self._pod = (pod.directory / "pod").read_bytes()
        self._annotations = _pairs(dict(manifest.annotations))
        self._apps: dict[str, dict[str, tuple[str, bytes]]] = {}
        for app in manifest.apps:
            image = (pod.directory / "appsinfo" / app.name / "manifest").read_bytes()
            own = {one["name"]: one["value"] for one in json.loads(image).get("annotations") or ()}
            self._apps[app.name] = {
                "annotations": (JSON, _pairs({**own, **dict(app.annotations)})),
                "image/manifest": (JSON, image),
                "image/id": (TEXT, str(app.image_id).encode()),
            }

    def get(self, path: str) -> tuple[str, bytes]:
        """Return type and content of what lies at a path below acMetadata/v1.

        Raises:
            Refused: nothing does.
        """
        of_pod = {"annotations": (JSON, self._annotations), "manifest": (JSON, self._pod), "uuid": (TEXT, self.uuid.encode())}
        kind, _, rest = path.partition("/")
        name, _, part = rest.partition("/")
        found = of_pod.get(rest) if kind == "pod" else self._apps.get(name, {}).get(part) if kind == "apps" else None
        if found is None:
            raise Refused(HTTPStatus.NOT_FOUND)
        return found

    def post(self, path: str, form: dict[str, str]) -> tuple[str, bytes]:
        """Sign the form's `content` for this pod, or verify that the pod `uuid` has signed it.

        Raises:
            Refused: a field is missing (400), or the signature is another's (403).
        """
        if path not in ("pod/hmac/sign", "pod/hmac/verify"):
            raise Refused(HTTPStatus.NOT_FOUND)
        try:
            if path == "pod/hmac/sign":
                return TEXT, self._signature(self.uuid, form["content"])
            right = hmac.compare_digest(self._signature(form["uuid"], form["content"]), form["signature"].encode())
        except KeyError as error:
            raise Refused(HTTPStatus.BAD_REQUEST) from error
        if not right:
            raise Refused(HTTPStatus.FORBIDDEN)
        return TEXT, b""

    def _signature(self, uuid: str, content: str) -> bytes:
        signed = uuid.encode() + b"\0" + content.encode("utf-8", "surrogateescape")
        return base64.b64encode(hmac.digest(self._key, signed, hashlib.sha512))


def serve(metadata: Metadata, listening: socket.socket) -> _Server:
    """Answer on a socket that listens, from a thread, until the server's `shutdown`."""
    server = _Server(metadata, listening)
    threading.Thread(target=server.serve_forever, args=(0.1,), name="metadata", daemon=True).start()
    return server


def key(directory: Path) -> bytes:
    """Return the key by which an executor signs, made at the first time.

    Args:
        directory: rkt's.
    """
    file = directory / "metadata-key"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        found = file.read_bytes()
        if len(found) == 32:
            return found
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)  # who made it was killed
    with open(descriptor, "wb") as opened:
        made = secrets.token_bytes(32)
        opened.write(made)
    return made


def _pairs(annotations: dict[str, str]) -> bytes:
    return json.dumps([{"name": name, "value": value} for name, value in annotations.items()]).encode()


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True

    def __init__(self, metadata: Metadata, listening: socket.socket) -> None:
        super().__init__(listening.getsockname()[:2], _Answer, bind_and_activate=False)
        self.socket.close()
        self.socket, self.metadata = listening, metadata

    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that went away."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out whole
    disable_nagle_algorithm = True
    timeout = 30
    server: Any

    def do_GET(self) -> None:
        """Answer what is asked."""
        self._answer(lambda path: self.server.metadata.get(path))

    def do_POST(self) -> None:
        """Sign, or verify."""
        length = self.headers.get("Content-Length", "0")
        size = int(length) if length.isdecimal() else 0
        if size > _LONGEST:
            self.close_connection = True
            return self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        text = self.rfile.read(size).decode("utf-8", "surrogateescape")
        form = {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True, errors="surrogateescape").items()}
        return self._answer(lambda path: self.server.metadata.post(path, form))

    def _answer(self, answer: Any) -> None:
        try:
            kind, content = answer(self._path())
            status = HTTPStatus.OK
        except Refused as refused:
            status, kind, content = refused.status, TEXT, f"{refused}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _path(self) -> str:
        """Return the path below acMetadata/v1 of a request that may be answered."""
        parts = urlsplit(self.path).path.strip("/").split("/")
        if not hmac.compare_digest(parts[0].encode(), self.server.metadata.token.encode()) or parts[1:3] != ["acMetadata", "v1"]:
            raise Refused(HTTPStatus.NOT_FOUND)
        if self.headers.get("Metadata-Flavor") != "AppContainer":
            raise Refused(HTTPStatus.BAD_REQUEST)
        return "/".join(parts[3:])

    def log_message(self, *_: object) -> None:
        """Keep no log."""
