"""The mirror of docker.io for a dockerd in a network namespace: an address there leads to the same address here.

It listens in that namespace and connects from this one: a socket stays in the network namespace in which it was made, whoever uses it.
See: network_namespaces(7), socket(2)
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

from labkit import trace
from labkit.kernel import processes
from labkit.kernel.network import netlink
from labkit.kernel.processes.process import Process

NAME = "mirror"
"""Of the process in its lab."""

_PIECE = 1 << 16


class Server(ThreadingTCPServer):
    """Listens on an address, and carries each connection to the same address of the network namespace that it was started in.

    Args:
        address: host and port.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host, int(port))
        super().__init__(self.address, _Handler)


class _Handler(BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(self.server.address) as there:
            back = Thread(target=_carry, args=(there, self.request), daemon=True)
            back.start()
            _carry(self.request, there)
            back.join()


def _carry(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):  # one of them has gone, and both go then
        while piece := source.recv(_PIECE):
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)


def serve(own: Path, netns: str, address: str) -> Process:
    """Start the mirror of a dockerd, and return once it listens.

    Shell:
        python -m labkit.runtimes.docker_mirror NETNS HOST:PORT READY &

    Args:
        own: the directory of dockerd.
        netns: file of its network namespace.
        address: host and port of the registry here.

    Raises:
        LabError: it ended instead, or does not listen in time, with the last line of its log.
    """
    ready = own / f"{NAME}.ready"
    ready.unlink(missing_ok=True)  # of one that was killed
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    with trace.silent():
        argv = ["python", "-m", __name__, netns, address, str(ready)]
        process = processes.start(argv, name=NAME, stdout=own / f"{NAME}.log", env={**os.environ, "PATH": path}, cwd="/")
        process.wait_ready(ready.exists, "the mirror of the lab's dockerd", "does not listen", timeout=20)
    return process


def main(netns: str, address: str, ready: str) -> None:
    """Serve until killed.

    Args:
        netns: file of the network namespace in which it listens.
        address: host and port, there and here.
        ready: a file that is made once it listens.
    """
    with netlink.within(netns, lambda: Server(address)) as server:
        Path(ready).touch()
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
