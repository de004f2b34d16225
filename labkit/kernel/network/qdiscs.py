"""Read which links are held to a rate: the token buckets before them. See: tc(8), tc-tbf(8)."""

from __future__ import annotations

import struct

from labkit.kernel.network.netlink import NetlinkSocket, attributes

SHAPER = "tbf"
"""As the kernel calls it, in RTM_GETLINK (IFLA_QDISC) and in RTM_GETQDISC (TCA_KIND)."""

_RTM_GETQDISC = 38
_TCMSG = struct.Struct("=BxxxiIII")
_TCA_KIND, _TCA_OPTIONS, _TCA_TBF_PARMS, _TCA_TBF_RATE64 = 1, 2, 1, 4
_RATE_OF_RATESPEC = 8  # octets of struct tc_ratespec that stand before its rate


def rates(route: NetlinkSocket) -> dict[int, int]:
    """Read the rates of the namespace that the socket is in: index of the link to octets a second that may leave it.

    Shell:
        tc qdisc show
    """
    return dict(found for message in route.dump(_RTM_GETQDISC, bytes(_TCMSG.size)) if (found := parse(message)))


def parse(message: bytes) -> tuple[int, int] | None:
    """Return the index of the link and the rate of a message of RTM_NEWQDISC; None where it is no token bucket."""
    _, index, *_ = _TCMSG.unpack_from(message)
    found = attributes(message, _TCMSG.size)
    if found.get(_TCA_KIND, b"").rstrip(b"\0").decode() != SHAPER:
        return None
    options = attributes(found.get(_TCA_OPTIONS, b""))
    if _TCA_TBF_RATE64 in options:
        return index, int(struct.unpack("=Q", options[_TCA_TBF_RATE64])[0])
    return index, int(struct.unpack_from("=I", options.get(_TCA_TBF_PARMS, bytes(64)), _RATE_OF_RATESPEC)[0])
