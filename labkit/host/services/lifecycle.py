"""Bring services up, take them down, and say how they are. A service of ours is in the ledger from before its start until after its end."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from labkit import ledger
from labkit.errors import LabError
from labkit.host.services import bridges, holders, leftovers, mirrors, probes
from labkit.host.services.backend import Backend
from labkit.host.services.observation import OTHER, Status, backend, look, wanted, where
from labkit.host.services.places import Places, places
from labkit.host.services.table import Service, here, named, with_dependents, with_needed

_INTERVAL = 0.05
_LONGEST = 1.0
_PATIENCE = 2.0


def up(names: Iterable[str] = (), say: Callable[[str], None] | None = None) -> None:
    """Bring services up, with those that they need, and wait until they answer; what is up already is left as it is.

    Shell: labkit up NAME

    Args:
        names: the services; none for all.
        say: gets a line for each service that was started, or is used though it is not ours.

    Raises:
        LabError: a service does not come up, or its place is held by somebody else; nothing of it is left then.
        ExceptionGroup: of several such.
    """
    found, chosen = places(), with_needed(names)
    with _alone(found):
        errors = _bring_up(chosen, found, backend(found), say or _unsaid)
        for written in mirrors.configure(found):
            if not written.ours and say:
                say(f"{written.path}: left as it is, it is not labkit's")
    _raise(errors)


def down(names: Iterable[str] = (), say: Callable[[str], None] | None = None) -> None:
    """Take services of ours down, with those that need them, and all that they left in the kernel.

    Shell: labkit down NAME

    Args:
        names: the services; none for all.
        say: gets a line for each service that was stopped, or is left since it is not ours.

    Raises:
        LabError: a service cannot be taken down: what still uses it is named.
        ExceptionGroup: of several such.
    """
    found, errors = places(), []
    with _alone(found):
        running = backend(found)
        for service in with_dependents(names):
            try:
                _take_down(service, found, running, say or _unsaid)
            except (LabError, OSError) as error:
                errors.append(error)
        if not wanted():
            running.close()
            leftovers.remove_run(found)
    _raise(errors)


def _bring_up(chosen: Iterable[Service], of: Places, running: Backend, say: Callable[[str], None]) -> list[Exception]:
    """Start each service as soon as those that it needs answer: those that need none are awaited together."""
    errors: list[Exception] = []
    failed: set[str] = set()
    waiting: list[tuple[Service, ledger.Entry]] = []
    for service in chosen:
        try:
            if service.needs:
                _await_all(waiting, of, running, say, errors, failed)
            if failed & set(service.needs):
                raise LabError(f"{service.name} was not started, it needs {' and '.join(sorted(failed & set(service.needs)))}")
            entry = _start(service, of, running, say)
            if entry:
                waiting.append((service, entry))
        except (LabError, OSError) as error:
            failed.add(service.name)
            errors.append(error)
    _await_all(waiting, of, running, say, errors, failed)
    return errors


def _start(service: Service, of: Places, running: Backend, say: Callable[[str], None]) -> ledger.Entry | None:
    """Start a service unless it serves already; return its entry if its answer is to be awaited."""
    now = look(service, of, running)
    if now.state == "up" and not running.start(service):
        return None
    if now.state == "foreign":
        if not now.serves or (not service.shared and now.by != OTHER):
            raise _refusal(service, now)
        say(f"{service.name}: used as it is, {now.where} is served by {_whose(now)}, {_not_ours(now)}")
        return None
    if service not in here():
        raise LabError(f"{service.name} is not on this machine", cause=f"there is no {service.program}", remedy=f"use {service.only}")
    with ledger.owned_by(ledger.SERVICES):
        entry = ledger.find("service", name=service.name)
        if entry is None or not entry.identity:
            entry = entry or ledger.intend("service", name=service.name)
            ledger.made(entry, backend=running.name, before=leftovers.before(service.name))
    process = running.observe(service)
    if process.running == "stopped":
        holders.end(holders.marked(of, service.name), politely=10)  # of a supervisord that was killed
    hangs = process.running == "running" and not _answers_soon(service, of)
    try:
        running.start(service, again=hangs)
    except BaseException:
        ledger.undo_one(entry)
        raise
    return entry


def _await_all(
    waiting: list[tuple[Service, ledger.Entry]],
    of: Places,
    running: Backend,
    say: Callable[[str], None],
    errors: list[Exception],
    failed: set[str],
) -> None:
    while waiting:
        service, entry = waiting.pop(0)
        try:
            health = await_answer(service, of, running)
            say(f"{service.name}: up, {health.said}, {where(service.name, of)}")
        except LabError as error:
            failed.add(service.name)
            errors.append(error)
            ledger.undo_one(entry)


def _answers_soon(service: Service, of: Places) -> bool:
    """Tell whether a service that runs answers: it may have been started just now."""
    deadline = time.monotonic() + _PATIENCE
    while not probes.ask(service.name, of).ok:
        if time.monotonic() > deadline:
            return False
        time.sleep(_INTERVAL)
    return True


def await_answer(service: Service, of: Places, running: Backend) -> probes.Health:
    """Wait until a service answers, and return its answer.

    Raises:
        LabError: its process ended, or its time is over: with the last line of its log.
    """
    deadline, interval = time.monotonic() + service.seconds, _INTERVAL
    while True:
        process, health = running.observe(service), probes.ask(service.name, of)
        if health.ok and process.running == "running":
            return health
        failed = process.running in ("failed", "stopped")
        if failed or time.monotonic() > deadline:
            why = "does not start" if failed else f"does not answer after {service.seconds:g} s ({health.said})"
            last = running.last_line(service)
            raise LabError(f"{service.name} {why}: {last}", remedy=f"read {running.log(service)}")
        time.sleep(interval)
        interval = min(1.5 * interval, _LONGEST)


def _take_down(service: Service, of: Places, running: Backend, say: Callable[[str], None]) -> None:
    entry = ledger.find("service", name=service.name)
    if entry is None:
        state = look(service, of, running).state
        if state == "foreign":
            say(f"{service.name}: left as it is, it is {_not_ours(look(service, of, running))}")
        if state in ("foreign", "down"):
            return
        with ledger.owned_by(ledger.SERVICES):
            entry = ledger.intend("service", name=service.name)  # systemd started it with the machine
    if service.name == "lxc-bridge" and (plugged := bridges.ports(of.bridge)):
        raise LabError(f"{of.bridge} still has {', '.join(plugged)}", remedy="stop the containers that use it")
    ledger.undo_one(entry)
    say(f"{service.name}: down")


@ledger.undoes("service")
def _undo(entry: ledger.Entry) -> None:
    found, service = places(), named(entry.key["name"])
    backend(found).stop(service)
    others = wanted() - {service.name}
    leftovers.remove(service.name, found, entry.identity.get("before", {}), others=others)


def _refusal(service: Service, now: Status) -> LabError:
    held = f"{service.name}: {now.where} is held by {_whose(now)}, {_not_ours(now)}"
    return LabError(held, cause=f"asked, it said: {now.health}", remedy="stop it, or give labkit another place: docs/services.md")


def _whose(now: Status) -> str:
    return f"{holders.comm(now.pid)} (pid {now.pid})" if now.pid else "somebody"


@contextmanager
def _alone(of: Places) -> Iterator[None]:
    """Let one `up` or `down` of this instance work at a time."""
    path = of.state / "services.lock"
    try:
        of.state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LabError(f"{path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _not_ours(now: Status) -> str:
    if now.by == OTHER:
        return f"the labkit's of {holders.state_of(now.pid)}"
    return "not labkit's"


def _unsaid(line: str) -> None:
    """Let a line go."""


def _raise(errors: Sequence[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("some services", errors)
