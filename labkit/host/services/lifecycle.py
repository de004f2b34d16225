"""Bring services up, take them down, and say how they are. A service of ours is in the ledger from before its start until after its end."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from labkit import ledger
from labkit.errors import LabError
from labkit.host.services import bridges, holders, leftovers, mirrors, probes, programs, units
from labkit.host.services.backend import Backend
from labkit.host.services.places import Places, as_booted, places
from labkit.host.services.table import SERVICES, Service, named, with_dependents, with_needed

OTHER = "other labkit"
State = Literal["up", "down", "foreign", "failed"]
_INTERVAL = 0.05


@dataclass(frozen=True)
class Status:
    """How a service is.

    Attributes:
        name: the service.
        state: up (ours, and it answers), down, foreign (somebody else's serves there), failed (ours, and it does not answer).
        by: what runs it: "systemd", "supervisord", "other labkit" (of another $LABKIT_STATE), "not ours", or "" where nothing does.
        health: what it answered.
        where: its port, socket or link.
        pid: its process, or 0.
        since: when it was started, in seconds since the epoch, or 0.
        log: where its log is.
        wanted: whether it was brought up and should run.
        serves: of a foreign one, whether it can be used.
    """

    name: str
    state: State
    by: str
    health: str
    where: str
    pid: int
    since: float
    log: str
    wanted: bool
    serves: bool = False


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


def pending(names: Iterable[str] = ()) -> str:
    """Return in a few words what `up` would have to do, or "" where everything is up and configured."""
    found = places()
    todo = [one.name for one in status([service.name for service in with_needed(names)]) if one.state in ("down", "failed")]
    files = len(mirrors.pending(found))
    return ", ".join([*todo, *([f"{files} files of configuration"] if files else [])])


def enable() -> None:
    """Let systemd start the services with this root file system's next boot; nothing is started now.

    For a root file system that is being built. The registry with accounts is left to the first `up`: each machine has its own secrets.
    """
    found = as_booted()
    for service in SERVICES:
        if service.name != "accounts":
            programs.prepare(service.name, found, systemd=True)
            units.install(service, found)
            units.enable(service)
    mirrors.configure(found)


def unconfigure() -> tuple[Path, ...]:
    """Remove the files that we have outside of the state directory; return them.

    Raises:
        LabError: a service of ours still runs.
    """
    found = places()
    if still := _wanted():
        raise LabError(f"{', '.join(sorted(still))} of labkit's still run", remedy="labkit down")
    gone = [units.path(service) for service in SERVICES if found.under_systemd and units.remove(service)]
    return (*gone, *mirrors.unconfigure(found))


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
        if not _wanted():
            running.close()
            leftovers.remove_run(found)
    _raise(errors)


def status(names: Iterable[str] = ()) -> tuple[Status, ...]:
    """Return how services are, each asked now; no names: all."""
    found = places()
    running = backend(found)
    return tuple(_look(service, found, running) for service in ([named(name) for name in names] or SERVICES))


def backend(of: Places) -> Backend:
    """Return what runs the services of these places: systemd where it runs, for the course's places; else a supervisord of ours."""
    if of.under_systemd:
        from labkit.host.services.systemd import Systemd

        return Systemd(of)
    from labkit.host.services.supervisord import Supervisord

    return Supervisord(of)


def where(name: str, of: Places) -> str:
    """Return the port, the socket or the link of a service."""
    return {
        "registry": of.registry_address,
        "accounts": of.accounts_address,
        "containerd": str(of.containerd),
        "docker": str(of.docker),
        "lxc-bridge": of.bridge,
        "lxd": str(of.lxd / "unix.socket"),
    }[name]


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
    now = _look(service, of, running)
    if now.state == "up":
        return None
    if now.state == "foreign":
        if not now.serves or (not service.shared and now.by != OTHER):
            raise _refusal(service, now)
        say(f"{service.name}: used as it is, {_whose(now)} at {now.where} is {now.by}")
        return None
    with _as_services():
        entry = ledger.find("service", name=service.name)
        if entry is None or not entry.identity:
            entry = entry or ledger.intend("service", name=service.name)
            ledger.made(entry, backend=running.name, before=leftovers.before(service.name))
    if not running.observe(service).pid:
        holders.end(holders.marked(of, service.name), politely=10)  # of a supervisord that was killed
    try:
        running.start(service)
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
            health = _await(service, of, running)
            say(f"{service.name}: up, {health.said}, {where(service.name, of)}")
        except LabError as error:
            failed.add(service.name)
            errors.append(error)
            ledger.undo_one(entry)


def _await(service: Service, of: Places, running: Backend) -> probes.Health:
    deadline = time.monotonic() + service.seconds
    while True:
        process, health = running.observe(service), probes.ask(service.name, of)
        if health.ok and process.running == "running":
            return health
        failed = process.running in ("failed", "stopped")
        if failed or time.monotonic() > deadline:
            why = "does not start" if failed else f"does not answer after {service.seconds:.0f} s ({health.said})"
            last = running.last_line(service)
            raise LabError(f"{service.name} {why}: {last}", remedy=f"read {running.log(service)}")
        time.sleep(_INTERVAL)


def _take_down(service: Service, of: Places, running: Backend, say: Callable[[str], None]) -> None:
    entry = ledger.find("service", name=service.name)
    if entry is None:
        state = _look(service, of, running).state
        if state == "foreign":
            say(f"{service.name}: left as it is, it is not labkit's")
        if state in ("foreign", "down"):
            return
        with _as_services():
            entry = ledger.intend("service", name=service.name)  # systemd started it with the machine
    if service.name == "lxc-bridge" and (plugged := bridges.ports(of.bridge)):
        raise LabError(f"{of.bridge} still has {', '.join(plugged)}", remedy="stop the containers that use it")
    ledger.undo_one(entry)
    say(f"{service.name}: down")


@ledger.undoes("service")
def _undo(entry: ledger.Entry) -> None:
    found, service = places(), named(entry.key["name"])
    backend(found).stop(service)
    others = _wanted() - {service.name}
    leftovers.remove(service.name, found, entry.identity.get("before", {}), others=others)


def _look(service: Service, of: Places, running: Backend) -> Status:
    process, health = running.observe(service), probes.ask(service.name, of)
    wanted, place, log = service.name in _wanted(), where(service.name, of), running.log(service)
    if process.running == "running" or process.pid:
        health = _asked_again(service, of, health, process.pid)
        state: State = "up" if health.ok else "failed"
        return Status(service.name, state, running.name, health.said, place, process.pid, process.since, log, wanted)
    if not health.held or (service.name == "lxc-bridge" and wanted):
        state = "failed" if wanted else "down"
        return Status(service.name, state, running.name if wanted else "", health.said, place, 0, 0.0, log if wanted else "", wanted)
    pid, _ = holders.holder(service.name, of)
    if holders.state_of(pid) == of.state:  # its supervisord was killed
        return Status(service.name, "failed", running.name, f"{health.said}, but nothing watches it", place, pid, 0.0, log, wanted)
    health = _asked_again(service, of, health, pid)
    by = OTHER if holders.state_of(pid) else "not ours"
    return Status(service.name, "foreign", by, health.said, place, pid, 0.0, "", wanted, health.ok)


def _asked_again(service: Service, of: Places, health: probes.Health, pid: int) -> probes.Health:
    """Ask the registry with accounts with the password of the instance that it is of, where that is another one."""
    other = None if health.ok or service.name != "accounts" else holders.state_of(pid)
    return probes.ask(service.name, replace(of, state=other)) if other and other != of.state else health


def _wanted() -> set[str]:
    return {entry.key["name"] for entry in ledger.live(ledger.SERVICES) if entry.kind == "service"}


def _refusal(service: Service, now: Status) -> LabError:
    held = f"{service.name}: {now.where} is held by {_whose(now)}, which is not labkit's"
    return LabError(held, cause=f"asked, it said: {now.health}", remedy="stop it, or give labkit another place: docs/services.md")


def _whose(now: Status) -> str:
    return f"{holders.comm(now.pid)} (pid {now.pid})" if now.pid else "somebody"


@contextmanager
def _as_services() -> Iterator[None]:
    before = ledger.owner()
    ledger.own(ledger.SERVICES)
    try:
        yield
    finally:
        ledger.own(before)


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


def _unsaid(line: str) -> None:
    """Let a line go."""


def _raise(errors: Sequence[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("some services", errors)
