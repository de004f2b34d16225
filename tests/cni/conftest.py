"""Fixtures of networks by CNI."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from plumbing import shell

from labkit import ledger
from labkit.cni import Caller
from labkit.kernel.network import NetworkNamespace

TABLES = {"filter": ("INPUT", "FORWARD", "OUTPUT"), "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")}
"""The tables that plugins write in, and their hooks."""


@pytest.fixture(scope="session", autouse=True)
def known_packet_filter() -> None:
    """Let iptables make the hooks of its tables, which it does with its first rule, and leaves empty."""
    for family in ("iptables", "ip6tables"):
        drops = {hook for hook in TABLES["filter"] if f":{hook} DROP" in shell(f"{family}-save -t filter")}  # dockerd's choice
        for table, hooks in TABLES.items():
            rules = f"*{table}\n" + "".join(f":{hook} {'DROP' if hook in drops else 'ACCEPT'} [0:0]\n" for hook in hooks) + "COMMIT\n"
            subprocess.run([f"{family}-restore", "--noflush"], input=rules, text=True, check=True)


@pytest.fixture(autouse=True)
def plain_packet_filter(nothing_left: None) -> Iterator[None]:
    """Take away what plugins leave by design: chains that they share, tables, bridges."""
    tables, links = set(shell("nft list tables").splitlines()), set(shell("ls /sys/class/net").split())
    saved = {family: shell(f"{family}-save") for family in ("iptables", "ip6tables")}
    yield
    for family, rules in saved.items():
        subprocess.run([f"{family}-restore"], input=rules, text=True, check=True)
    for table in set(shell("nft list tables").splitlines()) - tables:
        shell(f"nft delete {table}")
    for link in set(shell("ls /sys/class/net").split()) - links:
        shell(f"ip link delete {link}", check=False)


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(tmp_path / "state")


@pytest.fixture
def web(plain_packet_filter: None) -> Iterator[NetworkNamespace]:
    """A network namespace, a container's."""
    with ledger.owned_by("tests of cni"):
        yield NetworkNamespace.create("web")
        NetworkNamespace("web").delete()


@pytest.fixture
def able(plain_packet_filter: None) -> set[str]:
    """The kinds of links on top of another that the kernel can make, as ip(8) finds."""
    shell("ip link add cnitest3 type veth peer name cnitest4")
    kinds = {"macvlan": "", "ipvlan": "", "vlan": "id 9"}
    line = "ip link add link cnitest3 name cnitest5 type {} {} && ip link delete cnitest5 && echo yes"
    found = {kind for kind, more in kinds.items() if shell(line.format(kind, more), check=False)}
    shell("ip link delete cnitest3")
    return found
