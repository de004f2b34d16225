"""X-rays as JSON, in the form that docs/xray.schema.json describes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from labkit.kernel.xray.records import Member, NotRead, Root, Security, Xray

VERSION = 1


def to_json(xrays: Iterable[Xray]) -> str:
    """Return the document: every fact, also those that the text leaves out or counts."""
    document = {"version": VERSION, "containers": [_container(xray) for xray in xrays]}
    return json.dumps(document, indent=2, ensure_ascii=True)


def _container(xray: Xray) -> dict[str, Any]:
    return {**plain(xray), "is_host": xray.is_host}


def plain(value: Any) -> Any:
    """Return what json writes: records as objects, with what a reader would otherwise have to work out."""
    if isinstance(value, NotRead):
        return {"not_readable": value.errno, "what": _text(value.what)}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)} | _derived(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return _text(value) if isinstance(value, str) else value


def _derived(value: Any) -> dict[str, Any]:
    if isinstance(value, Member):
        return {"kind": value.kind}
    if isinstance(value, Root):
        return {"chroot": value.chroot, "read_only": value.read_only}
    return {"dropped": list(value.dropped())} if isinstance(value, Security) else {}


def _text(value: str) -> str:
    """Write bytes that are no UTF-8 as escapes, so that every reader of JSON takes the document."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
