"""The rules of a network namespace that change addresses: port mappings (DNAT) and masquerading. See: nft(8), iptables(8).

Rules of iptables-nft are among those that nft lists; those of the older x_tables are read by iptables-legacy-save,
and only where the kernel says that there are any, so that nothing is loaded by looking.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from labkit.kernel import commands
from labkit.kernel.network import netlink
from labkit.kernel.network.nft import read_rules

_LEGACY = (
    ("/proc/thread-self/net/ip_tables_names", "iptables-legacy-save"),
    ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy-save"),
)
_PORTS = r"(?:\{([^}]*)\}|(\d[\d-]*))"
_TARGET = re.compile(r"\bdnat(?: ip6?)? to (?:\[([0-9a-f:]+)\]|([0-9a-f.:]*?))(?::(\d[\d-]*))?(?: [a-z]|$)")
_MAP = re.compile(r"\bdnat(?: ip6?)? to (tcp|udp|th|sctp) dport map \{([^}]*)\}")


@dataclass(frozen=True)
class PortMapping:
    """A port outside that leads to one inside.

    Attributes:
        protocol: "tcp", "udp", "sctp"; "" for any.
        address: on which it is reached; "" for any.
        port: "8080", "8000-8010"; "" for any.
        to_address: where it leads to.
        to_port: the port there; "" for the same.
        by: what does it, with its pid where it is a process: "nft", "iptables-legacy", "docker-proxy (pid 812)".
    """

    protocol: str
    address: str
    port: str
    to_address: str
    to_port: str
    by: str


@dataclass(frozen=True)
class Masquerade:
    """A rule that gives packets the address of the link by which they leave, or a fixed one.

    Attributes:
        rule: as it is listed.
        sources: from which networks; empty for any.
        leaving: by which link; "" for any.
    """

    rule: str
    sources: tuple[str, ...] = ()
    leaving: str = ""

    def covers(self, address: str, leaving: str) -> bool:
        """Whether packets from an address ("10.0.3.2/24", the length is passed over) that leave by this link are meant."""
        host = ipaddress.ip_interface(address).ip
        if self.leaving not in ("", leaving):
            return False
        return not self.sources or any(host in ipaddress.ip_network(each, strict=False) for each in self.sources)


@dataclass(frozen=True)
class NatRules:
    """What changes addresses in one network namespace."""

    dnat: tuple[PortMapping, ...] = ()
    masquerade: tuple[Masquerade, ...] = ()


def read(path: str | None) -> NatRules:
    """Read the rules of a network namespace.

    Shell:
        nft --stateless list ruleset; iptables-legacy-save -t nat
    Args:
        path: the namespace's file; None for that of this process.

    Returns:
        Nothing where it may not be entered.
    """
    found = netlink.through([path], lambda _: _read_here())
    if found[0] is None:
        return NatRules()
    rules, legacy = found[0]
    return NatRules((*parse_dnat(rules), *parse_legacy_dnat(legacy)), (*parse_masquerade(rules), *parse_legacy_masquerade(legacy)))


def _read_here() -> tuple[tuple[str, ...], tuple[str, ...]]:
    rules = read_rules()
    opaque = any("xt target" in rule for rule in rules)  # an nft that cannot spell out what iptables-nft wrote
    return rules, (*_legacy_rules(), *(_saved("iptables-nft-save") if opaque else ()))


def parse_dnat(rules: Iterable[str]) -> Iterator[PortMapping]:
    """Yield the port mappings among rules as `nft list ruleset` writes them."""
    for rule in rules:
        address = _word(rule, r"ip6? daddr ([0-9a-f.:]+)(?:/32|/128)?(?= )")
        if match := _MAP.search(rule):
            for port, _, target in (element.partition(" : ") for element in match[2].split(", ")):
                to, _, to_port = target.strip().partition(" . ")
                yield PortMapping("" if match[1] == "th" else match[1], address, port.strip(), to, to_port, "nft")
        elif (match := _TARGET.search(rule)) and (match[1] or match[2]):
            protocol, ports = _protocol_and_ports(rule)
            for port in ports:
                yield PortMapping(protocol, address, port, match[1] or match[2], match[3] or "", "nft")


def _protocol_and_ports(rule: str) -> tuple[str, list[str]]:
    match = re.search(rf"\b(tcp|udp|th|sctp) dport {_PORTS}", rule)
    if match is None:
        return _word(rule, r"\bmeta l4proto (tcp|udp|sctp)\b"), [""]
    return "" if match[1] == "th" else match[1], [port.strip() for port in (match[2] or match[3]).split(",")]


def parse_masquerade(rules: Iterable[str]) -> Iterator[Masquerade]:
    """Yield the masquerading rules among rules as `nft list ruleset` writes them; a fixed source address counts as one.

    A rule for one destination is left out: it says nothing of the way to the outside.
    """
    for rule in rules:
        if re.search(r"\b(masquerade|snat(?: ip6?)? to)\b", rule) and not re.search(r"\bip6? daddr (?!!=)", rule):
            match = re.search(r"\bip6? saddr (?:\{([^}]*)\}|([0-9a-f][0-9a-f.:/]*))", rule)
            sources = [each.strip() for each in (match[1] or match[2]).split(",")] if match else []
            yield Masquerade(_statement(rule), tuple(sources), _word(rule, r'\boifname "([^"*]+)"'))


def parse_legacy_dnat(lines: Iterable[str]) -> Iterator[PortMapping]:
    """Yield the port mappings among the lines of iptables-legacy-save."""
    for line in lines:
        if match := re.search(r"-j DNAT --to-destination (?:\[([0-9a-f:]+)\]|([0-9.]+))(?::(\d[\d-]*))?", line):
            address = _word(line, r"(?<!! )-d ([0-9a-f.:]+)(?:/32|/128)?(?= )")
            ports = _word(line, r"--dports? (\d[\d:,]*)").replace(":", "-").split(",")
            for port in ports:
                yield PortMapping(_word(line, r"-p (\w+)"), address, port, match[1] or match[2], match[3] or "", "iptables-legacy")


def parse_legacy_masquerade(lines: Iterable[str]) -> Iterator[Masquerade]:
    """Yield the masquerading rules among the lines of iptables-legacy-save."""
    for line in lines:
        if re.search(r"-j (MASQUERADE|SNAT)\b", line) and not re.search(r"(?<!! )-d ", line):
            source = _word(line, r"(?<!! )-s ([0-9a-f.:/]+)")
            yield Masquerade(line, (source,) if source else (), _word(line, r"(?<!! )-o (\S+)"))


def _legacy_rules() -> Iterator[str]:
    for names, command in _LEGACY:
        try:
            loaded = "nat" in Path(names).read_text().split()
        except OSError:
            continue  # no such tables
        yield from _saved(command) if loaded else ()


def _saved(command: str) -> list[str]:
    try:
        return commands.run([command, "-t", "nat"], timeout=10).stdout.splitlines()
    except LabError:
        return []  # not installed


def _statement(rule: str) -> str:
    """Return a rule without the table and chain that stand before it."""
    return re.sub(r"^table \S+ \S+ chain \S+ ", "", rule).replace(" counter", "")


def _word(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""
