"""Measure how fast octets arrive in a network namespace: by a connection of TCP to an address of its. See: tcp(7)."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing

from labkit.errors import LabError
from labkit.kernel.network import netlink
from labkit.kernel.network.places import Netns, place

_SECONDS = 60.0
_PIECE = 1 << 16


def measure(address: str, to: Netns, octets: int, source: Netns = None) -> float:
    """Send octets to an address and count what arrives.

    Args:
        address: of the receiver, without the length of its network.
        to: the namespace that has it.
        octets: how many are sent.
        source: the namespace of the sender; None is the host's.

    Returns:
        Octets a second, from the first that arrived to the last.

    Raises:
        LabError: there is no such address there, or not all arrive.
    """
    there, here = place(to), place(source)
    try:
        listening = netlink.within(there.path, lambda: socket.create_server((address, 0)))
    except OSError as error:
        raise LabError(f"{there.title} cannot be reached at {address}", cause=error.strerror) from error
    with closing(listening):
        port = listening.getsockname()[1]
        try:
            sender = netlink.within(here.path, lambda: socket.create_connection((address, port), timeout=_SECONDS))
        except OSError as error:
            raise LabError(f"{there.title} does not answer at {address}", cause=error.strerror or str(error)) from error
        receiver, _ = listening.accept()
        with closing(sender), closing(receiver):
            return _transfer(sender, receiver, octets)


def _transfer(sender: socket.socket, receiver: socket.socket, octets: int) -> float:
    receiver.settimeout(_SECONDS)
    sending = threading.Thread(target=_send, args=(sender, octets), name="octets", daemon=True)
    sending.start()
    begin, arrived = 0.0, 0
    try:
        while arrived < octets:
            piece = len(receiver.recv(_PIECE))
            begin = begin or time.monotonic()
            arrived += piece
            if not piece:
                raise LabError(f"{arrived} of {octets} octets have arrived", cause="the sender has ended")
    except OSError as error:
        raise LabError(f"{arrived} of {octets} octets have arrived", cause=error.strerror or str(error)) from error
    finally:
        receiver.close()  # a sender that waits gets an error
        sending.join()
    return octets / max(time.monotonic() - begin, 1e-6)


def _send(sender: socket.socket, octets: int) -> None:
    try:
        sender.sendall(bytes(octets))
    except OSError:  # the receiver says what has arrived
        return
