"""Ask each service whether it serves: one request, one answer, never a guess from a process that exists."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from labkit.host.services.places import Places

PATIENCE = 3.0
"""Seconds in which an answer must come."""


@dataclass(frozen=True)
class Health:
    """What a service answered.

    Attributes:
        ok: whether it serves.
        said: its answer, or why there is none.
        held: whether somebody listens there at all.
    """

    ok: bool
    said: str
    held: bool = True


def ask(name: str, places: Places) -> Health:
    """Ask a service of this name at its place."""
    try:
        return _ASK[name](places)
    except (ConnectionError, FileNotFoundError, TimeoutError) as error:
        held = isinstance(error, TimeoutError | ConnectionResetError)
        said = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or "no answer"
        return Health(ok=False, said=said, held=held)
    except OSError as error:
        return Health(ok=False, said=str(error))


def _registry(places: Places) -> Health:
    with socket.create_connection(("127.0.0.1", places.registry), PATIENCE) as connection:
        return _as_registry(_get(connection, "/v2/"), 200)


def _accounts(places: Places) -> Health:
    import base64
    import ssl  # takes 20 ms, and one service needs it

    with socket.create_connection(("127.0.0.1", places.accounts), PATIENCE) as plain:
        directory = places.accounts_directory
        try:
            context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
            password = (directory / "password").read_text().strip()
        except OSError as error:
            return Health(ok=False, said=f"{error.filename or directory / 'ca.crt'}: {error.strerror}")
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            token = base64.b64encode(f"student:{password}".encode()).decode()
            return _as_registry(_get(connection, "/v2/", f"Authorization: Basic {token}"), 200)


def _docker(places: Places) -> Health:
    from labkit.kernel import network

    with _unix(str(places.docker)) as connection:
        answer = _get(connection, "/_ping")
    version = re.search(rb"(?im)^server: docker/(\S+)", answer)
    bridge = _default_bridge(places)
    if bridge and not any(link.ifname == bridge for link in network.links()):
        return Health(ok=False, said=f"its bridge {bridge} is gone")
    return _as_health(answer, 200, f"Docker {version[1].decode()}" if version else "")


def _default_bridge(places: Places) -> str:
    """Return the link that docker believes its default network to be, or "" where it has none."""
    with _unix(str(places.docker)) as connection:
        found = re.search(rb'"com\.docker\.network\.bridge\.name":"([^"]+)"', _get(connection, "/networks/bridge"))
    return found[1].decode() if found else ""


def docker_mirrors(places: Places) -> list[str]:
    """Return the mirrors that the docker which serves now has."""
    try:
        with _unix(str(places.docker)) as connection:
            answer = _get(connection, "/info")
    except OSError:
        return []
    found = re.search(rb'"Mirrors":\[([^\]]*)\]', answer)
    return re.findall(r'"([^"]+)"', found[1].decode()) if found else []


def _containerd(places: Places) -> Health:
    from labkit.kernel import commands

    with _unix(str(places.containerd)):
        pass
    argv = ["ctr", "--address", str(places.containerd), "--connect-timeout", f"{PATIENCE:.0f}s", "version"]
    try:
        done = commands.run(argv, timeout=2 * PATIENCE)
    except LabError as error:
        return Health(ok=False, said=str(error))
    versions: list[str] = re.findall(r"Version:\s*(\S+)", done.stdout)
    return Health(ok=True, said=f"containerd {versions[-1]}" if versions else "answers")


def _bridge(places: Places) -> Health:
    from labkit.kernel import network

    link = next((link for link in network.links() if link.ifname == places.bridge), None)
    if link is None:
        return Health(ok=False, said=f"no link {places.bridge}", held=False)
    addresses = [address for address in link.addresses if ":" not in address]
    if not addresses:
        return Health(ok=False, said="no address")
    if not link.up:
        return Health(ok=False, said=f"{addresses[0]}, but down")
    served = _resolves(addresses[0].partition("/")[0])
    return Health(served, f"{addresses[0]}, DNS {'answers' if served else 'does not answer'}")


def _resolves(address: str) -> bool:
    """Tell whether a DNS server answers there, whatever it answers."""
    query = struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + b"\x09localhost\x00" + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect((address, 53))
            connection.send(query)
            return len(connection.recv(512)) > 0
        except OSError:
            return False


def _lxd(places: Places) -> Health:
    return _server(places.lxd, "LXD")


def _incus(places: Places) -> Health:
    return _server(places.incus, "Incus")


def _server(directory: Path, title: str) -> Health:
    """Ask the API that LXD and Incus have in common."""
    with _unix(str(directory / "unix.socket")) as connection:
        answer = _get(connection, "/1.0")
    version = re.search(rb'"server_version":"([^"]+)"', answer)
    return _as_health(answer, 200, f"{title} {version[1].decode()}" if version else "")


def _unix(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _get(connection: socket.socket, path: str, *headers: str) -> bytes:
    """Return the whole answer to GET; one request in HTTP/1.0, since http.client takes longer to import than all of them to answer."""
    connection.sendall("\r\n".join([f"GET {path} HTTP/1.0", "Host: localhost", *headers, "", ""]).encode())
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def _as_registry(answer: bytes, wanted: int) -> Health:
    if b"docker-distribution-api-version: registry/2.0" not in answer.lower():
        return Health(ok=False, said=f"no registry: {_status(answer)}")
    return _as_health(answer, wanted, "registry/2.0")


def _as_health(answer: bytes, wanted: int, said: str = "") -> Health:
    status = _status(answer)
    return Health(status == f"HTTP {wanted}", f"{said}, {status}" if said else status)


def _status(answer: bytes) -> str:
    found = re.match(rb"HTTP/1\.\d (\d{3})", answer)
    return f"HTTP {found[1].decode()}" if found else "no HTTP answer"


_ASK = {
    "registry": _registry,
    "accounts": _accounts,
    "containerd": _containerd,
    "docker": _docker,
    "lxc-bridge": _bridge,
    "lxd": _lxd,
    "incus": _incus,
}
