"""Frames as they were on the wire, decoded; and what is no whole frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.kernel.network.frames import Arp, Ethernet, Packet, decode, decode_ip

ETHERNET = "02420a090001 02420a09000b 0800"
QUESTION = "ffffffffffff 02420a09000b 0806 0001080006040001 02420a09000b 0a09000b 000000000000 0a090001"
REPLY = "02420a09000b 02420a090001 0806 0001080006040002 02420a090001 0a090001 02420a09000b 0a09000b"
ECHO = ETHERNET + "4500 0054 1c46 4000 4001 0a52 0a09000b 0a090001  0800 4d2f 1a2b 0001" + "6162636465666768" + "00" * 48
SYN = ETHERNET + "4500 003c d431 4000 4006 5264 0a09000b 0a090001  9c40 0050 11223344 00000000 a002 faf0 1423 0000" + "00" * 20
SYN_ACK = ETHERNET + "4500 003c 0000 4000 4006 2696 0a090001 0a09000b  0050 9c40 55667788 11223345 a012 fe88 1423 0000" + "00" * 20
RESET = ETHERNET + "4500 0028 0000 4000 4006 26aa 0a090001 0a09000b  0050 9c40 00000000 11223345 5014 0000 3f66 0000"
DNS = ETHERNET + "4500 0025 0001 0000 4011 66b4 0a09000b 0a090001  d431 0035 0011 0000" + "00" * 9
VXLAN = "02420a070002 02420a070001 0800 4500 0086 0000 0000 4011 6666 0a070001 0a070002  e1f4 12b5 0072 0000  08000000 00100100" + ECHO
ABOUT = "4500 05dc 0001 4000 4006 0000 0a09000b 0a090002 9c40 0050 11223344"
TOO_LARGE = ETHERNET + "45c0 0048 0000 0000 4001 6666 0a090001 0a09000b  0304 0000 0000 0578" + ABOUT
TAGGED = "02420a090001 02420a09000b 8100 0064 0800" + ECHO.split("0800", 1)[1]


def of(text: str) -> Packet:
    return decode(bytes.fromhex(text))


def test_a_question_for_a_neighbour_and_its_reply():
    question, reply = of(QUESTION), of(REPLY)
    assert question.ethernet == Ethernet("02:42:0a:09:00:0b", "ff:ff:ff:ff:ff:ff", 0x0806)
    assert question.arp == Arp("request", "02:42:0a:09:00:0b", "10.9.0.11", "00:00:00:00:00:00", "10.9.0.1")
    assert reply.arp == Arp("reply", "02:42:0a:09:00:01", "10.9.0.1", "02:42:0a:09:00:0b", "10.9.0.11")
    assert (question.told, reply.told) == ("who has 10.9.0.1? asks 10.9.0.11", "10.9.0.1 is here, to 10.9.0.11")


def test_an_echo_request():
    packet = of(ECHO)
    assert (packet.ip.source, packet.ip.destination, packet.ip.length, packet.ip.ttl, packet.ip.dont_fragment) == (
        "10.9.0.11", "10.9.0.1", 84, 64, True)  # fmt: skip
    assert (packet.icmp.kind, packet.icmp.number, packet.icmp.sequence, packet.icmp.payload[:8]) == (8, 0x1A2B, 1, b"abcdefgh")
    assert packet.told == "10.9.0.11 > 10.9.0.1 echo request"


@pytest.mark.parametrize(
    ("text", "flags", "sequence", "acknowledgement", "told"),
    [
        (SYN, ("SYN",), 0x11223344, 0, "10.9.0.11 > 10.9.0.1 tcp port 80 SYN"),
        (SYN_ACK, ("SYN", "ACK"), 0x55667788, 0x11223345, "10.9.0.1 > 10.9.0.11 tcp port 80 SYN,ACK"),
        (RESET, ("RST", "ACK"), 0, 0x11223345, "10.9.0.1 > 10.9.0.11 tcp port 80 RST,ACK"),
    ],
)
def test_segments_of_tcp(text: str, flags: tuple[str, ...], sequence: int, acknowledgement: int, told: str):
    packet = of(text)
    assert (packet.tcp.flags, packet.tcp.sequence, packet.tcp.acknowledgement) == (flags, sequence, acknowledgement)
    assert {packet.tcp.source, packet.tcp.destination} == {0x9C40, 80}
    assert packet.told == told


def test_a_datagram():
    packet = of(DNS)
    assert (packet.udp.source, packet.udp.destination, packet.vxlan) == (54321, 53, None)
    assert packet.told == "10.9.0.11 > 10.9.0.1 udp port 53"


def test_a_frame_in_a_vxlan():
    packet = of(VXLAN)
    assert packet.vxlan.vni == 4097
    assert packet.vxlan.inner == of(ECHO)
    assert packet.told == "10.7.0.1 > 10.7.0.2 vxlan 4097: 10.9.0.11 > 10.9.0.1 echo request"
    assert [one.protocol for one in packet.all()] == ["vxlan", "icmp"]


def test_an_error_carries_the_packet_that_it_is_about():
    packet = of(TOO_LARGE)
    assert (packet.icmp.mtu, packet.icmp.told) == (1400, "fragmentation needed, mtu 1400")
    assert (packet.icmp.about.ip.destination, packet.icmp.about.tcp.sequence) == ("10.9.0.2", 0x11223344)


def test_a_tag_of_a_vlan_is_passed_over():
    assert of(TAGGED).icmp == of(ECHO).icmp


def test_a_later_fragment_has_no_header_of_what_is_inside():
    packet = of(ECHO.replace("1c46 4000", "1c46 00b9"))
    assert (packet.ip.offset, packet.icmp) == (1480, None)


@pytest.mark.parametrize("text", [QUESTION, ECHO, SYN, DNS, VXLAN, TOO_LARGE, TAGGED])
def test_what_is_cut_off_is_no_error(text: str):
    data = bytes.fromhex(text)
    for size in range(len(data)):
        assert decode(data[:size]).told


@given(st.binary(max_size=200))
def test_whatever_comes_is_no_error(data: bytes):
    assert decode(data).told
    decode_ip(data)
