"""Read the nft rule set of the network namespace that this thread is in. See: nft(8)."""

from __future__ import annotations

import re

from labkit.errors import LabError
from labkit.kernel import commands
from labkit.kernel.network import netlink

_NFT_MSG_GETTABLE = 10 << 8 | 1
_NFTA_TABLE_NAME = 1
_MATCH = re.compile(r'(iifname|oifname|ip saddr|ip daddr|meta l4proto|ip protocol) (?:!= )?(?:\{[^}]*\}|"[^"]*"|\S+)(?: |$)')
_ORDER = ("iifname", "oifname", "ip saddr", "ip daddr", "meta l4proto")
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


def read_rules() -> tuple[str, ...]:
    """Read the rules of this thread's network namespace, one string a table, chain or rule; counters left out.

    The kernel is asked for tables first: nft is only started where there are any.

    Shell:
        nft --stateless list ruleset
    Returns:
        As `parse_rules`; the tables alone, where nft is not installed.
    """
    there = tables()
    if not there:
        return ()
    try:
        done = commands.run(["nft", "--stateless", "list", "ruleset"], timeout=10)
    except LabError:
        return there
    return parse_rules(done.stdout)


def parse_rules(ruleset: str) -> tuple[str, ...]:
    """Return what `nft list ruleset` wrote, one string a table, chain, set or rule, each with what it is in before it.

    Args:
        ruleset: nft's text; lines that begin with # are left out.

    Returns:
        The conditions that a rule begins with in one order: links, addresses, protocol. That changes nothing in what it says.
    """
    found: list[str] = []
    inside: list[str] = []
    statement = ""
    for line in ruleset.splitlines():
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        statement = f"{statement} {words}".strip()
        if _open(statement) and not statement.endswith("{"):
            continue  # a set's elements go on in the next line
        if statement == "}":
            inside.pop()
        elif statement.endswith("{"):
            inside.append(statement[:-1].strip())
            found.append(" ".join(inside))
        else:
            found.append(" ".join([*inside, _ordered(statement)]))
        statement = ""
    return tuple(found)


def _ordered(rule: str) -> str:
    """Return a rule with the conditions that it begins with in one order and in one wording: each version of iptables has its own."""
    conditions, at = [], 0
    while match := _MATCH.match(rule, at):
        conditions.append(match[0].strip().replace("ip protocol ", "meta l4proto "))
        at = match.end()
    conditions.sort(key=lambda words: next(place for place, name in enumerate(_ORDER) if words.startswith(name)))
    return " ".join([*conditions, rule[at:]]).strip()


def _open(statement: str) -> bool:
    bare = re.sub(r'"[^"]*"', "", statement)
    return bare.count("{") > bare.count("}")


def tables() -> tuple[str, ...]:
    """Return the tables of this thread's network namespace, such as "table ip filter"."""
    try:
        with netlink.NetlinkSocket(netlink.NETLINK_NETFILTER) as netfilter:
            messages = netfilter.dump(_NFT_MSG_GETTABLE, bytes(4))
    except OSError:  # a kernel without nf_tables has no tables
        return ()
    names = ((message[0], netlink.attributes(message, 4).get(_NFTA_TABLE_NAME, b"")) for message in messages)
    return tuple(f"table {_FAMILIES.get(family, str(family))} {name.rstrip(bytes(1)).decode()}" for family, name in names)
