"""The rules of the packet filter that one packet met, and which of them counted it. See: nft(8), iptables(8).

A rule with a counter that has grown was met, one whose counter has not was not. Of one without a counter, the conditions are
compared with the packet: names of links, addresses, protocol and port, and whether it is of a connection that stands.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from labkit.errors import LabError
from labkit.kernel import commands
from labkit.kernel.network import nft

_COUNTER = re.compile(r"counter packets (\d+) bytes \d+ ?")
_CHAIN = re.compile(r"table (\S+ \S+) chain (\S+)(?: (.+))?")
_BASE = re.compile(r"type (\w+) hook (\w+)(?: device \S+)? priority ([^;]+);(?: policy (\w+);)?")
_POLICY = re.compile(r":(\S+) (ACCEPT|DROP) \[(\d+):\d+\]")
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100, "out": 100}
_CONDITION = re.compile(r"(iifname|oifname|iif|oif|ip saddr|ip daddr|tcp dport|udp dport|meta l4proto|ip protocol|ct state) (!= )?"
                        r'(\{[^}]*\}|"[^"]*"|\S+)')  # fmt: skip
_KNOWN = re.compile(r'(log|limit|comment)( \S+ "[^"]*"| "[^"]*")?|meta nftrace set 1|fully-random|random|persistent')
_VERDICT = re.compile(r"\b(accept|drop|reject|return|masquerade|dnat|snat|redirect|jump|goto|queue)\b.*$")


@dataclass(frozen=True)
class Rule:
    """One rule as it is listed, its counter left out; `packets` is None without a counter."""

    table: str
    chain: str
    text: str
    packets: int | None

    @property
    def verdict(self) -> str:
        """Its last words: "accept", "dnat to 172.18.0.2:80", "jump DOCKER"; "" for one that only counts."""
        match = _VERDICT.search(_bare(self.text))
        return match[0].strip() if match else ""


@dataclass(frozen=True)
class Chain:
    """A base chain: where packets enter; `kind` is filter, nat or route; `packets` what its policy has counted, None where nothing does."""

    table: str
    name: str
    kind: str
    hook: str
    priority: int
    policy: str
    packets: int | None = None


@dataclass(frozen=True)
class RuleSet:
    """The rules of a network namespace."""

    chains: tuple[Chain, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def translates(self) -> bool:
        """Whether it has a chain in which addresses are changed."""
        return any(chain.kind == "nat" for chain in self.chains)


@dataclass(frozen=True)
class Passing:
    """A packet at a hook: the links and addresses by which rules know it; "" for what it has not."""

    iifname: str
    oifname: str
    source: str
    destination: str
    protocol: str
    port: int = 0
    answer: bool = False


@dataclass(frozen=True)
class Met:
    """What a packet met at a hook.

    Attributes:
        rules: those that said something about it, in their order.
        dropped: what dropped it, in words; "" where nothing did.
        maybe: rules that drop, and of which it is not known whether they were met.
    """

    rules: tuple[Rule, ...] = ()
    dropped: str = ""
    maybe: tuple[Rule, ...] = ()


def read_here() -> RuleSet:
    """Read the rules of this thread's namespace with what they have counted.

    Shell:
        nft list ruleset; iptables-save --counters
    """
    if not nft.tables():  # nft is only started where there is something to list
        return RuleSet()
    try:
        listed = commands.run(["nft", "list", "ruleset"], timeout=10).stdout
    except LabError:
        return RuleSet()
    policies = _policies() if "managed by iptables-nft" in listed or "table ip filter" in listed else {}
    return parse(nft.parse_rules(listed), policies)


def parse(lines: Iterable[str], policies: dict[tuple[str, str], int] | None = None) -> RuleSet:
    """Return the rules of lines as `nft.parse_rules` writes them.

    Args:
        lines: one a table, chain or rule.
        policies: what the policies have counted, by table and chain, where it is known.
    """
    chains, rules = [], []
    for line in lines:
        match = _CHAIN.fullmatch(line)
        if match is None or not match[3]:
            continue
        table, name, text = match.groups()
        if base := _BASE.match(text):
            chains.append(Chain(table, name, *_base(base), (policies or {}).get((table, name))))
        else:
            count = _COUNTER.search(text)
            rules.append(Rule(table, name, _COUNTER.sub("", text).strip(), int(count[1]) if count else None))
    return RuleSet(tuple(sorted(chains, key=lambda chain: chain.priority)), tuple(rules))


def met(hook: str, passing: Passing, before: RuleSet, after: RuleSet) -> Met:
    """Return what a packet met at a hook.

    Args:
        hook: "prerouting", "input", "forward", "output" or "postrouting".
        passing: the packet there.
        before: the rules before it was sent.
        after: the rules after that.
    """
    found: list[Rule] = []
    maybe: list[Rule] = []
    grown = _grown(before, after)
    for chain in after.chains:
        if chain.hook != hook or chain.table.split()[0] not in ("ip", "inet"):
            continue
        if chain.kind == "nat" and passing.answer:
            continue  # those see the first packet of a connection alone
        verdict = _walk(chain.table, chain.name, passing, after, grown, found, maybe, 0)
        if verdict in ("drop", "reject"):
            return Met(tuple(found), f"rule “{found[-1].text}” in chain {found[-1].chain} of table {chain.table}", tuple(maybe))
        if not verdict and chain.policy == "drop":
            return Met(tuple(found), f"policy drop of chain {chain.name} of table {chain.table}", tuple(maybe))
    return Met(tuple(found), "", tuple(maybe))


def _walk(table: str, name: str, passing: Passing, rules: RuleSet, grown: dict[int, bool | None],
          found: list[Rule], maybe: list[Rule], depth: int) -> str:  # fmt: skip
    """Go through a chain, note the rules that were met, and return the word that ended it; "" at its end."""
    for number, rule in enumerate(rules.rules):
        if (rule.table, rule.chain) != (table, name):
            continue
        hit = matches(rule, passing)
        if hit is not False and grown[number] is not None:
            hit = grown[number]  # the kernel's own word for it
        if hit is None and rule.verdict.startswith(("drop", "reject")):
            maybe.append(rule)
        if not hit or not rule.verdict:
            continue
        word, _, target = rule.verdict.partition(" ")
        if word in ("jump", "goto") and depth < 16:
            ended = _walk(table, target.strip(), passing, rules, grown, found, maybe, depth + 1)
            if ended or word == "goto":
                return ended
        elif word == "return":
            return ""
        else:
            found.append(rule)
            return word
    return ""


def _grown(before: RuleSet, after: RuleSet) -> dict[int, bool | None]:
    """Return of each rule whether its counter has grown; None for one without a counter, or of a rule set that was changed meanwhile."""
    same = [(rule.table, rule.chain, rule.text) for rule in before.rules] == [(rule.table, rule.chain, rule.text) for rule in after.rules]
    grown: dict[int, bool | None] = dict.fromkeys(range(len(after.rules)))
    if same:
        for number, (old, new) in enumerate(zip(before.rules, after.rules, strict=True)):
            if old.packets is not None and new.packets is not None:
                grown[number] = new.packets > old.packets
    return grown


def matches(rule: Rule, passing: Passing) -> bool | None:
    """Tell whether the conditions of a rule hold for a packet; None where one of them is not understood and the others hold."""
    conditions = _bare(rule.text)
    conditions = conditions.removesuffix(rule.verdict).strip()
    known = all(_holds(match[1], bool(match[2]), match[3], passing) for match in _CONDITION.finditer(conditions))
    if not known:
        return False
    rest = _KNOWN.sub("", _CONDITION.sub("", conditions)).strip()
    return None if rest else True


def _holds(what: str, negated: bool, words: str, passing: Passing) -> bool:
    values = [value.strip().strip('"') for value in words.strip("{}").split(",")]
    return any(_is(what, value, passing) for value in values) != negated


def _is(what: str, value: str, passing: Passing) -> bool:
    if what in ("iifname", "iif", "oifname", "oif"):
        return fnmatch.fnmatchcase(passing.iifname if what.startswith("i") else passing.oifname, value)
    if what in ("ip saddr", "ip daddr"):
        return _inside(passing.source if what == "ip saddr" else passing.destination, value)
    if what in ("meta l4proto", "ip protocol"):
        return value in (passing.protocol, {"tcp": "6", "icmp": "1", "udp": "17"}.get(passing.protocol, ""))
    if what == "ct state":
        return value == ("established" if passing.answer else "new")
    first, _, last = value.partition("-")
    there = what.startswith(passing.protocol) and first.isdigit() and not passing.answer
    return there and int(first) <= passing.port <= int(last or first)


def _inside(address: str, value: str) -> bool:
    try:
        first, _, last = value.partition("-")
        if last:
            return ipaddress.ip_address(first) <= ipaddress.ip_address(address) <= ipaddress.ip_address(last)  # type: ignore[operator]
        return ipaddress.ip_address(address) in ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False


def _bare(text: str) -> str:
    """Return a rule without its counter and its comment."""
    return re.sub(r'\s*comment "[^"]*"', "", re.sub(r"\bcounter\b ?", "", _COUNTER.sub("", text))).strip()


def _base(match: re.Match[str]) -> tuple[str, str, int, str]:
    return match[1], match[2], _priority(match[3]), match[4] or "accept"


def _priority(words: str) -> int:
    match = re.fullmatch(r"(-?\d+)|(\w+)(?: ([+-]) (\d+))?", words.strip())
    if match is None:
        return 0
    if match[1]:
        return int(match[1])
    return _PRIORITIES.get(match[2], 0) + int(f"{match[3] or '+'}{match[4] or 0}")


def _policies() -> dict[tuple[str, str], int]:
    """Read what the policies of iptables have counted; nothing where it is not installed."""
    try:
        saved = commands.run(["iptables-nft-save", "--counters"], timeout=10).stdout
    except LabError:
        return {}
    return dict(_parse_policies(saved.splitlines()))


def _parse_policies(lines: Iterable[str]) -> Iterator[tuple[tuple[str, str], int]]:
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = f"ip {line[1:].strip()}"
        elif match := _POLICY.match(line):
            yield (table, match[1]), int(match[3])
