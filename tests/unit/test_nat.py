"""Port mappings and masquerading, from what nft and iptables-legacy-save write."""

from labkit.kernel.network.nat import Masquerade, PortMapping, parse_dnat, parse_legacy_dnat, parse_legacy_masquerade, parse_masquerade
from labkit.kernel.network.nft import parse_rules

RULESET = """\
table ip nat {
	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport 8080 counter dnat to 172.17.0.2:80
		dnat to tcp dport map { 90 : 10.0.3.4, 91 : 10.0.3.5 }
	}

	chain DOCKER {
		iifname "docker0" counter return
		iifname != "docker0" ip daddr 127.0.0.1 udp dport 53 counter dnat to 172.17.0.3:53
	}

	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade
		ip saddr 10.0.3.0/24 ip daddr != 10.0.3.0/24 counter masquerade
		ip saddr { 10.1.0.0/16, 10.2.0.0/16 } snat to 192.0.2.1
		oifname "eth0" masquerade
		ip saddr 172.17.0.2 ip daddr 172.17.0.2 tcp dport 80 counter masquerade
	}
}
table inet n {
	chain p {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport { 80, 443 } dnat ip to 10.0.3.9
		ip daddr 192.0.2.1 udp dport 5353 dnat ip to 10.0.3.9:53
		ip6 daddr 2001:db8::1 tcp dport 80 dnat ip6 to [fd00::2]:8080
		dnat ip to tcp dport map { 1080 : 10.0.3.8 . 80, 1081 : 10.0.3.7 . 81 }
	}
}
"""

LEGACY = """\
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER ! -d 10.0.0.1/32 ! -i docker0 -p udp -m udp --dport 8000:8010 -j DNAT --to-destination 172.17.0.4
-A DOCKER -d 192.0.2.1/32 -p tcp -m multiport --dports 80,443 -j DNAT --to-destination 172.17.0.5
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -o eth0 -j MASQUERADE
COMMIT
"""


def test_the_port_mappings_of_nft_and_of_iptables_nft():
    assert list(parse_dnat(parse_rules(RULESET))) == [
        PortMapping("tcp", "", "8080", "172.17.0.2", "80", "nft"),
        PortMapping("tcp", "", "90", "10.0.3.4", "", "nft"),
        PortMapping("tcp", "", "91", "10.0.3.5", "", "nft"),
        PortMapping("udp", "127.0.0.1", "53", "172.17.0.3", "53", "nft"),
        PortMapping("tcp", "", "80", "10.0.3.9", "", "nft"),
        PortMapping("tcp", "", "443", "10.0.3.9", "", "nft"),
        PortMapping("udp", "192.0.2.1", "5353", "10.0.3.9", "53", "nft"),
        PortMapping("tcp", "2001:db8::1", "80", "fd00::2", "8080", "nft"),
        PortMapping("tcp", "", "1080", "10.0.3.8", "80", "nft"),
        PortMapping("tcp", "", "1081", "10.0.3.7", "81", "nft"),
    ]


def test_the_port_mappings_of_iptables_legacy():
    assert list(parse_legacy_dnat(LEGACY.splitlines())) == [
        PortMapping("tcp", "", "8081", "172.17.0.2", "80", "iptables-legacy"),
        PortMapping("udp", "", "8000-8010", "172.17.0.4", "", "iptables-legacy"),
        PortMapping("tcp", "192.0.2.1", "80", "172.17.0.5", "", "iptables-legacy"),
        PortMapping("tcp", "192.0.2.1", "443", "172.17.0.5", "", "iptables-legacy"),
    ]


def test_masquerading_is_told_with_the_networks_that_it_is_for():
    found = list(parse_masquerade(parse_rules(RULESET)))
    assert found == [
        Masquerade('oifname != "docker0" ip saddr 172.17.0.0/16 masquerade', ("172.17.0.0/16",)),
        Masquerade("ip saddr 10.0.3.0/24 ip daddr != 10.0.3.0/24 masquerade", ("10.0.3.0/24",)),
        Masquerade("ip saddr { 10.1.0.0/16, 10.2.0.0/16 } snat to 192.0.2.1", ("10.1.0.0/16", "10.2.0.0/16")),
        Masquerade('oifname "eth0" masquerade', leaving="eth0"),
    ]
    assert [rule.covers("10.0.3.7/24", "eth0") for rule in found] == [False, True, False, True]
    assert [rule.covers("10.0.3.7/24", "eth1") for rule in found] == [False, True, False, False]
    legacy = list(parse_legacy_masquerade(LEGACY.splitlines()))
    assert [(rule.sources, rule.leaving) for rule in legacy] == [(("172.17.0.0/16",), ""), ((), "eth0")]


def test_an_address_of_the_other_family_is_not_meant():
    assert not Masquerade("", ("10.0.3.0/24",)).covers("fd00::2/64", "eth0")
