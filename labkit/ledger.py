"""What the labs made: written down and synced before it is made, so that `labkit clean` can undo it after any crash.

The ledger is one append-only file of JSON lines. A line says `intent` (about to be made), `made` (it is there, and
this is how to recognise it) or `gone`. An object is live from its intent until its `gone`. Undoing an object is the
business of the module that makes it: it registers a function with `undoes`.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    """Write down, synced to disk, that an object is about to be made; or return its entry if that is written already.

    Raises:
        LabError: the ledger cannot be written; nothing may be made then.
    """
    known = find(kind, **key)
    if known is not None and known.owner == _owner:
        return known
    entry = Entry(uuid.uuid4().hex, _owner, kind, dict(key), boot=_boot_id())
    _append({"what": "intent", **_as_record(entry)})
    return entry


def made(entry: Entry, **identity: Any) -> None:
    """Write down how the object that now exists is recognised."""
    entry.identity.update(identity)
    _append({"what": "made", "id": entry.id, "identity": entry.identity})


def gone(entry: Entry) -> None:
    """Write down that the object is there no longer."""
    _append({"what": "gone", "id": entry.id})


@contextmanager
def making(kind: str, **key: str) -> Iterator[Entry]:
    """Write the intent, let the block make the object, then write how it is recognised (`entry.identity`).

    When the block raises, what it had made so far is undone, and the error goes on.
    """
    entry = intend(kind, **key)
    try:
        yield entry
    except BaseException:
        undo_one(entry)
        raise
    made(entry)


def find(kind: str, **key: str) -> Entry | None:
    """Return the live entry of this kind whose key has these values, the latest if several, or None."""
    for entry in reversed(live()):
        if entry.kind == kind and all(entry.key.get(name) == value for name, value in key.items()):
            return entry
    return None


def live(of: str | None = None) -> list[Entry]:
    """Return what is written as made, or about to be, and not as gone; of one owner, or of all."""
    entries: dict[str, Entry] = {}
    for record in _records():
        if record["what"] == "intent":
            entries[record["id"]] = Entry(**{name: record[name] for name in Entry.__dataclass_fields__})
        elif record["what"] == "made" and record["id"] in entries:
            entries[record["id"]].identity = record["identity"]
        elif record["what"] == "gone":
            entries.pop(record["id"], None)
    return [entry for entry in entries.values() if of is None or entry.owner == of]


def undo(of: str | None = None) -> list[Entry]:
    """Remove what the ledger names, the latest first; of one lab, or of all.

    Returns:
        The entries undone.

    Raises:
        ExceptionGroup: of what could not be removed; everything else was, and what could not stays in the ledger.
    """
    done: list[Entry] = []
    errors: list[Exception] = []
    with trace.silent():
        for entry in reversed(live(of)):
            try:
                undo_one(entry)
                done.append(entry)
            except Exception as error:  # one object that resists must not keep the others
                errors.append(error)
    if errors:
        raise ExceptionGroup("some of what the labs made could not be removed", errors)
    if not live():
        _truncate()
    return done


def undo_one(entry: Entry) -> None:
    """Remove one object and write down that it is gone.

    Raises:
        LabError: no module that can remove this kind is loaded.
    """
    if entry.kind not in _undoes:
        raise LabError(f"ledger: nothing here knows how to remove a {entry.kind}", remedy="update labkit")
    function, survives_reboot = _undoes[entry.kind]
    if survives_reboot or entry.boot == _boot_id():
        function(entry)
    gone(entry)


def _path() -> Path:
    return state() / "ledger.jsonl"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _as_record(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__dataclass_fields__}


def _append(record: dict[str, Any]) -> None:
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            line = json.dumps(record, sort_keys=True).encode() + b"\n"
            end = os.fstat(descriptor).st_size
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                line = b"\n" + line  # the writer before us died in the middle of its line
            if os.write(descriptor, line) != len(line):
                raise OSError("the disk took only a part of the line")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise LabError(f"ledger {path} cannot be written: {error.strerror or error}", remedy="run as root, free disk space") from error


def _records() -> list[dict[str, Any]]:
    records = []
    try:
        lines = _path().read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a torn line: its writer died before it made anything
        if isinstance(record, dict) and "what" in record:
            records.append(record)
    return records


def _truncate() -> None:
    with _path().open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not live():
            file.truncate(0)
