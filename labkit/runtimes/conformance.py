"""Whether a config.json keeps to the OCI runtime specification: each problem names the field and the clause.

What a schema can say stands in config.schema.json, with the clause as `$comment`; the rest is below.
See: runtime-spec config.md, config-linux.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import Problem

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

_TYPES = {"object": "an object", "array": "an array", "string": "a string", "integer": "an integer", "boolean": "true or false"}
_BOUNDS = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "greater than"}


def validate(record: Mapping[str, Any], bundle: Path | None = None) -> tuple[Problem, ...]:
    """Return what breaks the specification, in the order of the fields; nothing where it is kept.

    Args:
        record: the JSON object in config.json, see `bundle.load`.
        bundle: its directory, so that what the fields point to is looked at, too.
    """
    found = [_problem(error) for error in _validator().iter_errors(record)]
    broken = [problem.field for problem in found]
    for section, rule in _RULES.items():
        if not any(field.startswith(section) or section.startswith(field) for field in broken):
            found += rule(record, bundle)
    return tuple(sorted(found, key=lambda problem: problem.field))


@cache
def _validator() -> Draft202012Validator:
    """Return the validator of the schema, with no package for formats: the grammars of one take 1.5 s, and no field here has a format."""
    formats = "rfc3987_syntax"
    unneeded = formats not in sys.modules
    if unneeded:
        sys.modules[formats] = None  # type: ignore[assignment]  # how the import system is told that there is none
    from jsonschema import Draft202012Validator

    if unneeded:
        del sys.modules[formats]
    return Draft202012Validator(_schema())


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("config.schema.json").read_bytes())
    return schema


def _problem(error: ValidationError) -> Problem:
    path: list[str | int] = list(error.absolute_path)
    if error.validator == "required":
        path += [name for name in error.validator_value if name not in error.instance and f"'{name}'" in error.message][:1]
    return Problem(_name(path), _message(error), _clause(path))


def _message(error: ValidationError) -> str:
    """Return in the words of the lab what a keyword of JSON Schema found."""
    keyword, wanted, value = error.validator, error.validator_value, json.dumps(error.instance)
    value = value if len(value) <= 40 else f"{value[:37]}..."
    if keyword == "required":
        return "is missing"
    if keyword == "type":
        return f"must be {_TYPES[wanted]}, not {value}"
    if keyword == "enum":
        return f"{value} is none of {', '.join(wanted)}"
    if keyword in _BOUNDS:
        return f"{value} must be {_BOUNDS[keyword]} {wanted}"
    if keyword in ("minItems", "minLength"):
        return "must not be empty"
    return f"{value} is not {error.schema['title']}" if keyword == "pattern" else error.message


def _name(path: Sequence[str | int]) -> str:
    """Return a path in JSON as a person writes it: mounts[1].destination."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".") or "config.json"


def _clause(path: Sequence[str | int]) -> str:
    """Return the clause of a field, or of the nearest one above it that has one."""
    schema = _schema()
    clause = str(schema["$comment"])
    for part in path:
        below = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part, schema.get("additionalProperties"))
        if not isinstance(below, dict):
            break
        clause = below.get("$comment", clause)
        schema = _schema()["$defs"][below["$ref"].rpartition("/")[2]] if "$ref" in below else below
    return f"runtime-spec {clause}"


def _rlimits(record: Mapping[str, Any], _: Path | None) -> Iterator[Problem]:
    return _twice("process.rlimits", record.get("process", {}).get("rlimits", ()), "config.md, POSIX process: rlimits")


def _namespaces(record: Mapping[str, Any], _: Path | None) -> Iterator[Problem]:
    return _twice("linux.namespaces", record.get("linux", {}).get("namespaces", ()), "config-linux.md, Namespaces: namespaces")


def _twice(field: str, entries: Sequence[Mapping[str, Any]], where: str) -> Iterator[Problem]:
    """Find what may stand only once."""
    types = [entry["type"] for entry in entries]
    for number, kind in enumerate(types):
        if kind in types[:number]:
            clause = f"runtime-spec {where} with two entries of the same type: the runtime MUST generate an error"
            yield Problem(f"{field}[{number}].type", f"{kind} is there already", clause)


def _devices(record: Mapping[str, Any], _: Path | None) -> Iterator[Problem]:
    """Find devices without a number."""
    for number, device in enumerate(record.get("linux", {}).get("devices", ())):
        for name in ("major", "minor"):
            if device["type"] != "p" and name not in device:
                path = ("linux", "devices", number, name)
                yield Problem(_name(path), "is missing", _clause(path))


def _mounts(record: Mapping[str, Any], _: Path | None) -> Iterator[Problem]:
    """Find mounts that map the one kind of ids and not the other."""
    for number, mount in enumerate(record.get("mounts", ())):
        for there, other in (("uidMappings", "gidMappings"), ("gidMappings", "uidMappings")):
            if mount.get(there) and not mount.get(other):
                clause = f"runtime-spec config.md, POSIX-platform Mounts: {there} MUST be specified along with {other}"
                yield Problem(f"mounts[{number}].{other}", "is missing", clause)


def _root(record: Mapping[str, Any], bundle: Path | None) -> Iterator[Problem]:
    """Find a root directory that is not there."""
    root = bundle / record["root"]["path"] if bundle else None
    if root and not root.is_dir():
        yield Problem("root.path", f"{root} is not a directory" if root.exists() else f"there is no {root}", _clause(["root", "path"]))


def _hooks(record: Mapping[str, Any], bundle: Path | None) -> Iterator[Problem]:
    """Find hooks that are not there, of those whose program lies outside of the container."""
    for when in ("prestart", "createRuntime", "createContainer", "poststart", "poststop") if bundle else ():
        for number, hook in enumerate(record.get("hooks", {}).get(when, ())):
            if not Path(hook["path"]).is_file():
                clause = f"runtime-spec config.md, POSIX-platform Hooks: the path of {when} MUST resolve in the runtime namespace"
                yield Problem(f"hooks.{when}[{number}].path", f"there is no {hook['path']}", clause)


_RULES: Mapping[str, Callable[[Mapping[str, Any], Path | None], Iterator[Problem]]] = {
    "process.rlimits": _rlimits,
    "linux.namespaces": _namespaces,
    "linux.devices": _devices,
    "mounts": _mounts,
    "root": _root,
    "hooks": _hooks,
}
"""What a schema cannot say: the part of the configuration, and who looks at it where its fields are sound."""
