"""The files of lab 8.5: configurations of networks as a person writes them, and what a DHCP server and its wire need."""

from __future__ import annotations

import json
from typing import Any

SHOP = "10.61.0.0/24"


def local(subnet: str, **more: object) -> dict[str, Any]:
    """Return what host-local is told: a network, and whatever more."""
    return {"type": "host-local", "subnet": subnet, **more}


def bridge(name: str, subnet: str, **more: object) -> dict[str, Any]:
    """Return a bridge that is its network's gateway, its addresses by host-local."""
    return {"type": "bridge", "bridge": name, "isGateway": True, **more, "ipam": local(subnet)}


def one(name: str, **plugin: object) -> str:
    """Return the text of a network of one plugin: a line for what all have, one for the plugin, one for its addresses."""
    lines = [{"cniVersion": "1.0.0", "name": name}, {key: value for key, value in plugin.items() if key != "ipam"}]
    lines += [{"ipam": plugin["ipam"]}] if "ipam" in plugin else []
    return "{" + ",\n ".join(json.dumps(line)[1:-1] for line in lines) + "\n}\n"


def chain(name: str, *plugins: dict[str, Any], version: str = "1.0.0") -> str:
    """Return the text of a chain, a plugin a line; what a plugin tells the one for addresses is a line of its own."""
    lines = [json.dumps(one).replace(', "ipam"', ',\n   "ipam"') for one in plugins]
    return f'{{"cniVersion": "{version}", "name": "{name}", "plugins": [\n  ' + ",\n  ".join(lines) + "\n]}\n"


PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
_SHOP = one("shop", type="bridge", bridge="shop0", isGateway=True, ipMasq=True, ipam=local(SHOP))
_STATIC = {"type": "static", "addresses": [{"address": "10.66.0.9/24"}]}

_ENV = "export CNI_CONTAINERID=blue CNI_NETNS=/run/netns/blue\nexport CNI_IFNAME=eth0 CNI_PATH=/usr/lib/cni\n"
_LAN = """#!/bin/bash
if ip netns add lan 2> /dev/null; then
    ip link add lan0 type veth peer name lan1 netns lan
    ip link set lan0 up
    ip -n lan link set lan1 up
    ip -n lan addr add 10.66.0.1/24 dev lan1
fi
cat > $LAB/lan/lan.conf << END
{"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "lan0",
 "ipam": {"type": "dhcp", "daemonSocketPath": "$LAB/dhcp.sock"}}
END
"""
_SERVER = """keep-in-foreground
interface=lan1
dhcp-range=10.66.0.50,10.66.0.59,1h
dhcp-sequential-ip
dhcp-authoritative
no-ping
port=0
pid-file
user=root
log-facility=-
"""

EXAMPLES = {
    "raw": {
        "raw/raw.conf": one("raw", type="bridge", bridge="raw0", isGateway=True, ipam=local("10.60.0.0/24")),
        "raw/blue.env": _ENV,
    },
    "shop": {
        "shop/lo.conf": one("lo", type="loopback"),
        "shop/shop.conf": _SHOP,
    },
    "links": {
        "links/ptp.conf": one("ptp", type="ptp", ipam=local("10.67.0.0/24")),
        "links/macvlan.conf": one("macvlan", type="macvlan", master="wire0", ipam=_STATIC),
        "links/ipvlan.conf": one("ipvlan", type="ipvlan", master="wire0", ipam=_STATIC),
        "links/vlan.conf": one("vlan", type="vlan", master="wire0", vlanId=7, ipam=_STATIC),
        "links/card.conf": one("card", type="host-device", device="card0"),
    },
    "lan": {"lan/lan.sh": _LAN, "lan/server.conf": _SERVER},
    "chain": {
        "chain/chain.conflist": chain(
            "shop",
            bridge("shop0", SHOP),
            PORTMAP,
            {"type": "firewall"},
            {"type": "tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}},
            {"type": "sbr"},
        ),
    },
    "slow": {
        "slow/free.conf": _SHOP,
        "slow/slow.conflist": chain(
            "shop",
            bridge("shop0", SHOP),
            {"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 80_000},
        ),
    },
}
