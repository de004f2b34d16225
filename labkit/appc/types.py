"""The types that the documents of appc are written in; whoever refuses a value names the field that it stands in.

See:
    appc spec types.md
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from labkit.errors import LabError

AC_VERSION = "0.8.11"
"""The version of the specification that is followed here; the last there was."""

Pairs = tuple[tuple[str, str], ...]
"""A list of objects with `name` and `value`: labels, annotations, environment."""

_IDENTIFIER = re.compile(r"[a-z0-9]+([-._~/][a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_IMAGE_ID = re.compile(r"sha512-[0-9a-f]{1,128}")
_NUMBER = r"(0|[1-9][0-9]*)"
_PRE_RELEASE = r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")


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
