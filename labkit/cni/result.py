"""What plugins answer to ADD: interfaces, addresses, routes, name servers; in every version one record.

See: CNI specification 1.0.0, section 5 (result types)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labkit.errors import LabError


@dataclass(frozen=True)
class Interface:
    """A link that a plugin made, or used.

    Attributes:
        name: its name there.
        mac: its link-layer address, or "".
        sandbox: the network namespace's file; "" for the host's.
    """

    name: str
    mac: str = ""
    sandbox: str = ""


@dataclass(frozen=True)
class Ip:
    """An address that was given.

    Attributes:
        address: with the length of its network: "10.22.0.2/16".
        gateway: the next hop that goes with it, or "".
        interface: its link, as place in `Result.interfaces`, or None.
    """

    address: str
    gateway: str = ""
    interface: int | None = None

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4


@dataclass(frozen=True)
class Route:
    """A route that was made: destination, and next hop or ""."""

    destination: str
    gateway: str = ""


@dataclass(frozen=True)
class Result:
    """An answer to ADD.

    Attributes:
        interfaces: in the plugins' order.
        ips: the addresses.
        routes: the routes.
        nameservers: the addresses of name servers.
        record: the answer as it was given.
    """

    interfaces: tuple[Interface, ...]
    ips: tuple[Ip, ...]
    routes: tuple[Route, ...]
    nameservers: tuple[str, ...]
    record: Mapping[str, Any]

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> Result:
        """Read an answer of any version: before 0.3.0 it has `ip4` and `ip6`, from then on `ips`.

        Raises:
            LabError: it is no result; the field is named.
        """
        old = [answer[key] for key in ("ip4", "ip6") if answer.get(key)]
        try:
            if old:
                ips = tuple(Ip(str(one["ip"]), str(one.get("gateway") or "")) for one in old)
                routes = [route for one in old for route in one.get("routes") or []]
            else:
                ips = tuple(_ip(one) for one in answer.get("ips") or [])
                routes = answer.get("routes") or []
            interfaces = tuple(_interface(one) for one in answer.get("interfaces") or [])
            if any(ip.interface is not None and ip.interface >= len(interfaces) for ip in ips):
                raise LookupError("an address names an interface that is not there")
            return cls(
                interfaces,
                ips,
                tuple(Route(str(one["dst"]), str(one.get("gw") or "")) for one in routes),
                tuple(str(each) for each in (answer.get("dns") or {}).get("nameservers") or []),
                answer,
            )
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise LabError("the plugin's answer is no result", cause=f"{type(error).__name__}: {error}") from None

    def address(self, sandbox: str = "", version: int = 4) -> Ip | None:
        """Return the first address of the container.

        Args:
            sandbox: only of links in this namespace; "" for any. An address whose link is not said counts.
            version: 4 or 6.
        """
        for ip in self.ips:
            inside = ip.interface is None or not sandbox or self.interfaces[ip.interface].sandbox == sandbox
            if ip.version == version and inside:
                return ip
        return None


def _ip(one: Mapping[str, Any]) -> Ip:
    interface = one.get("interface")
    return Ip(str(one["address"]), str(one.get("gateway") or ""), int(interface) if interface is not None and interface >= 0 else None)


def _interface(one: Mapping[str, Any]) -> Interface:
    return Interface(str(one["name"]), str(one.get("mac") or ""), str(one.get("sandbox") or ""))
