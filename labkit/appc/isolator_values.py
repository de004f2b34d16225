"""Isolators: the limits and rights that a manifest asks for, by the well-known names of appc, and what value each of them takes.

See:
    appc spec ace.md, "Isolators"
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from labkit.appc.documents import Fields
from labkit.appc.types import ManifestError, ac_identifier, shown

CPU = "resource/cpu"
MEMORY = "resource/memory"
BLOCK_BANDWIDTH = "resource/block-bandwidth"
BLOCK_IOPS = "resource/block-iops"
NETWORK_BANDWIDTH = "resource/network-bandwidth"
CAPABILITIES_RETAIN = "os/linux/capabilities-retain-set"
CAPABILITIES_REMOVE = "os/linux/capabilities-remove-set"
SECCOMP_RETAIN = "os/linux/seccomp-retain-set"
SECCOMP_REMOVE = "os/linux/seccomp-remove-set"
NO_NEW_PRIVILEGES = "os/linux/no-new-privileges"
OOM_SCORE_ADJ = "os/linux/oom-score-adj"
CPU_SHARES = "os/linux/cpu-shares"
SELINUX_CONTEXT = "os/linux/selinux-context"
APPARMOR_PROFILE = "os/linux/apparmor-profile"
SYSCTL = "os/unix/sysctl"

_EITHER = ((CAPABILITIES_RETAIN, CAPABILITIES_REMOVE), (SECCOMP_RETAIN, SECCOMP_REMOVE))
_QUANTITY = re.compile(r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(m|k|K|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,3})?")
_SCALES = {"": Fraction(1), "m": Fraction(1, 1000), "k": Fraction(1000)}
_SCALES |= {letter: Fraction(1000**power) for power, letter in enumerate("KMGTPE", 1)}
_SCALES |= {f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)}


@dataclass(frozen=True)
class Isolator:
    """Ask for one limit or right.

    Attributes:
        name: one of those above.
        value: as the JSON has it.
    """

    name: str
    value: object


def quantity(text: str, field: str) -> Fraction:
    """Return an amount: `500m` of a processor, `1G` or `128Mi` of memory, as an exact number.

    Raises:
        ManifestError: it is none, or less than nothing.
    """
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ManifestError(field, f"{shown(text)} is no quantity such as 500m, 128Mi or 1G")
    sign, digits, suffix = found[1], found[2], found[3] or ""
    scale = Fraction(10) ** int(suffix[1:]) if suffix[:1] in ("e", "E") and suffix[1:] not in ("", "i") else _SCALES[suffix]
    if sign == "-" and Fraction(digits):
        raise ManifestError(field, f"{shown(text)} is less than nothing")
    return Fraction(digits) * scale


def isolators(fields: Fields, *, unknown: bool = False) -> tuple[Isolator, ...]:
    """Read the list `isolators`.

    Args:
        fields: an app, or a pod.
        unknown: take names that are not well known too; whoever runs it must report them.

    Raises:
        ManifestError: a name that is not known, a value that it does not take, two that exclude each other.
    """
    found: list[Isolator] = []
    for each in fields.each("isolators"):
        name = ac_identifier(each.text("name"), each.at("name"))
        if name not in WELL_KNOWN and not unknown:
            each.refuse("name", f"invalid isolator {shown(name)}")
        others = [one.name for one in found if one.name == name or any({one.name, name} == set(pair) for pair in _EITHER)]
        if others:
            each.refuse("name", f"{shown(name)} beside {shown(others[0])}: only one of them may be there")
        if name in WELL_KNOWN:
            WELL_KNOWN[name](each)
        found.append(Isolator(name, each.value("value")))
    return tuple(found)


def _amounts(isolator: Fields) -> None:
    value = _object(isolator)
    if value.flag("default"):
        value.refuse("default", "must be false")
    _quantities(value)


def _quantities(value: Fields) -> None:
    for key in ("request", "limit"):
        if value.value(key) is not None:
            amount = value.value(key)
            text = str(amount) if isinstance(amount, int | float) and not isinstance(amount, bool) else value.text(key)
            quantity(text, value.at(key))


def _default_amounts(isolator: Fields) -> None:
    value = _object(isolator)
    if not value.flag("default"):
        value.refuse("default", "must be true")
    if value.value("request") is not None:
        value.refuse("request", "cannot be asked for, only a limit")
    _quantities(value)


def _set(isolator: Fields) -> None:
    value = _object(isolator)
    if not value.texts("set"):
        value.refuse("set", "must not be empty")
    for index, each in enumerate(value.texts("set")):
        if not each:
            value.refuse(f"set[{index}]", "must not be empty")


def _seccomp(isolator: Fields) -> None:
    _set(isolator)
    value = _object(isolator)
    name = value.text("errno", "")
    if name and name not in errno.errorcode.values() and name != "ENOTSUP":
        value.refuse("errno", f"{shown(name)} is no name of an error")


def _selinux(isolator: Fields) -> None:
    value = _object(isolator)
    for key in ("user", "role", "type", "level"):
        if ":" in value.text(key) and key != "level":
            value.refuse(key, "must not have a colon")


def _sysctl(isolator: Fields) -> None:
    isolator.mapping("value")
    if not isinstance(isolator.value("value"), dict):
        isolator.refuse("value", "must be an object of strings")


def _object(isolator: Fields) -> Fields:
    value = isolator.below("value")
    if value is None:
        isolator.refuse("value", "is required")
    return value


def _whole(lowest: int, highest: int) -> Callable[[Fields], None]:
    def check(isolator: Fields) -> None:
        isolator.number("value", lowest, highest)

    return check


def _flag(isolator: Fields) -> None:
    if isolator.value("value") is None:
        isolator.refuse("value", "is required")
    isolator.flag("value")


def _profile(isolator: Fields) -> None:
    if isinstance(isolator.value("value"), str):
        isolator.text("value")
    else:
        _object(isolator).text("name")


WELL_KNOWN: dict[str, Callable[[Fields], None]] = {
    CPU: _amounts,
    MEMORY: _amounts,
    BLOCK_BANDWIDTH: _default_amounts,
    BLOCK_IOPS: _default_amounts,
    NETWORK_BANDWIDTH: _default_amounts,
    CAPABILITIES_RETAIN: _set,
    CAPABILITIES_REMOVE: _set,
    SECCOMP_RETAIN: _seccomp,
    SECCOMP_REMOVE: _seccomp,
    NO_NEW_PRIVILEGES: _flag,
    OOM_SCORE_ADJ: _whole(-1000, 1000),
    CPU_SHARES: _whole(2, 262144),
    SELINUX_CONTEXT: _selinux,
    APPARMOR_PROFILE: _profile,
    SYSCTL: _sysctl,
}
"""The isolators that appc defines, each with what checks its value."""
