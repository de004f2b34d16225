"""What dockerd and the CNI plugins leave in the packet filter: found again, and taken away without touching anybody else's rules.

They speak iptables, so it is read and changed through iptables. A chain or table that was there before is not theirs.
See: iptables-save(8), iptables-restore(8).
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from labkit.errors import LabError
from labkit.kernel import commands

_FAMILIES = {"ip": "iptables", "ip6": "ip6tables"}
_MADE_BY = {"docker": re.compile(r"DOCKER(-|$)"), "containerd": re.compile(r"CNI-"), "cni": re.compile(r"CNI-")}
_PORTS = "CNI-HOSTPORT-"
_CALLED = ("labkit",)
"""The CNI network of containerd: its rules have the name in a comment."""


@dataclass(frozen=True)
class Rule:
    """One rule of iptables-save.

    Attributes:
        table: "filter", "nat", ...
        chain: where it is.
        words: what follows `-A CHAIN`.
    """

    table: str
    chain: str
    words: str

    @property
    def target(self) -> str:
        """Return the chain that it jumps to, or the name of the action."""
        found = re.search(r"(?:^| )-[jg] (\S+)", self.words)
        return found[1] if found else ""


def state() -> dict[str, Any]:
    """Note which chains and tables there are, and the policy for what is forwarded, before a service writes into them."""
    chains: dict[str, list[str]] = {}
    policy = {}
    for family, command in _FAMILIES.items():
        saved = _saved(command)
        chains[family] = [f"{table} {chain}" for table, chain, _ in _chains(saved)]
        policy[family] = next((said for table, chain, said in _chains(saved) if (table, chain) == ("filter", "FORWARD")), "ACCEPT")
    return {"chains": chains, "policy": policy, "tables": _tables()}


def restore(name: str, links: Iterable[str], networks: Iterable[str], noted: dict[str, Any], called: Collection[str] = _CALLED) -> None:
    """Remove the rules and chains of a service, and the tables that are empty then and were not there before.

    Args:
        name: the service; "cni" for networks of a lab.
        links: the bridges that it made.
        networks: their addresses, as "172.17.0.1/16".
        noted: what `state` returned before it started.
        called: the names of its CNI networks.
    """
    for family, command in _FAMILIES.items():
        saved = _saved(command)
        known = set(noted.get("chains", {}).get(family, ()))
        lines = removal(name, saved, tuple(links), tuple(networks), known, called)
        policy = noted.get("policy", {}).get(family)
        if name == "docker" and policy and any((table, chain) == ("filter", "FORWARD") for table, chain, _ in _chains(saved)):
            lines.setdefault("filter", []).append(f"-P FORWARD {policy}")
        text = "".join("\n".join([f"*{table}", *changes, "COMMIT", ""]) for table, changes in lines.items())
        if text:
            commands.run([f"{command}-restore", "--noflush"], input=text, timeout=30)
    for table in set(_tables()) - set(noted.get("tables", ())):
        _delete_if_empty(table)


def removal(
    name: str, saved: str, links: tuple[str, ...], networks: tuple[str, ...], known: set[str], called: Collection[str] = _CALLED
) -> dict[str, list[str]]:
    """Return the lines for iptables-restore that remove a service's rules and chains, by table."""
    rules, made = _rules(saved), _MADE_BY[name]
    chains = {(table, chain) for table, chain, _ in _chains(saved) if made.match(chain) and f"{table} {chain}" not in known}
    chains -= _kept(name, rules, chains, called)
    lines: dict[str, list[str]] = {}
    for rule in rules:
        jumps = (rule.table, rule.target) in chains
        if (rule.table, rule.chain) not in chains and (
            jumps or (name != "docker" and _is_of_network(rule, called)) or _concerns(rule, links, networks)
        ):
            lines.setdefault(rule.table, []).append(f"-D {rule.chain} {rule.words}")
    for verb in ("-F", "-X"):
        for table, chain in sorted(chains):
            lines.setdefault(table, []).append(f"{verb} {chain}")
    return lines


def _kept(name: str, rules: list[Rule], chains: set[tuple[str, str]], called: Collection[str]) -> set[tuple[str, str]]:
    """Return which of these chains somebody else needs: those with a rule of theirs, and those to which these lead."""
    kept = {(rule.table, rule.chain) for rule in rules if (rule.table, rule.chain) in chains and _is_a_persons(name, rule, called)}
    if name != "docker" and any(chain.startswith(_PORTS) for _, chain in kept):
        kept |= {(table, chain) for table, chain in chains if chain.startswith(_PORTS)}
    theirs, before = [rule for rule in rules if not _is_of_network(rule, called)], -1
    while name != "docker" and len(kept) != before:
        before = len(kept)
        kept |= {(rule.table, rule.target) for rule in theirs if (rule.table, rule.chain) in kept and (rule.table, rule.target) in chains}
    return kept


def _is_a_persons(name: str, rule: Rule, called: Collection[str]) -> bool:
    """Tell whether a rule in a service's chain is not the service's: in DOCKER-USER, or of another CNI network."""
    if name == "docker":
        return rule.chain == "DOCKER-USER" and rule.words != "-j RETURN"
    forwards = name == "cni" and rule.chain in ("CNI-FORWARD", "CNI-ADMIN") and rule.target != "CNI-ADMIN"  # these name no network
    return forwards or ("name: " in rule.words and not _is_of_network(rule, called))


def _is_of_network(rule: Rule, called: Collection[str]) -> bool:
    """Tell whether a rule has the name of one of these CNI networks in its comment."""
    return any(f'name: \\"{name}\\"' in rule.words for name in called)


def _concerns(rule: Rule, links: tuple[str, ...], networks: tuple[str, ...]) -> bool:
    """Tell whether a rule names one of the bridges, or lets a container behind one reach itself through the host's port."""
    words = shlex.split(rule.words)
    pairs = list(itertools.pairwise(words))
    if any(option in ("-i", "-o") and value in links for option, value in pairs):
        return True
    source, destination = (next((value for option, value in pairs if option == wanted), "") for wanted in ("-s", "-d"))
    if not source or source != destination or rule.target != "MASQUERADE":
        return False
    address = ipaddress.ip_interface(source).ip
    return any(address in ipaddress.ip_interface(network).network for network in networks)


def _chains(saved: str) -> list[tuple[str, str, str]]:
    """Return (table, chain, policy) of each chain; the policy of a user's chain is "-"."""
    found, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            found.append((table, chain, policy))
    return found


def _rules(saved: str) -> list[Rule]:
    found, table = [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            _, chain, words = line.split(" ", 2)
            found.append(Rule(table, chain, words))
    return found


def _saved(command: str) -> str:
    try:
        return commands.run([f"{command}-save"], timeout=30).stdout
    except LabError:  # a kernel without that family, or no iptables: then nothing was written with it
        return ""


def _tables() -> list[str]:
    """Return the tables that iptables has made in nftables, as "ip filter"."""
    try:
        done = commands.run(["nft", "list", "tables"], timeout=30)
    except LabError:
        return []
    return re.findall(r"^table (ip6? (?:filter|nat|mangle|raw|security))$", done.stdout, re.MULTILINE)


def _delete_if_empty(table: str) -> None:
    listed = commands.run(["nft", "--stateless", "list", "table", *table.split()], timeout=30, check=False).stdout
    body = [line.strip() for line in listed.splitlines()[1:]]
    chains = re.compile(r"chain \S+ \{|type \w+ hook .*|\}|")
    if all(chains.fullmatch(line) for line in body):
        commands.run(["nft", "delete", "table", *table.split()], timeout=30, check=False)
