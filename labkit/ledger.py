"""What the labs made: written down and synced before it is made, so that `labkit clean` can undo it after any crash.

The ledger is one append-only file of JSON lines. A line says `intent` (about to be made), `made` (it is there, and
this is how to recognise it) or `gone`. An object is live from its intent until its `gone`. Undoing an object is the
business of the module that makes it: it registers a function with `undoes`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labkit import trace
from labkit.errors import LabError


@dataclass
class Entry:
    """One object that a lab made, or is about to make.

    Attributes:
        id: unique in the ledger.
        owner: the lab's id, such as "2.1".
        kind: what it is: "cgroup", "netns", "mount", "tree", ...
        key: how it is named, enough to find it again.
        identity: how it is told from another of the same name (an inode, a mount id); empty until it was made.
        boot: the boot in which it was made: an object of the kernel does not outlive it.
    """

    id: str
    owner: str
    kind: str
    key: dict[str, str]
    identity: dict[str, Any] = field(default_factory=dict)
    boot: str = ""


SERVICES = "services"
"""The owner of what belongs to no lab but to the machine's services: it stays until the services are taken down."""

Undo = Callable[[Entry], None]
_undoes: dict[str, tuple[Undo, bool]] = {}
_owner = ""


def state() -> Path:
    """Return the directory of everything that labkit keeps on this machine ($LABKIT_STATE, or /var/lib/labkit)."""
    return Path(os.environ.get("LABKIT_STATE") or "/var/lib/labkit")


def own(owner: str) -> None:
    """Let what this process makes from now on belong to the lab `owner`."""
    global _owner
    _owner = owner


def owner() -> str:
    """Return the id of the lab that what this process makes belongs to; empty outside a lab."""
    return _owner


@contextmanager
def owned_by(owner: str) -> Iterator[None]:
    """Let what the block makes belong to another owner: a lab by its id, or SERVICES."""
    before = _owner
    own(owner)
    try:
        yield
    finally:
        own(before)


def undoes(kind: str, *, survives_reboot: bool = False) -> Callable[[Undo], Undo]:
    """Register the function that removes an object of `kind`.

    The function gets the entry, finds out whether the object is still there *and is the one that was made*, removes
    it, and returns; it also returns when there is nothing (any more) to remove, and raises when it could not.
    """

    def register(function: Undo) -> Undo:
        _undoes[kind] = (function, survives_reboot)
        return function

    return register


def intend(kind: str, **key: str) -> Entry:
    """Write down, synced to disk, that an object is about to be made; or return our entry of this key if there is one.

    Raises:
        LabError: the ledger cannot be written; nothing may be made then.
    """
    known = _ours(kind, key)
    return known[-1] if known else _intend(Entry(uuid.uuid4().hex, _owner, kind, dict(key), boot=_boot_id()))


def made(entry: Entry, **identity: object) -> None:
    """Write down how the object that now exists is recognised."""
    entry.identity.update(identity)
    _append({"what": "made", "id": entry.id, "identity": entry.identity}, sync=_outlives_boot(entry.kind))


def gone(entry: Entry) -> None:
    """Write down that the object is there no longer."""
    _append({"what": "gone", "id": entry.id}, sync=_outlives_boot(entry.kind))


@contextmanager
def making(kind: str, **key: str) -> Iterator[Entry]:
    """Write the intent, let the block make the object, then write how it is recognised (`entry.identity`).

    An intent that still waits for its object (a claim, or a try that died) becomes this one. An entry whose object
    was made once stays as it is: a second object of the same name has its own.
    When the block raises, or its outcome cannot be written, what it had made so far is undone, and the error goes on.
    """
    waiting = [entry for entry in _ours(kind, key) if not entry.identity]
    entry = _intend(waiting[-1] if waiting else Entry(uuid.uuid4().hex, _owner, kind, dict(key), boot=_boot_id()))
    try:
        yield entry
        made(entry)
    except BaseException as error:
        with trace.silent():
            try:
                undo_one(entry)
            except Exception as second:  # the first error is the news; what is left stays in the ledger
                error.add_note(f"and what was made so far could not be undone: {second}")
        raise


def find(kind: str, **key: str) -> Entry | None:
    """Return the live entry of this kind whose key has these values, the latest if several, or None."""
    for entry in reversed(live()):
        if entry.kind == kind and all(entry.key.get(name) == value for name, value in key.items()):
            return entry
    return None


def live(of: str | None = None) -> list[Entry]:
    """Return what is written as made, or about to be, and not as gone; of one owner, or of all, in the order of the intents.

    What an earlier boot took with it is not live.
    """
    with _reading:
        entries = _read.up_to_now()
    boot = _boot_id()
    return [entry for entry in entries if of in (None, entry.owner) and (entry.boot == boot or _outlives_boot(entry.kind))]


def of_this_boot(entry: Entry) -> bool:
    """Tell whether an entry was written since the machine has started: only then its pids and inodes of the kernel are its own."""
    return entry.boot == _boot_id()


def undo(of: str | None = None) -> list[Entry]:
    """Remove what the ledger names, the latest first; of one lab, or of all of them: what is the services' stays.

    What resists is tried again as long as other things can still be removed: one may have held the other.

    Returns:
        The entries undone.

    Raises:
        ExceptionGroup: of what could not be removed; everything else was, and what could not stays in the ledger.
    """
    done: list[Entry] = []
    unwritten: set[str] = set()
    waiting = [entry for entry in reversed(live(of)) if of or entry.owner != SERVICES]
    errors: list[Exception] = []
    while waiting:
        resisting, errors = _undo_each(waiting, unwritten)
        done += [entry for entry in waiting if entry not in resisting]
        if len(resisting) == len(waiting):
            break
        waiting = resisting
    _empty_unless_live(unwritten)
    if errors:
        raise ExceptionGroup("some of what the labs made could not be removed", errors)
    return done


