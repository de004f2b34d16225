"""Token buckets, as messages of the kernel tell them."""

import struct

from labkit.kernel.network import qdiscs
from labkit.kernel.network.netlink import attribute


def message(kind: str, *options: bytes, index: int = 7) -> bytes:
    """Return the body of RTM_NEWQDISC as the kernel writes it: struct tcmsg, then its attributes."""
    return (
        struct.pack("=BxxxiIII", 0, index, 1 << 16, 0xFFFFFFFF, 2) + attribute(1, kind.encode() + b"\0") + attribute(2, b"".join(options))
    )


def parameters(rate: int) -> bytes:
    """Return struct tc_tbf_qopt: the rate, the peak rate, limit, buffer, mtu."""
    return attribute(1, struct.pack("=BBHhHI", 0, 1, 0, -1, 0, rate) + bytes(12) + struct.pack("=III", 35_000, 156_250, 0))


def test_the_rate_of_a_token_bucket_is_in_octets_a_second() -> None:
    assert qdiscs.parse(message("tbf", parameters(1_000_000))) == (7, 1_000_000)


def test_a_rate_that_is_too_large_for_32_bits_stands_beside() -> None:
    assert qdiscs.parse(message("tbf", parameters(0xFFFFFFFF), attribute(4, struct.pack("=Q", 5_000_000_000)))) == (7, 5_000_000_000)


def test_other_queues_have_no_rate() -> None:
    assert qdiscs.parse(message("noqueue")) is None
    assert qdiscs.parse(message("fq_codel", attribute(1, bytes(4)))) is None
