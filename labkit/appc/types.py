"""The types that the documents of appc are written in, and how a document is read: each field checked, each refusal names its field.

See:
    appc spec types.md
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn
from urllib.parse import urlsplit

from labkit.errors import LabError

AC_VERSION = "0.8.11"
"""The version of the specification that is followed here; the last there was."""
LARGEST_MANIFEST = 4 * 2**20
"""Bytes that a manifest may have."""

Pairs = tuple[tuple[str, str], ...]
"""A list of objects with `name` and `value`: labels, annotations, environment."""

_IDENTIFIER = re.compile(r"[a-z0-9]+([-._~/][a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_IMAGE_ID = re.compile(r"sha512-[0-9a-f]{1,128}")
_NUMBER = r"(0|[1-9][0-9]*)"
_PRE_RELEASE = r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")
_DEEPEST = 100


class ManifestError(LabError):
    """Refuse a document that breaks a rule of appc.

    Args:
        field: where it is, such as `app.ports[0].port`.
        why: what is wrong with it.
    """

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


def ac_identifier(text: str, field: str) -> str:
    """Return an AC identifier: the name of an image, a label, an annotation, an isolator.

    Raises:
        ManifestError: it is none.
    """
    return _matching(_IDENTIFIER, text, field, "no AC identifier: lower case letters and digits, between them one of - . _ ~ /")


def ac_name(text: str, field: str) -> str:
    """Return an AC name: of an app, a volume, a mount point, a port.

    Raises:
        ManifestError: it is none.
    """
    return _matching(_NAME, text, field, "no AC name: lower case letters and digits, between them single hyphens")


def semver(text: str, field: str) -> str:
    """Return a semantic version.

    Raises:
        ManifestError: it is none, or 0.0.0.
    """
    if _matching(_SEMVER, text, field, "no semantic version such as 0.8.11") == "0.0.0":
        raise ManifestError(field, "must not be 0.0.0")
    return text


def date(text: str, field: str) -> str:
    """Return a time as RFC 3339 writes it: `2016-05-02T09:00:00.5Z`.

    Raises:
        ManifestError: it is none.
    """
    wrong = "no time as RFC 3339 has it, such as 2016-05-02T09:00:00Z"
    _matching(_DATE, text, field, wrong)
    try:
        datetime.fromisoformat(re.sub(r"\.[0-9]+", "", text))
    except ValueError as error:
        raise ManifestError(field, f"{shown(text)} is {wrong}") from error
    return text


def web_address(text: str, field: str) -> str:
    """Return a URL of scheme http or https.

    Raises:
        ManifestError: it is none.
    """
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ManifestError(field, f"{shown(text)} is no URL") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ManifestError(field, f"{shown(text)} is no URL of http or https")
    return text


def shown(value: object) -> str:
    """Return a value as a message shows it: as JSON, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _matching(pattern: re.Pattern[str], text: str, field: str, wrong: str) -> str:
    if not pattern.fullmatch(text):
        raise ManifestError(field, f"{shown(text)} is {wrong}" if text else "must not be empty")
    return text


@dataclass(frozen=True, order=True)
class ImageID:
    """Name an image by the SHA-512 of its tar, uncompressed.

    Attributes:
        text: `sha512-` and hexadecimal digits: 128 of them, or fewer where it is abbreviated, as in rkt's store.
    """

    text: str

    @classmethod
    def parse(cls, text: str, field: str = "image id") -> ImageID:
        """Read one.

        Raises:
            ManifestError: it is none.
        """
        return cls(_matching(_IMAGE_ID, text, field, "no image id: sha512- and hexadecimal digits"))

    def matches(self, other: ImageID) -> bool:
        """Tell whether both name the same image, where one of them may be abbreviated."""
        return self.text.startswith(other.text) or other.text.startswith(self.text)

    def __str__(self) -> str:
        return self.text


def serialized(record: object, *, indent: str | None = None) -> str:
    """Return a document as JSON, as rkt writes it: no space if it is not indented, and no character that HTML would take for its own."""
    text = json.dumps(record, ensure_ascii=False, indent=indent, separators=(",", ": " if indent else ":"))
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


class Fields:
    """One object of a document.

    A field that is null counts as one that is not there, and one that nobody knows is passed over, as JSON's readers do.

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
        return self._record.get(key)

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
