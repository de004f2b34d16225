"""Who asked a daemon: the clients that are connected to it when it begins to fork. See: unix(7), sock_diag(7)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from labkit.kernel.network.unix_sockets import holders, unix_sockets


class Call(NamedTuple):
    """A connection, seen once.

    Attributes:
        at: nanoseconds of the monotonic clock: just before the fork that made us look.
        pid: the client.
        daemon: who listens.
        address: the path of its socket.
    """

    at: int
    pid: int
    daemon: int
    address: str


class Calls:
    """Looks who is connected to a daemon whenever one has begun to fork: a client waits for its answer then.

    It has a thread of its own, for a look takes longer than a short-lived program runs.

    Args:
        clients: the processes that may ask; what they start is added.
        daemons: those that are asked, shims included.
        shims: what daemons started earlier: they are asked, and their own connections are reports.
    """

    def __init__(self, clients: set[int], daemons: frozenset[int], shims: frozenset[int]) -> None:
        self._clients, self._daemons, self._shims = clients, daemons, shims
        self._parents: dict[int, int] = {}
        self._found: dict[tuple[int, int, str], int] = {}
        self._asked: SimpleQueue[int | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
        self._thread.start()

    def forked(self, pid: int, child: int, at: int) -> None:
        """Take in that a process has forked; of a daemon that does it is asked who called it."""
        if pid in self._clients or pid in self._daemons:
            self._clients.add(child)
            self._parents[child] = pid
            if pid in self._daemons:
                self._asked.put(at - 1)

    def ended(self) -> list[Call]:
        """End the thread, and return the calls that lead from a client to a daemon that did something, each after the one before it."""
        self._asked.put(None)
        self._thread.join()
        idle = self._shims.difference(self._parents.values())
        waiting = [Call(at, *key) for key, at in self._found.items() if key[1] not in idle]
        reached = {call.pid for call in waiting if not self._daemons.intersection((call.pid, *self._above(call.pid)))}
        chain: list[Call] = []
        while found := [call for call in waiting if call.pid in reached]:
            chain += found
            reached |= {call.daemon for call in found}
            reached |= {pid for pid in self._parents if reached.intersection(self._above(pid))}
            waiting = [call for call in waiting if call not in found]
        return chain

    def _run(self) -> None:
        while (at := self._asked.get()) is not None:
            with suppress(OSError):
                for pid, daemon, address in self._connected():
                    if pid not in self._shims and daemon not in self._above(pid):
                        self._found.setdefault((pid, daemon, address), at)

    def _connected(self) -> Iterator[tuple[int, int, str]]:
        """Yield (client, daemon, address): the daemon's end of a connection has the address at which it listens."""
        holding = holders(self._clients | self._daemons)
        for end in unix_sockets():
            for daemon in self._daemons.intersection(holding.get(end.inode, ())) if end.peer and end.address.startswith("/") else ():
                yield from ((pid, daemon, end.address) for pid in holding.get(end.peer, ()) if pid != daemon)

    def _above(self, pid: int) -> Iterator[int]:
        """Yield the parents of what was started meanwhile: who speaks to one of them reports to it."""
        while pid in self._parents:
            pid = self._parents[pid]
            yield pid
