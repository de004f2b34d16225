"""Chains of iptables that belong to one container: put in and taken away whole, in one transaction each.

iptables-restore hands the kernel one batch: it is there, or not; whoever is killed leaves no half of it. Other rules stay as they
are. See: iptables-save(8), iptables-restore(8)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence

from labkit.errors import LabError
from labkit.kernel import commands

_SECONDS = 30.0
_LONGEST = 28  # characters of a chain's name
_TRIES = 3


def masquerade(network: str, container_id: str) -> str:
    """Return the chain in which the plugins bridge and ptp masquerade what comes from a container."""
    return f"CNI-{hashlib.sha512((network + container_id).encode()).hexdigest()}"[:_LONGEST]


def insert(chains: Collection[str], rules: Sequence[str], *, keep: Sequence[int] = ()) -> None:
    """Make chains in the table nat with all their rules, and the rules that jump to them.

    Shell:
        iptables-restore --noflush < rules
    Args:
        chains: their names.
        rules: each as `-A CHAIN ...` or `-I CHAIN 1 ...`.
        keep: descriptors that the command inherits.

    Raises:
        CommandError: the kernel takes one of them not: then none is there.
    """
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in chains), *rules, "COMMIT", ""]
    commands.run(["iptables-restore", "--noflush", "--wait", "10"], input="\n".join(lines), timeout=_SECONDS, keep=keep)


def remove(chains: Collection[str], *, families: Sequence[str] = ("iptables",), keep: Sequence[int] = ()) -> None:
    """Take chains out of the table nat, with every rule that jumps to them; one that is not there is no error.

    Args:
        chains: their names.
        families: "iptables", "ip6tables".
        keep: descriptors that the commands inherit.

    Raises:
        CommandError: the kernel refuses, three times over: others may change the table at the same time.
    """
    for family in families:
        for left in reversed(range(_TRIES)):
            lines = removal(_saved(family, keep), chains)
            if not lines:
                break
            text = "\n".join(["*nat", *lines, "COMMIT", ""])
            command = [f"{family}-restore", "--noflush", "--wait", "10"]
            if commands.run(command, input=text, timeout=_SECONDS, check=not left, keep=keep).status == 0:
                break


def removal(saved: str, chains: Collection[str]) -> list[str]:
    """Return the lines for iptables-restore that take chains out of what iptables-save wrote of one table."""
    there = [chain for chain in chains if re.search(rf"^:{re.escape(chain)} ", saved, re.MULTILINE)]
    jumps = []
    for line in saved.splitlines():
        found = re.match(r"-A (\S+) .*-[jg] (\S+)", line)
        if found and found[2] in there and found[1] not in there:
            jumps.append(f"-D{line[2:]}")
    return [*jumps, *(f"-F {chain}" for chain in there), *(f"-X {chain}" for chain in there)]


def tables() -> tuple[str, ...]:
    """Return the tables of nftables in which iptables writes, as "ip nat".

    Shell:
        nft list tables
    """
    try:
        done = commands.run(["nft", "list", "tables"], timeout=_SECONDS)
    except LabError:  # a kernel without it: iptables then writes elsewhere
        return ()
    return tuple(re.findall(r"^table (ip6? (?:filter|nat|mangle))$", done.stdout, re.MULTILINE))


def delete_empty(table: str) -> bool:
    """Delete a table of `tables` in which no rule and no chain but the kernel's own hooks is left.

    Returns:
        Whether it is gone.
    """
    listed = commands.run(["nft", "--stateless", "list", "table", *table.split()], timeout=_SECONDS, check=False)
    if listed.status == 0:
        lines = [line.strip() for line in listed.stdout.splitlines() if line.strip() and not line.startswith("#")]
        hook = r"(chain \S+ \{ type \w+ hook [^;]*; policy accept; \} ?)*"
        if not re.fullmatch(rf"table {table} \{{ {hook}\}}", " ".join(lines)):
            return False
        commands.run(["nft", "delete", "table", *table.split()], timeout=_SECONDS, check=False)
    return True


def _saved(family: str, keep: Sequence[int]) -> str:
    try:
        return commands.run([f"{family}-save", "-t", "nat"], timeout=_SECONDS, keep=keep).stdout
    except LabError:  # a kernel without that family, or no iptables: then nothing was written with it
        return ""
