"""The path of a packet as text and as a picture, and captured frames as a table."""

import base64
import re
from dataclasses import replace

from show_states import PAIR

from labkit.kernel.network.capture import Frame
from labkit.kernel.network.frames import decode
from labkit.kernel.network.path import Hop, PacketPath
from labkit.show import frames_view, path_view


def hop(netns: str, ifname: str, way: str, source: str, destination: str, met: tuple[tuple[str, str], ...] = ()) -> Hop:
    return Hop(netns, netns, ifname, outgoing=way == "out", source=source, destination=destination, met=met)


RULE = 'iifname != "br0" tcp dport 8080 dnat to 172.17.0.2:80'
THERE = (
    hop("outside", "", "out", "10.0.0.1", "10.0.0.2:8080"),
    hop("outside", "eth0", "out", "10.0.0.1", "10.0.0.2:8080"),
    hop("host", "eth0", "in", "10.0.0.1", "10.0.0.2:8080", met=(("prerouting", RULE), ("forward", "counter accept"))),
    hop("host", "br0", "out", "10.0.0.1", "172.17.0.2:80"),
)
BACK = (hop("host", "br0", "in", "172.17.0.2:80", "10.0.0.1"),)
PATH = PacketPath("tcp", "outside", "10.0.0.2:8080", THERE, BACK, answered=True)
STOPPED = replace(PATH, answer=(), answered=False, fault="link down", where="veth1 in namespace1", cause="link veth1 in namespace1 is down")


def test_a_line_a_place_numbered_with_the_rules_after_it():
    assert path_view(PATH).text.split("\n") == [
        "tcp from outside to 10.0.0.2:8080: answered",
        "",
        "   sent      outside  10.0.0.1 > 10.0.0.2:8080",
        "1  out eth0  outside  10.0.0.1 > 10.0.0.2:8080",
        "2  in eth0   host     10.0.0.1 > 10.0.0.2:8080",
        f"       prerouting: {RULE}",
        "       forward: counter accept",
        "3  out br0   host     10.0.0.1 > 172.17.0.2:80",
        "   the answer",
        "4  in br0    host     172.17.0.2:80 > 10.0.0.1",
    ]


def test_without_rules_it_says_what_they_do():
    text = path_view(PATH, rules=False).text
    assert "       prerouting: dnat to 172.17.0.2:80\n       forward: accept\n" in text
    assert "iifname" not in text


def test_where_it_stops_the_cause_is_below():
    lines = path_view(STOPPED).text.split("\n")
    assert lines[0] == "tcp from outside to 10.0.0.2:8080: link down: veth1 in namespace1"
    assert lines[-1] == "cause: link veth1 in namespace1 is down"


def test_the_numbers_stand_on_the_picture_and_its_words_are_the_text():
    seen = PacketPath("icmp", "namespace1", "192.168.1.2", (
        hop("namespace1", "veth1", "out", "192.168.1.1", "192.168.1.2"),
        hop("namespace2", "veth2", "in", "192.168.1.1", "192.168.1.2"),
    ), fault="link down", where="veth1 in namespace1", cause="it is down")  # fmt: skip
    view = path_view(seen, PAIR)
    picture = base64.b64decode(re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', view.html)[1]).decode()
    assert re.search(r">1 ✗</text>", picture)
    assert re.search(r">2</text>", picture)
    assert 'alt="icmp from namespace1 to 192.168.1.2: link down: veth1 in namespace1' in view.html


def test_a_name_from_outside_is_escaped_and_fits():
    bad = replace(PATH, cause="<script>" + "x" * 300, request=(replace(THERE[2], title="<b>" * 40),))
    view = path_view(bad)
    assert "<script>" not in view.html
    assert max(map(len, view.text.splitlines())) <= 80


def frame(netns: str, ifname: str, way: str) -> Frame:
    data = "02420a09000102420a09000b0800" "4500001c1c4640004001000a0a09000b0a090001" "0800f7ff00000001"
    return Frame(netns, ifname, time=1, outgoing=way == "out", foreign=False, length=42, packet=decode(bytes.fromhex(data)))


def test_frames_are_a_table():
    text = frames_view([frame("web", "eth0", "out"), frame("host", "br0", "in")]).text
    assert text.split("\n")[2:] == [
        "web        out eth0  10.9.0.11 > 10.9.0.1 echo request",
        "host       in br0    10.9.0.11 > 10.9.0.1 echo request",
    ]
