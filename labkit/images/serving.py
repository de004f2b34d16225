"""A registry that runs while it is needed: to seed a storage directory when no service uses it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from labkit.errors import LabError
from labkit.images.registry import Registry, UnreachableError
from labkit.kernel import commands

_USER = "docker-registry"
_PATIENCE = 20.0
"""Seconds in which a registry that was started has to answer."""


def announce(address: str, place: Path) -> None:
    """Write where a server listens into a file, which others find whole or not at all."""
    partial = place.with_name(f"{place.name}.partial")
    partial.write_text(f"{address}\n")
    partial.replace(place)


@contextmanager
def serving(storage: Path) -> Iterator[Registry]:
    """Run Debian's registry over a storage directory, on a free port of 127.0.0.1, as long as the block lasts.

    It ends with this process, however this ends. What it wrote then belongs to the owner of the directory; a new directory
    belongs to the user as whom the registries of this machine run.

    Shell:
        docker-registry serve config.yml

    Raises:
        UnsupportedError: docker-registry is not installed.
        LabError: it does not start.
    """
    if shutil.which("docker-registry") is None:
        raise commands.missing("docker-registry")
    if not storage.exists():
        storage.mkdir(parents=True)
        with contextlib.suppress(LookupError):
            shutil.chown(storage, _USER, _USER)
    with TemporaryDirectory(prefix="labkit-registry-") as directory:
        config = Path(directory, "config.yml")
        port = _free_port()
        config.write_text(json.dumps(_configuration(storage, port)))  # JSON is YAML, too
        process = commands.child(["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", str(config)], keep=())
        try:
            registry = Registry(f"127.0.0.1:{port}")
            _wait(registry, process.poll)
            yield registry
        finally:
            process.terminate()
            process.wait()
            _hand_over(storage)


def _hand_over(storage: Path) -> None:
    owner = storage.stat()
    for directory, names, files in os.walk(storage):
        for name in (*names, *files):
            with contextlib.suppress(FileNotFoundError):  # a registry that serves it meanwhile may remove an upload
                os.chown(os.path.join(directory, name), owner.st_uid, owner.st_gid, follow_symlinks=False)


def _configuration(storage: Path, port: int) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(registry: Registry, ended: Callable[[], int | None]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            registry.ping()
        except UnreachableError as error:
            if (status := ended()) is not None:
                raise LabError(f"docker-registry did not start: exit status {status}", cause=error.cause) from error
            if time.monotonic() > deadline:
                raise LabError(f"docker-registry did not answer within {_PATIENCE:g} s", cause=error.cause) from error
            time.sleep(0.05)
        else:
            return
