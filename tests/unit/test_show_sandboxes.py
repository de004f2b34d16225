"""How sandboxes of containers are tabulated: on hand-made records."""

from dataclasses import replace

from labkit.kernel.network.endpoints import Endpoint, Sandbox
from labkit.show import sandbox_table

VETH = Endpoint("eth0", "veth", "", "lab84", "host", "", ("172.31.84.2/24",), 1500)
OWN = Sandbox(9, host=False, endpoints=(VETH,), gateway="172.31.84.1")


def rows(sandbox: Sandbox) -> list[str]:
    return [" ".join(line.split()) for line in str(sandbox_table([("web", sandbox)])).splitlines()[2:]]


def test_an_endpoint_is_a_row_with_what_it_is_joined_to():
    assert rows(OWN) == ["web eth0 veth lab84 172.31.84.2/24 172.31.84.1"]


def test_the_way_out_is_told_once():
    more = replace(VETH, ifname="eth1", joined="lab85", addresses=("172.31.85.2/24",))
    assert rows(replace(OWN, endpoints=(VETH, more)))[1] == "eth1 veth lab85 172.31.85.2/24"


def test_a_vxlan_beside_it_and_a_mode_are_told():
    assert rows(replace(OWN, endpoints=(replace(VETH, joined="br0", vxlan="id 4097"),)))[0].startswith("web eth0 veth br0, vxlan id 4097")
    stacked = replace(VETH, kind="macvlan", detail="mode private", joined="lan0")
    assert rows(replace(OWN, endpoints=(stacked,), gateway="")) == ["web eth0 macvlan private lan0 172.31.84.2/24 none"]


def test_what_is_joined_to_nothing_says_so():
    assert rows(replace(OWN, endpoints=(replace(VETH, joined=""),)))[0].startswith("web eth0 veth nothing in sight")
    assert rows(replace(OWN, endpoints=(), gateway="")) == ["web lo nothing none"]
    assert rows(replace(OWN, host=True, endpoints=())) == ["web this machine itself"]
