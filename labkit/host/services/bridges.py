"""The bridges that services stand on: made, addressed, translated to the outside, and given DHCP and DNS, as lxc-net does it."""

from __future__ import annotations

import ipaddress
import pwd
from pathlib import Path

from labkit.kernel import commands


def make(ifname: str, address: str) -> None:
    """Make a bridge with an address, and set it up; what is there already is left.

    Shell:
        ip link add lxcbr0 type bridge; ip addr add 10.0.3.1/24 broadcast + dev lxcbr0; ip link set lxcbr0 up
    """
    from labkit.kernel import network

    there = {link.ifname: link for link in network.links()}
    if ifname not in there:
        commands.run(["ip", "link", "add", ifname, "type", "bridge"])
    if ifname not in there or address not in there[ifname].addresses:
        commands.run(["ip", "addr", "add", address, "broadcast", "+", "dev", ifname])
    commands.run(["ip", "link", "set", ifname, "up"])


def translate(ifname: str, address: str) -> None:
    """Let what is on the bridge reach the outside under our address, and our DHCP and DNS from the bridge.

    Shell:
        sysctl -w net.ipv4.ip_forward=1; nft add rule ip lxc postrouting ip saddr 10.0.3.0/24 ... masquerade
    """
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")
    inet, ip = tables(ifname)
    if {f"table {inet}", f"table {ip}"} <= set(commands.run(["nft", "list", "tables"]).stdout.splitlines()):
        return
    network = ipaddress.ip_interface(address).network
    commands.run(["nft", "-f", "-"], input=f"""
table {inet}
delete table {inet}
table {inet} {{
    chain input {{
        type filter hook input priority 0
        iifname "{ifname}" meta l4proto {{ tcp, udp }} th dport {{ 53, 67 }} accept
    }}
    chain forward {{
        type filter hook forward priority 0
        iifname "{ifname}" accept
        oifname "{ifname}" accept
    }}
}}
table {ip}
delete table {ip}
table {ip} {{
    chain postrouting {{
        type nat hook postrouting priority 100
        ip saddr {network} ip daddr != {network} counter masquerade
    }}
}}
""")


def tables(ifname: str) -> tuple[str, str]:
    """Return the two nft tables of a bridge, with their families: Debian's names for lxcbr0."""
    name = "lxc" if ifname == "lxcbr0" else ifname.replace("-", "_")
    return f"inet {name}", f"ip {name}"


def dnsmasq(ifname: str, address: str, run: Path) -> tuple[str, ...]:
    """Return the command that serves DHCP and DNS on a bridge, in the foreground."""
    interface = ipaddress.ip_interface(address)
    hosts = list(interface.network.hosts())
    return (
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "-u", _user()),
        *("--strict-order", "--bind-interfaces"),
        *(f"--listen-address={interface.ip}", f"--dhcp-range={hosts[1]},{hosts[-1]}", f"--dhcp-lease-max={len(hosts) - 1}"),
        *("--dhcp-no-override", "--except-interface=lo", f"--interface={ifname}", "--dhcp-authoritative", "--pid-file="),
        f"--dhcp-leasefile={run / 'dnsmasq.leases'}",
    )


def ports(ifname: str) -> tuple[str, ...]:
    """Return the links that are plugged into a bridge."""
    from labkit.kernel import network

    return tuple(link.ifname for link in network.links() if link.master == ifname)


def remove_tables(ifname: str) -> None:
    """Remove the nft tables of a bridge; where they are not there it is no error."""
    tables_of = "".join(f"table {name}\ndelete table {name}\n" for name in tables(ifname))
    commands.run(["nft", "-f", "-"], input=tables_of)


def _user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("lxc-dnsmasq", "dnsmasq") if name in names), "nobody")
