"""How a document of appc is read: field by field, each checked as it is asked for, each refusal with its place.

See:
    RFC 8259
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import NoReturn

from labkit.appc.types import ManifestError, Pairs, shown

LARGEST_MANIFEST = 4 * 2**20
"""Bytes that a manifest may have."""

_DEEPEST = 100


class Fields:
    """One object of a document.

    As the reference tool reads it: a field that is null counts as one that is not there, one that nobody knows is passed over, and
    where no field is written as it is asked for, one does whose letters are large or small otherwise.

    Args:
        record: what the JSON says.
        place: where it stands in the document; "" for the document itself.

    Raises:
        ManifestError: it is no object.
    """

    def __init__(self, record: object, place: str = "") -> None:
        self.place = place
        if not isinstance(record, Mapping):
            raise ManifestError(place or "manifest", f"must be an object, not {shown(record)}")
        self._record = record

    def at(self, key: str) -> str:
        """Return where a field stands."""
        return f"{self.place}.{key}" if self.place else key

    def refuse(self, key: str, why: str) -> NoReturn:
        """Refuse a field.

        Raises:
            ManifestError: always.
        """
        raise ManifestError(self.at(key), why)

    def value(self, key: str) -> object:
        """Return what the JSON has, None where it has nothing."""
        if key in self._record:
            return self._record[key]
        return next((value for name, value in self._record.items() if name.lower() == key.lower()), None)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string; without a default it must be there and not be empty."""
        value = self.value(key)
        if value is None and default is not None:
            return default
        if value is None or (value == "" and default is None):
            self.refuse(key, "is required")
        return _text(value, self.at(key))

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a boolean."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, f"must be true or false, not {shown(value)}")
        return default if value is None else value

    def number(self, key: str, lowest: int, highest: int, default: int | None = None) -> int:
        """Return a whole number; without a default it must be there."""
        value = self.value(key)
        if value is None and default is not None:
            return default
        if value is None:
            self.refuse(key, "is required")
        return _number(value, self.at(key), lowest, highest)

    def below(self, key: str) -> Fields | None:
        """Return the object in a field."""
        return None if self.value(key) is None else Fields(self.value(key), self.at(key))

    def each(self, key: str) -> Iterator[Fields]:
        """Yield the objects of a list."""
        return (Fields(each, f"{self.at(key)}[{index}]") for index, each in enumerate(self._list(key)))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        return tuple(_text(each, f"{self.at(key)}[{index}]") for index, each in enumerate(self._list(key)))

    def numbers(self, key: str, lowest: int, highest: int) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        return tuple(_number(each, f"{self.at(key)}[{index}]", lowest, highest) for index, each in enumerate(self._list(key)))

    def mapping(self, key: str) -> Pairs:
        """Return an object of strings, sorted by its keys."""
        value = self.below(key)
        return tuple(sorted((name, value.text(name, "")) for name in value._record)) if value else ()

    def unique(self, key: str, names: Collection[str]) -> None:
        """Refuse a list in which a name stands twice."""
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                raise ManifestError(f"{self.at(key)}[{index}].name", f"{shown(name)} stands there twice")
            seen.add(name)

    def _list(self, key: str) -> list[object]:
        value = self.value(key)
        if value is not None and not isinstance(value, list | tuple):
            self.refuse(key, f"must be a list, not {shown(value)}")
        return [] if value is None else list(value)


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise ManifestError(field, f"must be a string, not {shown(value)}")
    if "\0" in value:
        raise ManifestError(field, "has a zero byte in it")
    return value


def _number(value: object, field: str, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ManifestError(field, f"must be a whole number from {lowest} to {highest}, not {shown(value)}")
    return value


def document(data: bytes | Mapping[str, object], kind: str) -> Fields:
    """Return the fields of an image manifest or pod manifest.

    Args:
        data: its bytes, or what was read from them.
        kind: `ImageManifest` or `PodManifest`.

    Raises:
        ManifestError: it is no JSON, nested too deep, too large, or of another kind.
    """
    fields = Fields(_loaded(data) if isinstance(data, bytes) else data)
    found = fields.text("acKind")
    if found != kind:
        fields.refuse("acKind", f"must be {kind}, not {shown(found)}")
    return fields


def _loaded(data: bytes) -> object:
    if len(data) > LARGEST_MANIFEST:
        raise ManifestError("manifest", f"has {len(data)} bytes, more than {LARGEST_MANIFEST}")
    try:
        record = json.loads(data.decode(), parse_constant=_no_number)
        json.dumps(record, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except ValueError as error:
        raise ManifestError("manifest", f"is no JSON: {error}") from error
    except RecursionError:
        record = _too_deep
    if record is _too_deep or _too_deep(record):
        raise ManifestError("manifest", f"is nested deeper than {_DEEPEST} levels")
    return record


def _too_deep(value: object, left: int = _DEEPEST) -> bool:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left < 0 or any(_too_deep(each, left - 1) for each in below)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
