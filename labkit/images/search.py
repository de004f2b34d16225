"""The search that `docker search` and `podman search` ask for, over what the lab's registry has.

A registry lists its repositories, and knows no search: that is a service of Docker Hub's index, `/v1/search?q=TERM`. This program answers
it, and each description says of which registry it speaks. What it answers, it reads from the registry anew each time.
See: docker-search(1), podman-search(1), https://distribution.github.io/distribution/spec/api/#listing-repositories
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labkit import trace
from labkit.errors import LabError
from labkit.images import catalogue
from labkit.images.debian import architecture
from labkit.images.oci import INDEXES, ImageConfig, Index, Manifest
from labkit.images.registry import Registry
from labkit.images.serving import announce
from labkit.kernel import processes
from labkit.kernel.processes.process import Process

NAME = "search"
"""Of the process in its lab."""

VARIABLE = "INDEX"
"""The variable of a lab's shell lines that has the address: `docker search $INDEX/nginx`."""

DESCRIPTION = "org.opencontainers.image.description"
ORIGIN = "lab's registry: "
"""How each description begins."""

_OFFICIAL = "library/"
_MOST = 100


@dataclass(frozen=True)
class Result:
    """One repository that was found, in the words of Docker's index.

    Attributes:
        name: as it is typed; one of `library/` without this.
        description: what its image says of itself, and where it was found.
        is_official: whether it is one of `library/`.
        is_automated: whether Docker Hub builds it: nothing here.
        star_count: how many people like it: nobody was asked.
    """

    name: str
    description: str
    is_official: bool
    is_automated: bool = False
    star_count: int = 0


def search(registry: Registry, term: str, limit: int = 25) -> list[Result]:
    """Return the repositories that have `term` in their name; the official ones first, each kind by name.

    Args:
        registry: where to look.
        term: a part of a name.
        limit: how many at the most.

    Raises:
        UnreachableError: the registry is down.
    """
    found = [(not each.startswith(_OFFICIAL), each) for each in registry.catalog() if term in each.removeprefix(_OFFICIAL)]
    kept = [(each, registry.tags(each)) for _, each in sorted(found)]
    named = [(each, "latest" if "latest" in tags else tags[-1]) for each, tags in kept if tags]
    return [_result(registry, repository, tag) for repository, tag in named[:limit]]


def _result(registry: Registry, repository: str, tag: str) -> Result:
    said = _label(registry, repository, tag) or next((each.release for each in catalogue.IMAGES if each.repository == repository), "")
    return Result(repository.removeprefix(_OFFICIAL), ORIGIN + (said or repository), repository.startswith(_OFFICIAL))


def _label(registry: Registry, repository: str, tag: str) -> str:
    """Return what an image says of itself; "" where it says nothing, or is none of this machine's."""
    with suppress(LabError):
        descriptor, data = registry.manifest(repository, tag)
        if descriptor.media_type in INDEXES:
            _, data = registry.manifest(repository, Index.parse(data).for_platform(architecture()).digest)
        config = ImageConfig.parse(registry.read(repository, Manifest.parse(data).config))
        return config.execution.labels.get(DESCRIPTION, "")
    return ""


class Server(ThreadingHTTPServer):
    """Docker's index on a free port of 127.0.0.1.

    Args:
        registry: what it searches.
    """

    daemon_threads = True

    def __init__(self, registry: Registry) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry = registry

    @property
    def address(self) -> str:
        """Where it listens, host and port."""
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    """What docker's daemon and podman ask an index for: whether it is one, and the search."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if asked.path == "/v1/search":
            self._search(parse_qs(asked.query))
        elif asked.path == "/v1/_ping":
            self._answer(200, content=True, headers={"X-Docker-Registry-Version": "0.9.1", "X-Docker-Registry-Standalone": "true"})
        elif asked.path == "/v2/":
            self._answer(200, {}, {"Docker-Distribution-API-Version": "registry/2.0"})
        else:
            self._answer(404, {"error": "an index answers /v1/search, /v1/_ping and /v2/ alone"})

    def _search(self, query: Mapping[str, list[str]]) -> None:
        term, limit = query.get("q", [""])[0], query.get("n", ["25"])[0]
        if not limit.isdecimal() or not 1 <= int(limit) <= _MOST:
            self._answer(400, {"error": f"n is a number from 1 to {_MOST}"})
            return
        try:
            found = [asdict(each) for each in search(self.server.registry, term, int(limit))]
        except LabError as error:
            self._answer(503, {"error": str(error)})
            return
        self._answer(200, {"query": term, "num_results": len(found), "num_pages": 1, "page": 1, "results": found})

    def _answer(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        sys.stderr.write(f"{self.command} {self.path} {status}\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the word of http.server
        """Write nothing of what is no question: docker tries TLS first."""


def environment(directory: Path) -> dict[str, str]:
    """Return the variable with the address of the search of a lab; none where it was not started.

    Args:
        directory: of the lab.
    """
    with suppress(FileNotFoundError):
        return {VARIABLE: (directory / NAME).read_text().strip()}
    return {}


def serve(directory: Path, registry: str) -> Process:
    """Start the search of a lab and return once it listens.

    It writes its address into `directory/search`, what it was asked for into `search.log`, and for a terminal of the student's
    `search.env`.

    Shell:
        python -m labkit.images.search HOST:PORT $LAB/search &

    Args:
        directory: of the lab.
        registry: host and port of the registry that it searches.

    Raises:
        LabError: it ended instead, or does not listen in time, with the last line of its log.
    """
    place = directory / NAME
    place.unlink(missing_ok=True)  # of one that was killed
    log = directory / f"{NAME}.log"
    typed = f"python -m {__name__} {registry} {place} > {log} 2>&1 & {NAME}=$!; until [ -e {place} ]; do sleep 0.1; done"
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    own: dict[str, Any] = {"env": {**os.environ, "PATH": path}, "cwd": "/", "shell_line": typed}
    process = processes.start(["python", "-m", __name__, registry, place], name=NAME, stdout=log, **own)
    process.wait_ready(place.exists, "the lab's search", "does not listen", timeout=20)
    with trace.silent():
        (directory / f"{NAME}.env").write_text(f"export {VARIABLE}={place.read_text()}")
    return process


def main(registry: str, place: str) -> None:
    """Serve until killed.

    Args:
        registry: host and port of the registry.
        place: the file that gets the address once it listens.
    """
    with Server(Registry(registry, timeout=5)) as server:
        announce(server.address, Path(place))
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