def _undo_each(entries: list[Entry], unwritten: set[str]) -> tuple[list[Entry], list[Exception]]:
    resisting: list[Entry] = []
    errors: list[Exception] = []
    for entry in entries:
        try:
            with trace.silent():
                _remove(entry)
        except Exception as error:  # one object that resists must not keep the others
            resisting.append(entry)
            errors.append(error)
            continue
        try:
            gone(entry)
        except LabError:  # a full disk: the object is gone all the same, and undoing it again does nothing
            unwritten.add(entry.id)
    return resisting, errors


def undo_one(entry: Entry) -> None:
    """Remove one object and write down that it is gone.

    Raises:
        LabError: no module that can remove this kind is loaded.
    """
    _remove(entry)
    gone(entry)


def _remove(entry: Entry) -> None:
    if entry.kind not in _undoes:
        raise LabError(f"ledger: nothing here knows how to remove a {entry.kind}", remedy="update labkit")
    if _outlives_boot(entry.kind) or entry.boot == _boot_id():
        _undoes[entry.kind][0](entry)


def _outlives_boot(kind: str) -> bool:
    return kind not in _undoes or _undoes[kind][1]  # of an unknown kind the worst is assumed: it is still there


def _ours(kind: str, key: dict[str, str]) -> list[Entry]:
    return [entry for entry in live(_owner) if entry.kind == kind and entry.key == key]


def _intend(entry: Entry) -> Entry:
    _append({"what": "intent", **_as_record(entry)})
    return entry


def _path() -> Path:
    return state() / "ledger.jsonl"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _as_record(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__dataclass_fields__}


def _append(record: dict[str, Any], *, sync: bool = True) -> None:
    """Append one line; what only a crash of the machine could take back need not be synced where it ends the object too."""
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _append_line(descriptor, json.dumps(record, sort_keys=True).encode() + b"\n", sync)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unusable("written", error) from error


def _append_line(descriptor: int, line: bytes, sync: bool) -> None:
    end = os.fstat(descriptor).st_size
    if end and os.pread(descriptor, 1, end - 1) != b"\n":
        line = b"\n" + line  # the writer before us died in the middle of its line
    if os.write(descriptor, line) != len(line):
        os.ftruncate(descriptor, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if sync:
        os.fsync(descriptor)
    if not end:  # a new file: its name must be on the disk too
        directory = os.open(state(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class _Read:
    """What was read up to the last whole line; the next time only what was appended since is read.

    Another process may have emptied the ledger and written as much again: then other bytes stand before the place where
    we stopped, since each line has an id of its own.
    """

    def __init__(self) -> None:
        self._file: tuple[Path, int, int] | None = None
        self._offset, self._before = 0, b""
        self._entries: dict[str, Entry] = {}

    def up_to_now(self) -> list[Entry]:
        """Return the entries written as there, or to be, each a fresh copy."""
        path = _path()
        try:
            with path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if self._file != (path, status.st_dev, status.st_ino):
                    self._begin((path, status.st_dev, status.st_ino))
                file.seek(self._offset - len(self._before))
                data = file.readall()
                if not data.startswith(self._before):
                    self._begin(self._file)
                    file.seek(0)
                    data = file.readall()
        except FileNotFoundError:
            self._begin(None)
            return []
        except OSError as error:
            raise _unusable("read", error) from error
        whole, end, torn = data.removeprefix(self._before).rpartition(b"\n")
        for line in whole.split(b"\n"):
            _apply(line, self._entries)
        self._offset += len(whole) + len(end)
        self._before = (self._before + whole + end)[-_KNOWN_AGAIN:]
        entries = {each.id: replace(each, key=dict(each.key), identity=dict(each.identity)) for each in self._entries.values()}
        _apply(torn, entries)  # its writer may be about to end it, or be dead: it counts if it can be read
        return list(entries.values())

    def _begin(self, file: tuple[Path, int, int] | None) -> None:
        self._file, self._offset, self._before, self._entries = file, 0, b"", {}


_KNOWN_AGAIN = 4096  # bytes by which a ledger is known to be the one that was read so far
_read = _Read()
_reading = threading.RLock()


def _apply(line: bytes, entries: dict[str, Entry]) -> None:
    try:
        record = json.loads(line)
    except ValueError:
        return  # a torn line: its writer died before it made anything
    if not isinstance(record, dict) or "what" not in record:
        return
    identifier = record.get("id", "")
    if record["what"] == "intent":
        entries.pop(identifier, None)  # written again: it takes its place in the order anew
        entries[identifier] = Entry(**{name: record[name] for name in Entry.__dataclass_fields__ if name in record})
    elif record["what"] == "made" and identifier in entries:
        entries[identifier].identity = record["identity"]
    elif record["what"] == "gone":
        entries.pop(identifier, None)


def _empty_unless_live(removed: set[str]) -> None:
    try:
        with _path().open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if all(entry.id in removed for entry in live()):
                file.truncate(0)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable("written", error) from error


def _unusable(what: str, error: OSError) -> LabError:
    remedies = {errno.EACCES: "run as root", errno.EPERM: "run as root", errno.ENOSPC: "free disk space", errno.EDQUOT: "free disk space"}
    return LabError(f"ledger {_path()} cannot be {what}: {error.strerror or error}", remedy=remedies.get(error.errno or 0))
