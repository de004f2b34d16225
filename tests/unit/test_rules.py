"""Which rules a packet met: by counters that have grown, or else by conditions."""

import pytest

from labkit.kernel.network import nft
from labkit.kernel.network.rules import Passing, RuleSet, matches, met, parse

DOCKER = """\
# Warning: table ip nat is managed by iptables-nft, do not touch!
table ip nat {
	chain DOCKER {
		iifname "docker0" counter packets 0 bytes 0 return
		iifname != "docker0" meta l4proto tcp tcp dport 8080 counter packets %d bytes 60 dnat to 172.17.0.2:80
	}
	chain PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter packets %d bytes 60 jump DOCKER
	}
}
table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		oifname "docker0" ct state related,established counter packets 9 bytes 9 accept
		ip daddr 172.17.0.2 tcp dport 80 counter packets %d bytes 60 accept
	}
}
"""
PACKET = Passing("eth0", "", "10.0.0.1", "10.0.0.2", "tcp", 8080)
LEAVING = Passing("eth0", "docker0", "10.0.0.1", "172.17.0.2", "tcp", 80)


def rules(*packets: int, policies: dict[tuple[str, str], int] | None = None) -> RuleSet:
    return parse(nft.parse_rules(DOCKER % packets), policies)


def test_a_chain_and_a_rule_with_what_they_have_counted():
    found = rules(1, 2, 3, policies={("ip filter", "FORWARD"): 7})
    assert [(chain.name, chain.kind, chain.hook, chain.priority, chain.policy, chain.packets) for chain in found.chains] == [
        ("PREROUTING", "nat", "prerouting", -100, "accept", None), ("FORWARD", "filter", "forward", 0, "drop", 7)]  # fmt: skip
    assert [rule.packets for rule in found.rules] == [0, 1, 2, 9, 3]
    assert found.rules[1].verdict == "dnat to 172.17.0.2:80"
    assert found.translates


def test_a_rule_that_has_counted_was_met_by_way_of_its_chain():
    found = met("prerouting", PACKET, rules(1, 1, 0), rules(2, 2, 0))
    assert [rule.verdict for rule in found.rules] == ["dnat to 172.17.0.2:80"]
    assert not found.dropped


def test_one_that_has_not_counted_was_not():
    assert met("prerouting", PACKET, rules(1, 1, 0), rules(1, 2, 0)).rules == ()


def test_the_policy_drops_what_no_rule_lets_pass():
    assert met("forward", LEAVING, rules(1, 1, 4), rules(2, 2, 4)).dropped == "policy drop of chain FORWARD of table ip filter"
    assert not met("forward", LEAVING, rules(1, 1, 4), rules(2, 2, 5)).dropped


def test_chains_of_nat_see_no_answer():
    answer = Passing("eth0", "", "10.0.0.1", "10.0.0.2", "tcp", answer=True)
    assert met("prerouting", answer, rules(1, 1, 0), rules(2, 2, 0)).rules == ()


def test_a_rule_set_that_was_changed_meanwhile_is_compared_by_conditions():
    found = met("forward", LEAVING, RuleSet(), rules(1, 1, 4))
    assert [rule.verdict for rule in found.rules] == ["accept"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('iifname "eth0" drop', True),
        ('iifname != "eth0" drop', False),
        ('iifname "eth*" drop', True),
        ('iifname { "eth1", "eth0" } drop', True),
        ('oifname "docker0" accept', True),
        ("ip saddr 10.0.0.0/8 ip daddr 172.17.0.2 accept", True),
        ("ip saddr != 10.0.0.0/8 accept", False),
        ("ip daddr 172.17.0.0-172.17.0.9 accept", True),
        ("tcp dport 80 drop", True),
        ("tcp dport { 22, 80-90 } drop", True),
        ("tcp dport 81 drop", False),
        ("udp dport 80 drop", False),
        ("meta l4proto tcp drop", True),
        ("ip protocol icmp drop", False),
        ("ct state established,related accept", False),
        ("ct state new accept", True),
        ("drop", True),
        ('counter drop comment "all of it"', True),
        ("ip ttl 1 drop", None),
        ("ip ttl 1 tcp dport 81 drop", False),
    ],
)
def test_conditions(text: str, expected: bool | None):
    (rule,) = parse([f"table ip t chain c {text}"]).rules
    assert matches(rule, LEAVING) is expected


def test_a_rule_that_may_have_dropped_is_kept_apart():
    found = parse(["table ip t chain c type filter hook forward priority 0; policy accept;", "table ip t chain c ip ttl 1 drop"])
    assert [rule.verdict for rule in met("forward", LEAVING, found, found).maybe] == ["drop"]
